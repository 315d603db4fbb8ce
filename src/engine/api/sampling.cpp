// SPDX-License-Identifier: Apache-2.0
// The members that all four APIs share, with vLLM's checks and words.
#include <cmath>

#include "engine/api/body.h"

namespace sluice::engine {

namespace {

constexpr std::int64_t kChoicesMax = 128;
constexpr std::size_t kStopsMax = 64;
constexpr std::size_t kStopBytesMax = 4096;

std::string plain_number(double value) {
    std::string text = std::to_string(value);
    while (text.size() > 1 && text.back() == '0' && text[text.size() - 2] != '.') text.pop_back();
    return text;
}

void check_range(const Json& body, const char* name, double low, double high, const char* words) {
    const auto value = number_member(body, name);
    if (value && !(*value >= low && *value <= high))
        refuse(name == std::string_view("top_p")
                   ? bad_value("top_p must be " + std::string(words) + ", got " +
                                   plain_number(*value) + ".",
                               name, plain_number(*value))
                   : bad_request(std::string(name) + " must be " + words + ", got " +
                                 plain_number(*value) + "."));
}

// An element of a list, by the same rules as integer_member().
ApiError not_an_integer(const char* name, std::size_t index, const Json& value) {
    std::string place = std::string(name) + "." + std::to_string(index);
    if (value.is_string())
        return invalid_body(
            {"int_parsing", std::move(place),
             "Input should be a valid integer, unable to parse string as an integer",
             python_input(&value)});
    return invalid_body(
        {"int_type", std::move(place), "Input should be a valid integer", python_input(&value)});
}

void read_stops(const Json& body, GenerateRequest& request) {
    const char* name = request.api == Api::Messages ? "stop_sequences" : "stop";
    if (const Json* stop = find_member(body, name)) {
        if (stop->is_string()) {
            request.stop.push_back(stop->get<std::string>());
        } else if (stop->is_array()) {
            for (const Json& each : *stop) {
                if (!each.is_string())
                    refuse(invalid_body({"string_type", std::string(name) + ".0",
                                         "Input should be a valid string", python_input(&each)}));
                request.stop.push_back(each.get<std::string>());
            }
        } else {
            const std::string input = python_input(stop);
            refuse(invalid_body({{"string_type", name, "Input should be a valid string", input},
                                 {"list_type", name, "Input should be a valid list", input}}));
        }
    }
    if (request.stop.size() > kStopsMax) refuse(bad_request("too many stop strings", name));
    for (const std::string& stop : request.stop) {
        if (stop.empty()) refuse(bad_request("stop cannot contain an empty string."));
        if (stop.size() > kStopBytesMax) refuse(bad_request("a stop string is too long", name));
    }
    if (const Json* ids = find_member(body, "stop_token_ids")) {
        if (!ids->is_array())
            refuse(invalid_body({"list_type", "stop_token_ids", "Input should be a valid list",
                                 python_input(ids)}));
        for (std::size_t i = 0; i < ids->size(); ++i) {
            const Json& id = (*ids)[i];
            if (!id.is_number_unsigned()) refuse(not_an_integer("stop_token_ids", i, id));
            request.stop_token_ids.push_back(static_cast<Token>(id.get<std::uint64_t>()));
        }
    }
}

void read_stream(const Json& body, GenerateRequest& request) {
    request.stream = bool_member(body, "stream", false);
    const Json* stream_options = find_member(body, "stream_options");
    if (stream_options == nullptr) return;
    if (!stream_options->is_object())
        refuse(invalid_body({"model_attributes_type", "stream_options",
                             "Input should be a valid dictionary or object to extract fields from",
                             python_input(stream_options)}));
    if (!request.stream)
        refuse(
            bad_value("Stream options can only be defined when `stream=True`.", "stream_options"));
    request.include_usage = bool_member(*stream_options, "include_usage", false);
    request.continuous_usage =
        request.include_usage && bool_member(*stream_options, "continuous_usage_stats", false);
}

// n > 1 needs chance to differ.
void read_choices(const Json& body, GenerateRequest& request) {
    if (request.api == Api::Completions && body.contains("n") && body["n"].is_null())
        refuse(invalid_body({"int_type", "n", "Input should be a valid integer", "None"}));
    const auto n = integer_member(body, "n").value_or(1);
    if (n < 1) refuse(bad_request("n must be at least 1, got " + std::to_string(n) + "."));
    if (n > kChoicesMax)
        refuse(bad_request("n must be at most " + std::to_string(kChoicesMax) + ", got " +
                           std::to_string(n) + "."));
    const double temperature = number_member(body, "temperature").value_or(1);
    if (temperature < 0)
        refuse(bad_value("temperature must be non-negative, got " + plain_number(temperature) + ".",
                         "temperature", plain_number(temperature)));
    if (n > 1 && temperature < 1e-5)
        refuse(
            bad_request("n must be 1 when using greedy sampling, got " + std::to_string(n) + "."));
    request.n = static_cast<std::uint32_t>(n);
}

std::optional<std::int64_t> asked_length(const Json& body, Api api) {
    switch (api) {
        case Api::Chat: {
            const auto newer = integer_member(body, "max_completion_tokens");
            const auto older = integer_member(body, "max_tokens");
            return newer ? newer : older;
        }
        case Api::Completions:
            // 16, as OpenAI's; an explicit null asks for all there is room for.
            if (body.contains("max_tokens")) return integer_member(body, "max_tokens");
            return 16;
        case Api::Responses:
            return integer_member(body, "max_output_tokens");
        case Api::Messages:
            return integer_member(body, "max_tokens");
    }
    return std::nullopt;
}

void read_lengths(const Json& body, const EngineOptions& options, GenerateRequest& request) {
    const char* name = request.api == Api::Responses ? "max_output_tokens" : "max_tokens";
    const auto max_tokens = asked_length(body, request.api);
    const std::int64_t min_tokens = integer_member(body, "min_tokens").value_or(0);
    if (max_tokens) {
        const std::int64_t least = request.echo ? 0 : 1;
        if (*max_tokens < least)
            refuse(
                bad_value("max_tokens must be at least 1, got " + std::to_string(*max_tokens) + ".",
                          name, std::to_string(*max_tokens)));
        if (*max_tokens > options.timing.max_model_len)
            refuse(bad_value("max_tokens=" + std::to_string(*max_tokens) +
                                 " cannot be greater than max_model_len=" +
                                 std::to_string(options.timing.max_model_len) +
                                 ". Please request fewer output tokens.",
                             name, std::to_string(*max_tokens)));
        request.max_tokens = static_cast<std::uint32_t>(*max_tokens);
    }
    if (min_tokens < 0)
        refuse(bad_request("min_tokens must be greater than or equal to 0, got " +
                           std::to_string(min_tokens) + "."));
    if (max_tokens && min_tokens > *max_tokens)
        refuse(bad_request(
            "min_tokens must be less than or equal to max_tokens=" + std::to_string(*max_tokens) +
            ", got " + std::to_string(min_tokens) + "."));
    request.min_tokens = static_cast<std::uint32_t>(
        std::min<std::int64_t>(min_tokens, options.timing.max_model_len));
}

}  // namespace

void read_sampling(const Json& body, const EngineOptions& options, GenerateRequest& request) {
    request.model = string_member(body, "model").value_or(std::string());
    request.request_id = string_member(body, "request_id").value_or(std::string());
    read_stream(body, request);
    request.echo = request.api == Api::Completions && bool_member(body, "echo", false);
    request.return_token_ids = bool_member(body, "return_token_ids", false);
    request.ignore_eos = bool_member(body, "ignore_eos", false);
    request.include_stop = bool_member(body, "include_stop_str_in_output", false);
    integer_member(body, "seed");  // its kind is checked; nothing here is drawn
    read_choices(body, request);
    if (const auto top_k = integer_member(body, "top_k"); top_k && *top_k < -1)
        refuse(bad_request("top_k must be 0 (disable), or at least 1, got " +
                           std::to_string(*top_k) + "."));
    check_range(body, "top_p", 1e-9, 1, "in (0, 1]");
    check_range(body, "presence_penalty", -2, 2, "in [-2, 2]");
    check_range(body, "frequency_penalty", -2, 2, "in [-2, 2]");
    read_lengths(body, options, request);
    read_stops(body, request);
    const Json* logprobs = find_member(body, "logprobs");
    const bool wants_logprobs = logprobs != nullptr && *logprobs != false;
    if (const auto prompt_logprobs = integer_member(body, "prompt_logprobs")) {
        if (*prompt_logprobs < -1)
            refuse(bad_request("`prompt_logprobs` must be a positive value or -1.",
                               "prompt_logprobs"));
        if (request.stream)
            refuse(bad_request("`prompt_logprobs` are not available when `stream=True`.",
                               "prompt_logprobs"));
        request.skips_cache_reads = true;
    }
    if (request.echo && wants_logprobs) request.skips_cache_reads = true;
}

}  // namespace sluice::engine
