// SPDX-License-Identifier: Apache-2.0
// Reads members of a JSON body as vLLM's request models do: wrong types are a 400 that names the
// member.
//
// Private to the files that read bodies, since it brings in all of nlohmann/json.
// Threads: one. Errors: ApiError, thrown within these files only and caught by read_request().
#pragma once

#include <cstdint>
#include <expected>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/api/request.h"

namespace sluice::engine {

using Json = nlohmann::json;

struct BodyError {
    ApiError error;
};

// The body as an object. Depth and syntax are checked.
std::expected<Json, ApiError> parse_body(std::string_view text);

// nullptr: absent or null.
const Json* find_member(const Json& object, const char* name);
std::optional<std::int64_t> integer_member(const Json& object, const char* name);
std::optional<double> number_member(const Json& object, const char* name);
bool bool_member(const Json& object, const char* name, bool otherwise);
std::optional<std::string> string_member(const Json& object, const char* name);

[[noreturn]] inline void refuse(ApiError error) { throw BodyError{std::move(error)}; }

// What all APIs have in common: model, stream, n, lengths, stops, KV parameters.
void read_sampling(const Json& body, const EngineOptions& options, GenerateRequest& request);
std::shared_ptr<const KvParams> read_kv_params(const Json& body);

// The prompt-shaping members, one after the other, and the text a chat template would make.
class PromptBuilder {
public:
    void add_text(std::string_view text) { text_.append(text); }
    // A value that shapes the prompt, rendered into it.
    void add_json(const Json& value);
    // A member that shapes what the model does with the prompt, if it is there. It costs no tokens.
    void shape(const Json& body, const char* name);
    void set_tokens(std::vector<Token> tokens) { tokens_ = std::move(tokens); }

    Prompt finish(const Json& body, bool keep_text, bool keep_ids);

private:
    std::string text_;
    std::string shape_;
    std::optional<std::vector<Token>> tokens_;
};

// A message's content: a string, or a list of parts.
void add_content(PromptBuilder& prompt, const Json& content);
void read_tools(PromptBuilder& prompt, const Json& body, const EngineOptions& options);

bool serves(const std::string& model, const EngineOptions& options);
ApiError unknown_model(const std::string& model, const EngineOptions& options);
void read_chat(const Json& body, const EngineOptions& options, GenerateRequest& request);
void read_completions(const Json& body, const EngineOptions& options, GenerateRequest& request);
void read_responses(const Json& body, const EngineOptions& options, GenerateRequest& request);
void read_messages(const Json& body, const EngineOptions& options, GenerateRequest& request);

// As vLLM quotes a value in what its request model says: text as it is, containers by their size.
std::string python_input(const Json* value);

// Text form of any JSON, stable and safe for anything a client may send.
std::string stable_text(const Json& value);

}  // namespace sluice::engine
