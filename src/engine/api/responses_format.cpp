// SPDX-License-Identifier: Apache-2.0
// /v1/responses: a response object with one message, and its named events. There is no [DONE].
#include "engine/api/format.h"

namespace sluice::engine {

namespace {

class ResponsesFormat final : public Format {
public:
    std::string_view id_prefix() const override { return "resp_"; }

    std::string plain(const Answer& answer) const override {
        const Choice& choice = answer.choices.front();
        const bool cut = choice.finish == FinishReason::Length;
        return response_json(answer, cut ? "incomplete" : "completed", true);
    }

    void begin(Answer& answer, std::string& out) const override {
        const std::string response = response_json(answer, "in_progress", false);
        for (const char* name : {"response.created", "response.in_progress"}) {
            json::JsonText json;
            open(json, answer, name).raw_member("response", response);
            append_named_event(out, name, json.end_object().text);
        }
    }

    void delta(Answer& answer, Choice& choice, std::string_view text,
               std::string& out) const override {
        if (!choice.begun) {
            choice.begun = true;
            json::JsonText item;
            open(item, answer, "response.output_item.added").member("output_index", 0);
            item.raw_member("item", item_json(answer, choice, "in_progress", false));
            append_named_event(out, "response.output_item.added", item.end_object().text);
            json::JsonText part;
            open_part(part, answer, "response.content_part.added")
                .raw_member("part", part_json(""));
            append_named_event(out, "response.content_part.added", part.end_object().text);
        }
        if (!text.empty()) {
            json::JsonText json;
            open_part(json, answer, "response.output_text.delta").member("delta", text);
            json.key("logprobs").begin_array().end_array();
            append_named_event(out, "response.output_text.delta", json.end_object().text);
        }
        if (choice.finish == FinishReason::None) return;
        json::JsonText done;
        open_part(done, answer, "response.output_text.done").member("text", choice.text);
        done.key("logprobs").begin_array().end_array();
        append_named_event(out, "response.output_text.done", done.end_object().text);
        json::JsonText part;
        open_part(part, answer, "response.content_part.done")
            .raw_member("part", part_json(choice.text));
        append_named_event(out, "response.content_part.done", part.end_object().text);
        json::JsonText item;
        open(item, answer, "response.output_item.done").member("output_index", 0);
        item.raw_member("item", item_json(answer, choice, "completed", true));
        append_named_event(out, "response.output_item.done", item.end_object().text);
    }

    void end(Answer& answer, std::string& out) const override {
        const bool cut = answer.choices.front().finish == FinishReason::Length;
        const char* name = cut ? "response.incomplete" : "response.completed";
        json::JsonText json;
        open(json, answer, name).raw_member("response", plain(answer));
        append_named_event(out, name, json.end_object().text);
    }

    void error_event(Answer& answer, Choice*, const ApiError& error,
                     std::string& out) const override {
        json::JsonText json;
        open(json, answer, "error")
            .member("code", std::to_string(error.status))
            .member("message", error.message);
        json.member("param", nullptr);
        append_named_event(out, "error", json.end_object().text);
    }

private:
    static std::string item_id(const Answer& answer) {
        return "msg_" + answer.id.substr(answer.id.find('_') + 1);
    }

    static json::JsonText& open(json::JsonText& json, Answer& answer, std::string_view type) {
        return json.begin_object().member("type", type).member("sequence_number", answer.events++);
    }
    static json::JsonText& open_part(json::JsonText& json, Answer& answer, std::string_view type) {
        open(json, answer, type).member("item_id", item_id(answer)).member("output_index", 0);
        return json.member("content_index", 0);
    }

    static std::string part_json(std::string_view text) {
        json::JsonText json;
        json.begin_object().member("type", "output_text").member("text", text);
        json.key("annotations").begin_array().end_array().member("logprobs", nullptr);
        return std::move(json.end_object().text);
    }

    static std::string item_json(const Answer& answer, const Choice& choice,
                                 std::string_view status, bool content) {
        json::JsonText json;
        json.begin_object()
            .member("id", item_id(answer))
            .member("type", "message")
            .member("role", "assistant");
        json.member("status", status).key("content").begin_array();
        if (content) json.raw(part_json(choice.text));
        return std::move(json.end_array().end_object().text);
    }

    static std::string response_json(const Answer& answer, std::string_view status, bool whole) {
        const Choice& choice = answer.choices.front();
        json::JsonText json;
        json.begin_object().member("id", answer.id).member("created_at", answer.created);
        if (status == "incomplete") {
            json.key("incomplete_details")
                .begin_object()
                .member("reason", "max_output_tokens")
                .end_object();
        } else {
            json.member("incomplete_details", nullptr);
        }
        json.member("instructions", nullptr)
            .member("metadata", nullptr)
            .member("model", answer.model);
        json.member("object", "response").key("output").begin_array();
        if (whole) json.raw(item_json(answer, choice, "completed", true));
        json.end_array().member("parallel_tool_calls", true).member("tool_choice", "auto");
        json.key("tools")
            .begin_array()
            .end_array()
            .member("background", false)
            .member("max_output_tokens", nullptr);
        json.member("previous_response_id", nullptr)
            .member("service_tier", "auto")
            .member("status", status);
        json.key("usage");
        if (whole) {
            const std::uint32_t input = prompt_tokens(answer);
            const std::uint32_t output = completion_tokens(answer);
            json.begin_object()
                .member("input_tokens", input)
                .key("input_tokens_details")
                .begin_object();
            json.member("cached_tokens", cached_tokens(answer))
                .end_object()
                .member("output_tokens", output);
            json.key("output_tokens_details")
                .begin_object()
                .member("reasoning_tokens", 0)
                .end_object();
            json.member("total_tokens", input + output).end_object();
        } else {
            json.value(nullptr);
        }
        json.member("user", nullptr)
            .raw_member("kv_transfer_params", whole ? answer.kv_params : "null");
        return std::move(json.end_object().text);
    }
};

}  // namespace

const Format& responses_format() {
    static const ResponsesFormat format;
    return format;
}

}  // namespace sluice::engine
