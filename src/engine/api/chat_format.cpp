// SPDX-License-Identifier: Apache-2.0
// /v1/chat/completions: {"object":"chat.completion"} and its chunks.
#include "engine/api/format.h"

namespace sluice::engine {

namespace {

class ChatFormat final : public Format {
public:
    std::string_view id_prefix() const override { return "chatcmpl-"; }

    std::string plain(const Answer& answer) const override {
        json::JsonText json;
        open(json, answer, "chat.completion");
        json.key("choices").begin_array();
        for (const Choice& choice : answer.choices) {
            json.begin_object().member("index", choice.index).key("message").begin_object();
            json.member("role", "assistant")
                .member("content", choice.text)
                .member("refusal", nullptr);
            json.member("annotations", nullptr)
                .member("audio", nullptr)
                .member("function_call", nullptr);
            json.member("reasoning", nullptr).end_object();
            json.member("logprobs", nullptr).member("finish_reason", finish_name(choice.finish));
            append_stop_reason(json, choice);
            append_token_ids(json, answer, choice.token_ids);
            json.member("routed_experts", nullptr).end_object();
        }
        json.end_array().member("service_tier", nullptr);
        json.member("system_fingerprint", fingerprint(answer));
        json.raw_member("usage", usage_json(answer, UsageIn::Whole))
            .member("prompt_logprobs", nullptr);
        append_prompt_ids(json, answer);
        json.member("prompt_text", nullptr).raw_member("kv_transfer_params", answer.kv_params);
        json.member("ec_transfer_params", nullptr).member("metrics", nullptr);
        return std::move(json.end_object().text);
    }

    void delta(Answer& answer, Choice& choice, std::string_view text,
               std::string& out) const override {
        append_role(answer, choice, out);
        json::JsonText json;
        open_chunk(json, answer, choice);
        json.key("delta")
            .begin_object()
            .member("content", text)
            .end_object()
            .member("logprobs", nullptr);
        if (choice.finish == FinishReason::None) {
            json.member("finish_reason", nullptr);
        } else {
            json.member("finish_reason", finish_name(choice.finish));
            append_stop_reason(json, choice);
        }
        append_token_ids(json, answer, choice.new_token_ids);
        json.end_object().end_array();
        const bool finish = choice.finish != FinishReason::None;
        if (finish && !answer.request.include_usage)
            json.member("system_fingerprint", fingerprint(answer));
        add_usage(json, answer);
        close_chunk(json, answer, finish, out);
    }

    void end(Answer& answer, std::string& out) const override {
        if (answer.request.include_usage) {
            json::JsonText json;
            open(json, answer, "chat.completion.chunk");
            json.key("choices").begin_array().end_array();
            json.raw_member("usage", usage_json(answer, UsageIn::LastChunk));
            json.member("system_fingerprint", fingerprint(answer));
            append_data_event(out, json.end_object().text);
        }
        append_data_event(out, "[DONE]");
    }

    // The role chunk belongs to the first output, also when that is an error.
    void error_event(Answer& answer, Choice* choice, const ApiError& error,
                     std::string& out) const override {
        if (choice != nullptr) append_role(answer, *choice, out);
        append_data_event(out, error_event_json(error));
        append_data_event(out, "[DONE]");
    }

private:
    static void open(json::JsonText& json, const Answer& answer, std::string_view object) {
        json.begin_object().member("id", answer.id).member("object", object);
        json.member("created", answer.created).member("model", answer.model);
    }

    static void open_chunk(json::JsonText& json, const Answer& answer, const Choice& choice) {
        open(json, answer, "chat.completion.chunk");
        json.key("choices").begin_array().begin_object().member("index", choice.index);
    }

    static void add_usage(json::JsonText& json, const Answer& answer) {
        if (answer.request.continuous_usage)
            json.raw_member("usage", usage_json(answer, UsageIn::ChatChunk));
    }

    static void close_chunk(json::JsonText& json, const Answer& answer, bool finish,
                            std::string& out) {
        if (answer.kv_params_in_events)
            json.raw_member("kv_transfer_params", finish ? answer.kv_params : "null");
        append_data_event(out, json.end_object().text);
    }

    static void append_prompt_ids(json::JsonText& json, const Answer& answer) {
        json.key("prompt_token_ids");
        if (!answer.request.return_token_ids) {
            json.value(nullptr);
            return;
        }
        json.begin_array();
        for (const Token token : answer.request.prompts.front().token_ids) json.value(token);
        json.end_array();
    }

    // The first output of any choice brings the roles of all.
    static void append_role(Answer& answer, Choice& first, std::string& out) {
        if (first.begun) return;
        for (Choice& choice : answer.choices) append_one_role(answer, choice, out);
    }

    static void append_one_role(Answer& answer, Choice& choice, std::string& out) {
        choice.begun = true;
        json::JsonText json;
        open_chunk(json, answer, choice);
        json.key("delta")
            .begin_object()
            .member("role", "assistant")
            .member("content", "")
            .end_object();
        json.member("logprobs", nullptr).member("finish_reason", nullptr).end_object().end_array();
        add_usage(json, answer);
        append_prompt_ids(json, answer);
        json.member("prompt_text", nullptr);
        close_chunk(json, answer, false, out);
    }
};

}  // namespace

const Format& chat_format() {
    static const ChatFormat format;
    return format;
}

}  // namespace sluice::engine
