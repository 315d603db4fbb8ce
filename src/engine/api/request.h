// SPDX-License-Identifier: Apache-2.0
// A generating request of any of the four APIs, once its body has been read and checked.
// Threads: a value.
#pragma once

#include <cstdint>
#include <expected>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/api/error.h"
#include "engine/kv/params.h"
#include "engine/model/text.h"
#include "engine/options.h"

namespace sluice::engine {

enum class Api : std::uint8_t { Chat, Completions, Responses, Messages };

struct Prompt {
    std::uint64_t hash = 0;  // of everything that shapes the prompt
    std::uint32_t tokens = 0;
    std::string text;              // for echo; completions only
    std::vector<Token> token_ids;  // only with return_token_ids
};

struct GenerateRequest {
    Api api = Api::Chat;
    std::string model;       // as asked for; empty: none
    std::string request_id;  // of the body; a header wins
    std::vector<Prompt> prompts;
    bool stream = false;
    bool include_usage = false;
    bool continuous_usage = false;
    bool echo = false;
    bool return_token_ids = false;
    bool skips_cache_reads = false;  // prompt_logprobs, or echo with logprobs
    std::uint32_t n = 1;
    std::optional<std::uint32_t> max_tokens;
    std::uint32_t min_tokens = 0;
    bool ignore_eos = false;
    std::vector<std::string> stop;
    bool include_stop = false;
    std::vector<Token> stop_token_ids;
    std::shared_ptr<const KvParams> kv;
};

// Reads and checks a body. What a request was meant to load is told also when it is refused, since
// the connector must hear of it (`kv_of_refused`).
struct Refusal {
    ApiError error;
    std::shared_ptr<const KvParams> kv;
};
std::expected<GenerateRequest, Refusal> read_request(Api api, std::string_view body,
                                                     const EngineOptions& options);

}  // namespace sluice::engine
