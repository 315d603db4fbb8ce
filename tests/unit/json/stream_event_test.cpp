// SPDX-License-Identifier: Apache-2.0
#include "json/stream_event.h"

#include <gtest/gtest.h>

#include <ostream>
#include <string>

#include "json/scan.h"

namespace sluice::json {

void PrintTo(const StreamEvent& event, std::ostream* out) {
    *out << "kind " << static_cast<int>(event.kind) << " code " << event.http_code;
}

namespace {

constexpr StreamEvent kPreamble{StreamEvent::Kind::Preamble, 0};
constexpr StreamEvent kContent{StreamEvent::Kind::Content, 0};
constexpr StreamEvent kDone{StreamEvent::Kind::Done, 0};

constexpr StreamEvent error(std::uint16_t code) { return {StreamEvent::Kind::Error, code}; }

// With the slack that a scanner needs.
StreamEvent classify_copy(Api api, std::string_view event_name, std::string_view data) {
    static Scanner scanner;
    const std::string padded = std::string(data) + std::string(limits::kBufferSlack, '}');
    return classify(scanner, api, event_name, std::string_view(padded).substr(0, data.size()));
}

StreamEvent chat(std::string_view data) { return classify_copy(Api::Chat, "", data); }

StreamEvent chat_choice(const std::string& choice) {
    return chat(R"({"id":"c","object":"chat.completion.chunk","choices":[)" + choice + "]}");
}

StreamEvent delta(const std::string& members) {
    return chat_choice(R"({"index":0,"delta":{)" + members +
                       R"(},"logprobs":null,"finish_reason":null})");
}

StreamEvent completion(const std::string& choice) {
    return classify_copy(Api::Completions, "", R"({"choices":[)" + choice + "]}");
}

TEST(StreamEventTest, DoneEndsEveryApi) {
    for (const Api api :
         {Api::Unknown, Api::Chat, Api::Completions, Api::Responses, Api::Messages}) {
        EXPECT_EQ(classify_copy(api, "", "[DONE]"), kDone);
    }
}

TEST(StreamEventTest, WhatIsNotUnderstoodIsContent) {
    for (const Api api :
         {Api::Unknown, Api::Chat, Api::Completions, Api::Responses, Api::Messages}) {
        EXPECT_EQ(classify_copy(api, "", "hello"), kContent);
        EXPECT_EQ(classify_copy(api, "", "{\"choices\":["), kContent);
        EXPECT_EQ(classify_copy(api, "", "[1,2]"), kContent);
        EXPECT_EQ(classify_copy(api, "", "{}"), kContent);
    }
    EXPECT_EQ(chat(R"({"choices":{}})"), kContent);
    EXPECT_EQ(chat_choice("1"), kContent);
    EXPECT_EQ(chat_choice(R"({"index":0})"), kContent);
}

TEST(StreamEventTest, AnEventWithoutDataIsPreamble) {
    EXPECT_EQ(classify_copy(Api::Chat, "", ""), kPreamble);
}

TEST(StreamEventTest, ErrorsCarryTheirCode) {
    EXPECT_EQ(chat(R"({"error":{"message":"m","type":"BadRequestError","param":null,"code":400}})"),
              error(400));
    EXPECT_EQ(chat(R"({"error":{"message":"m","code":"503"}})"), error(503));
    EXPECT_EQ(chat(R"({"error":{"message":"m","code":null}})"), error(500));
    EXPECT_EQ(chat(R"({"error":{"message":"m","code":200}})"), error(500));
    EXPECT_EQ(chat(R"({"error":{"message":"m","code":4.0e2}})"), error(500));
    EXPECT_EQ(chat(R"({"error":{"message":"m","code":99999999999}})"), error(500));
    EXPECT_EQ(chat(R"({"error":{"type":"NotFoundError"}})"), error(404));
    EXPECT_EQ(chat(R"({"error":"queue is full"})"), error(500));
    EXPECT_EQ(chat(R"({"object":"error","message":"m","type":"BadRequestError","code":422})"),
              error(422));
    EXPECT_EQ(classify_copy(Api::Unknown, "", R"({"error":{"code":429}})"), error(429));
    EXPECT_EQ(classify_copy(Api::Completions, "", R"({"error":{"code":429}})"), error(429));
}

TEST(StreamEventTest, ANullErrorIsNone) {
    EXPECT_EQ(chat(R"({"error":null,"choices":[{"delta":{"content":"x"}}]})"), kContent);
    EXPECT_EQ(chat(R"({"error":null,"choices":[{"delta":{"role":"assistant"}}]})"), kPreamble);
}

TEST(StreamEventTest, ChatRoleChunksArePreamble) {
    EXPECT_EQ(delta(R"("role":"assistant")"), kPreamble);
    EXPECT_EQ(delta(R"("role":"assistant","content":"")"), kPreamble);
    EXPECT_EQ(delta(R"("role":"assistant","content":null,"reasoning_content":null)"), kPreamble);
    EXPECT_EQ(delta(R"("role":"assistant","content":"","reasoning":"","tool_calls":[])"),
              kPreamble);
    EXPECT_EQ(delta(""), kPreamble);
}

TEST(StreamEventTest, ChatDeltasWithAnythingElseAreContent) {
    EXPECT_EQ(delta(R"("content":"x")"), kContent);
    EXPECT_EQ(delta(R"("content":" ")"), kContent);
    EXPECT_EQ(delta(R"("role":"assistant","reasoning_content":"hm")"), kContent);
    EXPECT_EQ(delta(R"("role":"assistant","reasoning":"hm")"), kContent);
    EXPECT_EQ(delta(R"("tool_calls":[{"index":0}])"), kContent);
    EXPECT_EQ(delta(R"("role":"assistant","audio":null)"), kContent);
    EXPECT_EQ(chat_choice(R"({"delta":{"content":""},"finish_reason":"stop"})"), kContent);
    EXPECT_EQ(chat_choice(R"({"delta":{},"logprobs":{"content":[]},"finish_reason":null})"),
              kContent);
    EXPECT_EQ(chat_choice(R"({"delta":{"content":""},"token_ids":[5],"finish_reason":null})"),
              kContent);
}

TEST(StreamEventTest, ChatWithSeveralChoicesIsPreambleOnlyIfAllAre) {
    const std::string bare = R"({"index":0,"delta":{"role":"assistant"},"finish_reason":null})";
    EXPECT_EQ(chat_choice(bare + "," + bare), kPreamble);
    EXPECT_EQ(chat_choice(bare + R"(,{"index":1,"delta":{"content":"x"}})"), kContent);
    EXPECT_EQ(chat_choice(R"({"index":1,"delta":{"content":"x"}},)" + bare), kContent);
}

TEST(StreamEventTest, ChatWithoutChoicesIsPreambleUnlessItHasUsage) {
    EXPECT_EQ(chat(R"({"choices":[]})"), kPreamble);
    EXPECT_EQ(chat(R"({"choices":[],"usage":null})"), kPreamble);
    EXPECT_EQ(chat(R"({"choices":[],"usage":{"total_tokens":3}})"), kContent);
}

TEST(StreamEventTest, FinishReasonErrorIsAnError) {
    EXPECT_EQ(chat_choice(R"({"delta":{},"finish_reason":"error"})"), error(500));
    EXPECT_EQ(chat_choice(R"({"delta":{"content":"x"}},{"delta":{},"finish_reason":"error"})"),
              error(500));
    EXPECT_EQ(completion(R"({"text":"","finish_reason":"error"})"), error(500));
}

TEST(StreamEventTest, CompletionsAreContentWithTextOrAnEnd) {
    EXPECT_EQ(completion(R"({"text":"","finish_reason":null})"), kPreamble);
    EXPECT_EQ(completion(R"({"text":""})"), kPreamble);
    EXPECT_EQ(completion(R"({"text":"a","finish_reason":null})"), kContent);
    EXPECT_EQ(completion(R"({"text":"","finish_reason":"stop"})"), kContent);
    EXPECT_EQ(completion(R"({"finish_reason":null})"), kContent);
    EXPECT_EQ(completion(R"({"text":"","finish_reason":null},{"text":"b"})"), kContent);
}

TEST(StreamEventTest, ResponsesGoByTheirType) {
    const auto responses = [](std::string_view name, std::string_view data) {
        return classify_copy(Api::Responses, name, data);
    };
    for (const std::string type : {"response.created", "response.in_progress", "response.queued",
                                   "response.output_item.added", "response.content_part.added",
                                   "response.reasoning_part.added"}) {
        EXPECT_EQ(responses(type, "{}"), kPreamble) << type;
        EXPECT_EQ(responses("", R"({"type":")" + type + "\"}"), kPreamble) << type;
    }
    EXPECT_EQ(responses("response.created", R"({"response":{"error":null}})"), kPreamble);
    EXPECT_EQ(responses("response.output_text.delta", R"({"delta":"x"})"), kContent);
    EXPECT_EQ(responses("response.completed", R"({"response":{}})"), kContent);
    EXPECT_EQ(responses("error", R"({"type":"error","code":"rate_limit_exceeded"})"), error(429));
    EXPECT_EQ(responses("response.failed", R"({"response":{"error":{"code":"server_error"}}})"),
              error(500));
    EXPECT_EQ(responses("response.failed", R"({"response":{"error":{"code":"invalid_prompt"}}})"),
              error(400));
    EXPECT_EQ(responses("", R"({"error":{"code":503}})"), error(503));
}

TEST(StreamEventTest, MessagesGoByTheirType) {
    const auto messages = [](std::string_view name, std::string_view data) {
        return classify_copy(Api::Messages, name, data);
    };
    EXPECT_EQ(messages("message_start", R"({"type":"message_start","message":{}})"), kPreamble);
    EXPECT_EQ(messages("content_block_start", "{}"), kPreamble);
    EXPECT_EQ(messages("", R"({"type":"ping"})"), kPreamble);
    EXPECT_EQ(messages("content_block_delta", R"({"delta":{"text":"x"}})"), kContent);
    EXPECT_EQ(messages("message_stop", "{}"), kContent);
    const auto failed = [&](const std::string& type) {
        return messages("error", R"({"type":"error","error":{"type":")" + type + "\"}}");
    };
    EXPECT_EQ(failed("overloaded_error"), error(503));
    EXPECT_EQ(failed("invalid_request_error"), error(400));
    EXPECT_EQ(failed("authentication_error"), error(401));
    EXPECT_EQ(failed("rate_limit_error"), error(429));
    EXPECT_EQ(failed("api_error"), error(500));
    EXPECT_EQ(failed("something new"), error(500));
    EXPECT_EQ(messages("error", R"({"error":{"code":529}})"), error(503));
}

}  // namespace
}  // namespace sluice::json
