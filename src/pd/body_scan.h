// SPDX-License-Identifier: Apache-2.0
// What the proxy reads of a request's JSON body, found in one walk.
//
// The members below are type-checked and refused when they appear twice, however their keys are
// spelled; all others are none of the proxy's business and travel unchanged. Threads: one. Owns:
// offsets only; the body must outlive them.
#pragma once

#include <array>
#include <cstdint>
#include <expected>
#include <string>
#include <string_view>

#include "json/scan.h"
#include "json/stream_event.h"

namespace sluice::pd {

enum BodyMember : std::int16_t {
    kModel,
    kStream,
    kStreamOptions,
    kMaxTokens,
    kMaxCompletionTokens,
    kMaxOutputTokens,
    kMinTokens,
    kMinCompletionTokens,
    kN,
    kBestOf,
    kLogprobs,
    kTopLogprobs,
    kPromptLogprobs,
    kEcho,
    kUseBeamSearch,
    kPrompt,
    kPromptEmbeds,
    kBackground,
    kUser,
    kKvTransferParams,
    kEcTransferParams,
    kVllmXargs,
    kXargsKvTransferParams,
    kXargsEcTransferParams,
    kSamplingParams,
    kExtraArgs,
    kExtraKvTransferParams,
    kExtraEcTransferParams,
    kBodyMembers,
};

// Why one transfer cannot serve a request, so that a decode instance does all of it.
enum class WholeOnDecode : std::uint8_t {
    No,
    SeveralChoices,    // n or best_of above 1: each is an engine request of its own
    SeveralPrompts,    // a list of prompts: the same
    BeamSearch,        // vLLM passes no KV parameters on
    PromptEmbeddings,  // no token ids, nothing to transfer
    PromptLogprobs,    // D computes the whole prompt anyway
    Background,        // P would answer before it has computed anything
    kCount,
};
std::string_view name_of(WholeOnDecode reason);

struct BodyScan {
    json::Member root;
    std::array<json::Member, kBodyMembers> members;
    bool stream = false;
    WholeOnDecode whole_on_decode = WholeOnDecode::No;

    const json::Member& operator[](BodyMember member) const {
        return members[static_cast<std::size_t>(member)];
    }
};

// The body needs the slack that the scanner asks for. The error is a sentence for the client.
std::expected<void, std::string> scan_body(json::Scanner& scanner, std::string_view body,
                                           json::Api api, BodyScan& scan);

// For bodies that go to one decode instance: only the members that could carry KV parameters
// matter.
std::expected<void, std::string> scan_kv_members(json::Scanner& scanner, std::string_view body,
                                                 BodyScan& scan);

}  // namespace sluice::pd
