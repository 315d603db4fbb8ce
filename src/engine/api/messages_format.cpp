// SPDX-License-Identifier: Apache-2.0
// /v1/messages: Anthropic's message object and its named events. There is no [DONE].
#include "engine/api/format.h"

namespace sluice::engine {

namespace {

class MessagesFormat final : public Format {
public:
    std::string_view id_prefix() const override { return "chatcmpl-"; }

    std::string plain(const Answer& answer) const override {
        const Choice& choice = answer.choices.front();
        json::JsonText json;
        open_message(json, answer);
        json.key("content")
            .begin_array()
            .begin_object()
            .member("type", "text")
            .member("text", choice.text);
        json.end_object().end_array();
        append_stop(json, choice);
        append_usage(json, answer, completion_tokens(answer));
        json.raw_member("kv_transfer_params", answer.kv_params);
        return std::move(json.end_object().text);
    }

    std::string error(const ApiError& error) const override {
        json::JsonText json;
        json.begin_object().member("type", "error").key("error").begin_object();
        json.member("type", type_of(error)).member("message", error.message);
        return std::move(json.end_object().end_object().text);
    }

    void delta(Answer& answer, Choice& choice, std::string_view text,
               std::string& out) const override {
        append_start(answer, choice, out);
        if (!text.empty()) {
            json::JsonText json;
            open_block(json, "content_block_delta").key("delta").begin_object();
            json.member("type", "text_delta").member("text", text).end_object();
            append_named_event(out, "content_block_delta", json.end_object().text);
        }
        if (choice.finish == FinishReason::None) return;
        json::JsonText stop;
        open_block(stop, "content_block_stop");
        append_named_event(out, "content_block_stop", stop.end_object().text);
        json::JsonText json;
        json.begin_object().member("type", "message_delta").key("delta").begin_object();
        append_stop(json, choice);
        json.end_object();
        append_usage(json, answer, completion_tokens(answer));
        append_named_event(out, "message_delta", json.end_object().text);
    }

    void end(Answer&, std::string& out) const override {
        append_named_event(out, "message_stop", R"({"type":"message_stop"})");
    }

    void error_event(Answer&, Choice*, const ApiError& error, std::string& out) const override {
        append_named_event(out, "error", this->error(error));
    }

private:
    static std::string_view type_of(const ApiError& error) {
        switch (error.status) {
            case 401:
                return "authentication_error";
            case 404:
                return "not_found_error";
            case 429:
                return "rate_limit_error";
            case 503:
                return "overloaded_error";
            default:
                return error.status < 500 ? "invalid_request_error" : "internal_error";
        }
    }

    static void open_message(json::JsonText& json, const Answer& answer) {
        json.begin_object()
            .member("id", answer.id)
            .member("type", "message")
            .member("role", "assistant");
        json.member("model", answer.model);
    }

    static json::JsonText& open_block(json::JsonText& json, std::string_view type) {
        return json.begin_object().member("type", type).member("index", 0);
    }

    static void append_stop(json::JsonText& json, const Choice& choice) {
        const bool cut = choice.finish == FinishReason::Length;
        const bool by_string = !choice.stop_string.empty();
        json.member("stop_reason", cut ? "max_tokens" : by_string ? "stop_sequence" : "end_turn");
        if (by_string) {
            json.member("stop_sequence", choice.stop_string);
        } else {
            json.member("stop_sequence", nullptr);
        }
    }

    static void append_usage(json::JsonText& json, const Answer& answer, std::uint32_t output) {
        json.key("usage").begin_object().member("input_tokens", prompt_tokens(answer));
        json.member("output_tokens", output).end_object();
    }

    static void append_start(Answer& answer, Choice& choice, std::string& out) {
        if (choice.begun) return;
        choice.begun = true;
        json::JsonText json;
        json.begin_object().member("type", "message_start").key("message");
        json::JsonText message;
        open_message(message, answer);
        message.key("content").begin_array().end_array().member("stop_reason", nullptr);
        message.member("stop_sequence", nullptr);
        append_usage(message, answer, 0);
        json.raw(message.end_object().text);
        append_named_event(out, "message_start", json.end_object().text);
        json::JsonText block;
        open_block(block, "content_block_start").key("content_block").begin_object();
        block.member("type", "text").member("text", "").end_object();
        append_named_event(out, "content_block_start", block.end_object().text);
    }
};

}  // namespace

const Format& messages_format() {
    static const MessagesFormat format;
    return format;
}

}  // namespace sluice::engine
