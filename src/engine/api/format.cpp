// SPDX-License-Identifier: Apache-2.0
#include "engine/api/format.h"

#include <cstdio>

namespace sluice::engine {

const Format& format_of(Api api) {
    switch (api) {
        case Api::Chat:
            return chat_format();
        case Api::Completions:
            return completions_format();
        case Api::Responses:
            return responses_format();
        case Api::Messages:
            return messages_format();
    }
    return chat_format();
}

std::string_view finish_name(FinishReason reason) {
    switch (reason) {
        case FinishReason::None:
            return "";
        case FinishReason::Stop:
            return "stop";
        case FinishReason::Length:
            return "length";
        case FinishReason::Abort:
            return "abort";
        case FinishReason::Error:
            return "error";
    }
    return "";
}

std::uint32_t prompt_tokens(const Answer& answer) {
    std::uint32_t tokens = 0;
    for (const Prompt& prompt : answer.request.prompts) tokens += prompt.tokens;
    return tokens;
}

std::uint32_t completion_tokens(const Answer& answer) {
    std::uint32_t tokens = 0;
    for (const Choice& choice : answer.choices) tokens += choice.output_tokens;
    return tokens;
}

// D reports what the proxy says P had cached; with Mooncake it counts what came over the wire.
std::uint32_t cached_tokens(const Answer& answer) {
    const KvParams* kv = answer.request.kv.get();
    if (kv == nullptr || !kv->do_remote_prefill ||
        answer.options.kv.connector == ConnectorKind::None)
        return 0;
    return kv->remote_prefill_cached_tokens.value_or(prompt_tokens(answer));
}

std::string fingerprint(const Answer& answer) {
    char digits[17];
    std::snprintf(digits, sizeof digits, "%016llx",
                  static_cast<unsigned long long>(hash_text(answer.options.model)));
    return "vllm-" + answer.options.version + "-" + std::string(digits, 8);
}

std::string usage_json(const Answer& answer, UsageIn place) {
    const std::uint32_t prompt = prompt_tokens(answer);
    const std::uint32_t completion = completion_tokens(answer);
    json::JsonText json;
    json.begin_object().member("prompt_tokens", prompt).member("total_tokens", prompt + completion);
    json.member("completion_tokens", completion);
    if (answer.options.prompt_tokens_details) {
        json.key("prompt_tokens_details").begin_object().member("audio_tokens", nullptr);
        json.member("cached_tokens", cached_tokens(answer)).end_object();
    } else if (place == UsageIn::Whole) {
        json.member("prompt_tokens_details", nullptr);
    }
    if (place == UsageIn::Whole || place == UsageIn::ChatChunk)
        json.member("completion_tokens_details", nullptr);
    return std::move(json.end_object().text);
}

void append_token_ids(json::JsonText& json, const Answer& answer,
                      const std::vector<Token>& tokens) {
    json.key("token_ids");
    if (!answer.request.return_token_ids) {
        json.value(nullptr);
        return;
    }
    json.begin_array();
    for (const Token token : tokens) json.value(token);
    json.end_array();
}

// The stop string or token that ended it; null for the end of the sequence.
void append_stop_reason(json::JsonText& json, const Choice& choice) {
    if (choice.stop_token) {
        json.member("stop_reason", *choice.stop_token);
    } else if (!choice.stop_string.empty()) {
        json.member("stop_reason", choice.stop_string);
    } else {
        json.member("stop_reason", nullptr);
    }
}

void append_data_event(std::string& out, std::string_view data) {
    out.append("data: ").append(data).append("\n\n");
}

void append_named_event(std::string& out, std::string_view name, std::string_view data) {
    out.append("event: ").append(name).append("\ndata: ").append(data).append("\n\n");
}

}  // namespace sluice::engine
