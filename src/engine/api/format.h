// SPDX-License-Identifier: Apache-2.0
// How an API writes its answers: whole, and as a stream's events. One file an API
// (api/*_format.cpp). Threads: one (no state of their own). Owns: nothing.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "engine/api/request.h"
#include "json/text.h"
#include "engine/model/stop_matcher.h"
#include "engine/sequence.h"

namespace sluice::engine {

// One of the answers to a request: n for each prompt.
struct Choice {
    std::uint32_t index = 0;
    std::uint32_t prompt = 0;
    std::uint64_t sequence = 0;  // the scheduler's number
    StopMatcher stops;
    std::string text;
    std::vector<Token> token_ids;      // only with return_token_ids
    std::vector<Token> new_token_ids;  // of the event being written
    std::uint32_t output_tokens = 0;
    FinishReason finish = FinishReason::None;
    std::optional<Token> stop_token;
    std::string stop_string;
    bool begun = false;  // its first event is out
};

struct Answer {
    const GenerateRequest& request;
    const EngineOptions& options;
    std::string id;  // with its prefix
    std::int64_t created = 0;
    std::string model;
    std::vector<Choice> choices;
    std::string kv_params = "null";   // what the connector returned for the first prompt
    bool kv_params_in_events = true;  // since 0.33
    std::uint32_t events = 0;         // written so far, for APIs that number them
};

class Format {
public:
    virtual ~Format() = default;

    virtual std::string_view id_prefix() const = 0;
    virtual std::string plain(const Answer& answer) const = 0;
    virtual std::string error(const ApiError& error) const { return error_json(error); }

    // -- a stream: begin() once, before the first delta() or error(); each appends whole events.
    virtual void begin(Answer&, std::string&) const {}
    // New text of a choice, and its end if it has finished.
    virtual void delta(Answer& answer, Choice& choice, std::string_view text,
                       std::string& out) const = 0;
    virtual void end(Answer& answer, std::string& out) const = 0;
    // Of a choice, or of the whole stream; nothing comes after it.
    virtual void error_event(Answer& answer, Choice* choice, const ApiError& error,
                             std::string& out) const = 0;
};

const Format& format_of(Api api);
const Format& chat_format();
const Format& completions_format();
const Format& responses_format();
const Format& messages_format();

// -- used by several
std::string_view finish_name(FinishReason reason);
std::uint32_t prompt_tokens(const Answer& answer);
std::uint32_t completion_tokens(const Answer& answer);
// {"prompt_tokens":...}. Which of its empty members are written as null differs from place to
// place.
enum class UsageIn : std::uint8_t { Whole, Chunk, ChatChunk, LastChunk };
std::string usage_json(const Answer& answer, UsageIn place);
// "vllm-VERSION-" and a hash of the settings.
std::string fingerprint(const Answer& answer);
std::uint32_t cached_tokens(const Answer& answer);
void append_token_ids(json::JsonText& json, const Answer& answer, const std::vector<Token>& tokens);
void append_stop_reason(json::JsonText& json, const Choice& choice);
void append_data_event(std::string& out, std::string_view data);
void append_named_event(std::string& out, std::string_view name, std::string_view data);

}  // namespace sluice::engine
