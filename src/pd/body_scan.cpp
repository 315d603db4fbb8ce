// SPDX-License-Identifier: Apache-2.0
#include "pd/body_scan.h"

#include "json/value.h"

namespace sluice::pd {

namespace {

using json::Kind;
using json::mask_of;
using json::MemberSpec;

constexpr auto kFlag = mask_of(Kind::Bool, Kind::Null);
constexpr auto kNumber = mask_of(Kind::Number, Kind::Null);
constexpr auto kObject = mask_of(Kind::Object, Kind::Null);

// In the order of BodyMember.
constexpr MemberSpec kSpecs[kBodyMembers] = {
    {"model", json::kRoot},
    {"stream", json::kRoot, kFlag},
    {"stream_options", json::kRoot, kObject},
    {"max_tokens", json::kRoot, kNumber},
    {"max_completion_tokens", json::kRoot, kNumber},
    {"max_output_tokens", json::kRoot, kNumber},
    {"min_tokens", json::kRoot, kNumber},
    {"min_completion_tokens", json::kRoot, kNumber},
    {"n", json::kRoot, kNumber},
    {"best_of", json::kRoot, kNumber},
    {"logprobs", json::kRoot},
    {"top_logprobs", json::kRoot},
    {"prompt_logprobs", json::kRoot},
    {"echo", json::kRoot, kFlag},
    {"use_beam_search", json::kRoot, kFlag},
    {"prompt", json::kRoot},
    {"prompt_embeds", json::kRoot},
    {"background", json::kRoot, kFlag},
    {"user", json::kRoot},
    {"kv_transfer_params", json::kRoot},
    {"ec_transfer_params", json::kRoot},
    {"vllm_xargs", json::kRoot},
    {"kv_transfer_params", kVllmXargs},
    {"ec_transfer_params", kVllmXargs},
    {"sampling_params", json::kRoot},
    {"extra_args", kSamplingParams},
    {"kv_transfer_params", kExtraArgs},
    {"ec_transfer_params", kExtraArgs},
};
constexpr json::MemberTable kTable{kSpecs};

bool is_true(const json::Member& member, std::string_view body) {
    return json::as_bool(member, body).value_or(false);
}

bool above_one(const json::Member& member, std::string_view body) {
    return member.kind == Kind::Number && json::as_int64(member, body).value_or(2) > 1;
}

// A string and a list of token ids are one prompt; a list of strings or of lists is one prompt an
// element.
bool several_prompts(const json::Member& prompt) {
    if (prompt.kind != Kind::Array || prompt.count == 0) return false;
    if (prompt.first_kind == Kind::Number) return false;
    return prompt.count > 1;
}

WholeOnDecode find_reason(const BodyScan& scan, std::string_view body, json::Api api) {
    if (above_one(scan[kN], body) || above_one(scan[kBestOf], body))
        return WholeOnDecode::SeveralChoices;
    if (is_true(scan[kUseBeamSearch], body)) return WholeOnDecode::BeamSearch;
    if (is_true(scan[kBackground], body)) return WholeOnDecode::Background;
    const Kind prompt_logprobs = scan[kPromptLogprobs].kind;
    if (prompt_logprobs != Kind::Absent && prompt_logprobs != Kind::Null)
        return WholeOnDecode::PromptLogprobs;
    if (api == json::Api::Completions) {
        if (several_prompts(scan[kPrompt])) return WholeOnDecode::SeveralPrompts;
        const Kind embeds = scan[kPromptEmbeds].kind;
        if (embeds != Kind::Absent && embeds != Kind::Null) return WholeOnDecode::PromptEmbeddings;
        const Kind logprobs = scan[kLogprobs].kind;
        if (is_true(scan[kEcho], body) && logprobs != Kind::Absent && logprobs != Kind::Null)
            return WholeOnDecode::PromptLogprobs;
    }
    return WholeOnDecode::No;
}

std::expected<void, std::string> walk(json::Scanner& scanner, std::string_view body,
                                      BodyScan& scan) {
    auto root = scanner.scan(body, kTable, scan.members);
    if (!root) {
        char text[json::kErrorTextBytesMax];
        return std::unexpected(std::string(json::describe(root.error(), kSpecs, text)));
    }
    scan.root = *root;
    return {};
}

}  // namespace

std::string_view name_of(WholeOnDecode reason) {
    switch (reason) {
        case WholeOnDecode::No:
            return "no";
        case WholeOnDecode::SeveralChoices:
            return "several_choices";
        case WholeOnDecode::SeveralPrompts:
            return "several_prompts";
        case WholeOnDecode::BeamSearch:
            return "beam_search";
        case WholeOnDecode::PromptEmbeddings:
            return "prompt_embeddings";
        case WholeOnDecode::PromptLogprobs:
            return "prompt_logprobs";
        case WholeOnDecode::Background:
            return "background";
        case WholeOnDecode::kCount:
            break;
    }
    return "unknown";
}

std::expected<void, std::string> scan_body(json::Scanner& scanner, std::string_view body,
                                           json::Api api, BodyScan& scan) {
    if (auto walked = walk(scanner, body, scan); !walked) return walked;
    scan.stream = is_true(scan[kStream], body);
    scan.whole_on_decode = find_reason(scan, body, api);
    return {};
}

std::expected<void, std::string> scan_kv_members(json::Scanner& scanner, std::string_view body,
                                                 BodyScan& scan) {
    scan.stream = false;
    scan.whole_on_decode = WholeOnDecode::No;
    return walk(scanner, body, scan);
}

}  // namespace sluice::pd
