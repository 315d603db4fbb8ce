// SPDX-License-Identifier: Apache-2.0
// /v1/completions: {"object":"text_completion"}, whole and in chunks.
#include "engine/api/format.h"

namespace sluice::engine {

namespace {

class CompletionsFormat final : public Format {
public:
    std::string_view id_prefix() const override { return "cmpl-"; }

    std::string plain(const Answer& answer) const override {
        json::JsonText json;
        open(json, answer);
        json.key("choices").begin_array();
        for (const Choice& choice : answer.choices) {
            std::string text;
            if (answer.request.echo) text = answer.request.prompts[choice.prompt].text;
            text += choice.text;
            json.begin_object()
                .member("index", choice.index)
                .member("text", text)
                .member("logprobs", nullptr);
            json.member("finish_reason", finish_name(choice.finish));
            append_stop_reason(json, choice);
            append_token_ids(json, answer, choice.token_ids);
            json.member("prompt_logprobs", nullptr);
            append_prompt_ids(json, answer, choice);
            json.member("routed_experts", nullptr).end_object();
        }
        json.end_array().member("service_tier", nullptr);
        json.member("system_fingerprint", fingerprint(answer));
        json.raw_member("usage", usage_json(answer, UsageIn::Whole))
            .raw_member("kv_transfer_params", answer.kv_params);
        json.member("ec_transfer_params", nullptr).member("metrics", nullptr);
        return std::move(json.end_object().text);
    }

    void delta(Answer& answer, Choice& choice, std::string_view text,
               std::string& out) const override {
        json::JsonText json;
        open(json, answer);
        json.key("choices").begin_array().begin_object().member("index", choice.index);
        std::string whole;
        if (!choice.begun && answer.request.echo) {
            whole = answer.request.prompts[choice.prompt].text + std::string(text);
            text = whole;
        }
        json.member("text", text).member("logprobs", nullptr);
        if (choice.finish == FinishReason::None) {
            json.member("finish_reason", nullptr).member("stop_reason", nullptr);
        } else {
            json.member("finish_reason", finish_name(choice.finish));
            append_stop_reason(json, choice);
        }
        if (choice.begun) {
            json.member("prompt_token_ids", nullptr);
        } else {
            append_prompt_ids(json, answer, choice);
        }
        choice.begun = true;
        append_token_ids(json, answer, choice.new_token_ids);
        json.end_object().end_array();
        if (choice.finish != FinishReason::None && !answer.request.include_usage)
            json.member("system_fingerprint", fingerprint(answer));
        if (answer.request.continuous_usage)
            json.raw_member("usage", usage_json(answer, UsageIn::Chunk));
        if (answer.kv_params_in_events)
            json.raw_member("kv_transfer_params",
                            choice.finish == FinishReason::None ? "null" : answer.kv_params);
        append_data_event(out, json.end_object().text);
    }

    void end(Answer& answer, std::string& out) const override {
        if (answer.request.include_usage) {
            json::JsonText json;
            open(json, answer);
            json.key("choices").begin_array().end_array();
            json.raw_member("usage", usage_json(answer, UsageIn::LastChunk));
            json.member("system_fingerprint", fingerprint(answer));
            append_data_event(out, json.end_object().text);
        }
        append_data_event(out, "[DONE]");
    }

    void error_event(Answer&, Choice*, const ApiError& error, std::string& out) const override {
        append_data_event(out, error_event_json(error));
        append_data_event(out, "[DONE]");
    }

private:
    static void open(json::JsonText& json, const Answer& answer) {
        json.begin_object().member("id", answer.id).member("object", "text_completion");
        json.member("created", answer.created).member("model", answer.model);
    }

    static void append_prompt_ids(json::JsonText& json, const Answer& answer,
                                  const Choice& choice) {
        json.key("prompt_token_ids");
        if (!answer.request.return_token_ids) {
            json.value(nullptr);
            return;
        }
        json.begin_array();
        for (const Token token : answer.request.prompts[choice.prompt].token_ids) json.value(token);
        json.end_array();
    }
};

}  // namespace

const Format& completions_format() {
    static const CompletionsFormat format;
    return format;
}

}  // namespace sluice::engine
