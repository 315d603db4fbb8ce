// SPDX-License-Identifier: Apache-2.0
// Answers as vLLM writes them: shapes, streams, lengths, stops (facts: real-vllm.md section 3,
// pd-protocol.md section 7).
#include "bench.h"

namespace sluice::engine::test {
namespace {

class ApiAnswers : public Bench {
protected:
    Ask& ask(std::string_view path, const Json& body, std::string_view headers = {}) {
        return wait(post(*engine, path, body.dump(), headers));
    }
    Engine* engine = &add(plain());
};

TEST_F(ApiAnswers, AChatAnswerHasVllmsBytes) {
    Ask& answer = ask(kChat, chat("hello", 2), "X-Request-Id: abc\r\n");
    EXPECT_EQ(answer.status, 200);
    EXPECT_EQ(answer.fields["Content-Type"], "application/json");
    EXPECT_FALSE(answer.fields.contains("X-Request-Id"));
    const std::string text = answer.text();
    EXPECT_EQ(
        answer.body,
        R"({"id":"chatcmpl-abc","object":"chat.completion","created":1700000000,)"
        R"("model":"Qwen/Qwen2.5-7B-Instruct",)"
        R"("choices":[{"index":0,"message":{"role":"assistant","content":")" +
            text +
            R"(","refusal":null,"annotations":null,)"
            R"("audio":null,"function_call":null,"reasoning":null},)"
            R"("logprobs":null,"finish_reason":"length","stop_reason":null,"token_ids":null,)"
            R"("routed_experts":null}],"service_tier":null,)"
            R"("system_fingerprint":"vllm-0.33.0-b9307215",)"
            R"("usage":{"prompt_tokens":14,"total_tokens":16,"completion_tokens":2,)"
            R"("prompt_tokens_details":null,"completion_tokens_details":null},)"
            R"("prompt_logprobs":null,"prompt_token_ids":null,"prompt_text":null,)"
            R"("kv_transfer_params":null,"ec_transfer_params":null,"metrics":null})");
}

TEST_F(ApiAnswers, AChatStreamHasVllmsChunks) {
    Json body = chat("hello", 2);
    body["stream"] = true;
    body["stream_options"] = {{"include_usage", true}};
    Ask& answer = ask(kChat, body, "X-Request-Id: abc\r\n");
    EXPECT_EQ(answer.fields["Content-Type"], "text/event-stream; charset=utf-8");
    const auto events = answer.events();
    ASSERT_EQ(events.size(), 5U);
    const std::string head =
        R"({"id":"chatcmpl-abc","object":"chat.completion.chunk","created":1700000000,)"
        R"("model":"Qwen/Qwen2.5-7B-Instruct",)";
    EXPECT_EQ(
        events[0],
        head + R"("choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,)"
               R"("finish_reason":null}],"prompt_token_ids":null,"prompt_text":null,)"
               R"("kv_transfer_params":null})");
    EXPECT_TRUE(events[1].starts_with(head + R"("choices":[{"index":0,"delta":{"content":")"));
    EXPECT_TRUE(events[1].ends_with(
        R"("logprobs":null,"finish_reason":null,"token_ids":null}],"kv_transfer_params":null})"));
    EXPECT_TRUE(
        events[2].ends_with(R"("finish_reason":"length","stop_reason":null,"token_ids":null}],)"
                            R"("kv_transfer_params":null})"));
    EXPECT_EQ(
        events[3],
        head +
            R"("choices":[],"usage":{"prompt_tokens":14,"total_tokens":16,"completion_tokens":2},)"
            R"("system_fingerprint":"vllm-0.33.0-b9307215"})");
    EXPECT_EQ(events[4], "[DONE]");
    EXPECT_EQ(answer.text(), ask(kChat, chat("hello", 2)).text());
}

TEST_F(ApiAnswers, StreamsBefore033HaveNoKvParams) {
    EngineOptions older = plain();
    older.version = "0.32.0";
    engine = &add(older);
    Json body = chat("hello", 2);
    body["stream"] = true;
    EXPECT_EQ(ask(kChat, body).body.find("kv_transfer_params"), std::string::npos);
}

TEST_F(ApiAnswers, CompletionsTakeTextTokensAndLists) {
    const Json body = {{"prompt", "Once upon a time"}, {"max_tokens", 3}};
    const Json text = ask(kCompletions, body).json();
    EXPECT_EQ(text["object"], "text_completion");
    EXPECT_TRUE(text["id"].get<std::string>().starts_with("cmpl-"));
    EXPECT_EQ(text["usage"]["prompt_tokens"], 4);
    const Json tokens = ask("/tokenize", {{"prompt", "Once upon a time"}}).json();
    EXPECT_EQ(tokens["count"], 4);
    EXPECT_EQ(tokens["max_model_len"], 32768);
    EXPECT_TRUE(tokens["token_strs"].is_null());
    const Json as_tokens =
        ask(kCompletions, {{"prompt", tokens["tokens"]}, {"max_tokens", 3}}).json();
    EXPECT_EQ(as_tokens["choices"], text["choices"]);

    const Json both =
        ask(kCompletions,
            {{"prompt", {"Once upon a time", "Another"}}, {"max_tokens", 3}, {"n", 2}})
            .json();
    ASSERT_EQ(both["choices"].size(), 4U);
    EXPECT_EQ(both["choices"][0]["text"], text["choices"][0]["text"]);
    EXPECT_EQ(both["choices"][3]["index"], 3);
    EXPECT_EQ(both["usage"]["prompt_tokens"], 6);
    EXPECT_EQ(both["usage"]["completion_tokens"], 12);
    const Json lists =
        ask(kCompletions, {{"prompt", {tokens["tokens"], tokens["tokens"]}}, {"max_tokens", 3}})
            .json();
    EXPECT_EQ(lists["choices"][1]["text"], text["choices"][0]["text"]);
}

TEST_F(ApiAnswers, EchoAndSixteenTokensByDefault) {
    const Json echo =
        ask(kCompletions, {{"prompt", "Once"}, {"echo", true}, {"max_tokens", 2}}).json();
    EXPECT_TRUE(echo["choices"][0]["text"].get<std::string>().starts_with("Once"));
    const Json only =
        ask(kCompletions, {{"prompt", "Once"}, {"echo", true}, {"max_tokens", 0}}).json();
    EXPECT_EQ(only["choices"][0]["text"], "Once");
    EXPECT_EQ(ask(kCompletions, {{"prompt", "Once"}}).json()["usage"]["completion_tokens"], 16);
    Ask& streamed = ask(kCompletions,
                        {{"prompt", "Once"}, {"echo", true}, {"max_tokens", 2}, {"stream", true}});
    EXPECT_EQ(streamed.text(), echo["choices"][0]["text"].get<std::string>());
}

TEST_F(ApiAnswers, TheEndComesByItselfUnlessIgnored) {
    Json body = chat("end");
    body.erase("max_tokens");
    const Json whole = ask(kChat, body).json();
    EXPECT_EQ(whole["choices"][0]["finish_reason"], "stop");
    EXPECT_EQ(whole["usage"]["completion_tokens"], 21);  // 20 and the end of the sequence
    body["max_completion_tokens"] = 1;
    body["max_tokens"] = 5;
    EXPECT_EQ(ask(kChat, body).json()["usage"]["completion_tokens"], 1);
    body["max_completion_tokens"] = 30;
    body["ignore_eos"] = true;
    EXPECT_EQ(ask(kChat, body).json()["usage"]["completion_tokens"], 30);
    body["ignore_eos"] = false;
    body["min_tokens"] = 25;
    EXPECT_EQ(ask(kChat, body).json()["usage"]["completion_tokens"], 26);
}

TEST_F(ApiAnswers, StopStringsEndTheTextBeforeThem) {
    const std::string whole = ask(kChat, chat("stop", 10)).text();
    const std::string third = whole.substr(8, 3);
    Json body = chat("stop", 10);
    body["stop"] = Json::array({third, "never in there"});
    const Json stopped = ask(kChat, body).json();
    EXPECT_EQ(stopped["choices"][0]["message"]["content"], whole.substr(0, whole.find(third)));
    EXPECT_EQ(stopped["choices"][0]["finish_reason"], "stop");
    EXPECT_EQ(stopped["choices"][0]["stop_reason"], third);
    body["include_stop_str_in_output"] = true;
    EXPECT_EQ(ask(kChat, body).text(), whole.substr(0, whole.find(third) + 3));
    body["stream"] = true;
    EXPECT_EQ(ask(kChat, body).text(), whole.substr(0, whole.find(third) + 3));
    EXPECT_EQ(engine->state().scheduler.running, 0U);
    body["stop"] = "never in there";
    EXPECT_EQ(ask(kChat, body).text(), whole);
}

TEST_F(ApiAnswers, TokenIdsComeBackWhenAskedFor) {
    Json body = chat("ids", 3);
    body["return_token_ids"] = true;
    const Json answer = ask(kChat, body).json();
    EXPECT_EQ(answer["prompt_token_ids"].size(),
              answer["usage"]["prompt_tokens"].get<std::size_t>());
    EXPECT_EQ(answer["choices"][0]["token_ids"].size(), 3U);
    const Json back = ask("/detokenize", {{"tokens", answer["choices"][0]["token_ids"]}}).json();
    EXPECT_EQ(back["prompt"], answer["choices"][0]["message"]["content"]);
}

TEST_F(ApiAnswers, EverythingThatShapesThePromptChangesTheText) {
    const Json body = chat("shape");
    const std::string text = ask(kChat, body).text();
    EXPECT_EQ(ask(kChat, body).text(), text);
    for (const auto& [name, value] : std::vector<std::pair<std::string, Json>>{
             {"response_format", {{"type", "json_object"}}},
             {"tool_choice", "none"},
             {"chat_template_kwargs", {{"enable_thinking", false}}},
             {"documents", Json::array({{{"text", "d"}}})},
             {"reasoning_effort", "high"},
             {"cache_salt", "s"},
             {"add_generation_prompt", false}}) {
        Json shaped = body;
        shaped[name] = value;
        EXPECT_NE(ask(kChat, shaped).text(), text) << name;
    }
    // What the proxy changes on P does not.
    for (const auto& [name, value] : std::vector<std::pair<std::string, Json>>{{"min_tokens", 1},
                                                                               {"logprobs", false},
                                                                               {"user", "u"},
                                                                               {"temperature", 0},
                                                                               {"stream", false}}) {
        Json other = body;
        other[name] = value;
        EXPECT_EQ(ask(kChat, other).text(), text) << name;
    }
}

TEST_F(ApiAnswers, ResponsesPlainAndStreamed) {
    const Json body = {{"input", "Tell me"}, {"max_output_tokens", 3}};
    const Json whole = ask("/v1/responses", body).json();
    EXPECT_EQ(whole["object"], "response");
    EXPECT_EQ(whole["status"], "incomplete");
    EXPECT_EQ(whole["usage"]["output_tokens"], 3);
    const std::string text = whole["output"][0]["content"][0]["text"];
    Json streamed = body;
    streamed["stream"] = true;
    Ask& stream = ask("/v1/responses", streamed);
    EXPECT_EQ(stream.body.find("[DONE]"), std::string::npos);
    EXPECT_TRUE(
        stream.body.starts_with("event: response.created\ndata: {\"type\":\"response.created\","));
    std::string joined;
    int number = 0;
    for (const std::string& event : stream.events()) {
        const Json data = Json::parse(event);
        EXPECT_EQ(data["sequence_number"], number++);
        if (data["type"] == "response.output_text.delta")
            joined += data["delta"].get<std::string>();
    }
    EXPECT_EQ(joined, text);
    EXPECT_EQ(ask("/v1/responses", {{"input", "Tell me"}}).json()["status"], "completed");
}

TEST_F(ApiAnswers, MessagesPlainAndStreamed) {
    Json body = chat("Tell me", 3);
    body["system"] = "Be brief.";
    const Json whole = ask("/v1/messages", body).json();
    EXPECT_EQ(whole["type"], "message");
    EXPECT_EQ(whole["stop_reason"], "max_tokens");
    EXPECT_EQ(whole["usage"]["output_tokens"], 3);
    body["stream"] = true;
    Ask& stream = ask("/v1/messages", body);
    EXPECT_TRUE(stream.body.starts_with("event: message_start\n"));
    EXPECT_TRUE(
        stream.body.ends_with("event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"));
    std::string joined;
    for (const std::string& event : stream.events()) {
        const Json data = Json::parse(event);
        if (data["type"] == "content_block_delta")
            joined += data["delta"]["text"].get<std::string>();
    }
    EXPECT_EQ(joined, whole["content"][0]["text"].get<std::string>());
    body.erase("stream");
    body.erase("max_tokens");
    const Json refused = ask("/v1/messages", body).json();
    EXPECT_EQ(refused["type"], "error");
    EXPECT_EQ(ask("/v1/messages/count_tokens", body).json()["input_tokens"],
              whole["usage"]["input_tokens"]);
}

TEST_F(ApiAnswers, TheSmallEndpoints) {
    Ask& health = get(*engine, "/health");
    EXPECT_EQ(health.status, 200);
    EXPECT_EQ(health.body, "");
    EXPECT_FALSE(health.fields.contains("Content-Type"));
    EXPECT_EQ(get(*engine, "/ping").status, 200);
    EXPECT_EQ(get(*engine, "/version").body, R"({"version":"0.33.0"})");
    EXPECT_EQ(get(*engine, "/load").body, R"({"server_load":0})");
    const Json models = get(*engine, "/v1/models").json();
    EXPECT_EQ(models["data"][0]["id"], "Qwen/Qwen2.5-7B-Instruct");
    EXPECT_EQ(models["data"][0]["max_model_len"], 32768);
    EXPECT_TRUE(models["data"][0]["permission"].is_array());
    Ask& unknown = get(*engine, "/v1/models/x");
    EXPECT_EQ(unknown.status, 404);
    EXPECT_EQ(unknown.body, R"({"detail":"Not Found"})");
    Ask& wrong = get(*engine, kChat);
    EXPECT_EQ(wrong.status, 405);
    EXPECT_EQ(wrong.body, R"({"detail":"Method Not Allowed"})");
    Ask& scale_out = ask("/inference/v1/generate", Json::object());
    EXPECT_EQ(scale_out.status, 403);
    EXPECT_EQ(scale_out.json()["error"]["type"], "PermissionDeniedError");
    const Json one = ask("/v1/embeddings", {{"input", "a"}}).json();
    EXPECT_EQ(one["data"][0]["embedding"].size(), 16U);
    const Json two = ask("/v1/embeddings", {{"input", {"b", "a"}}}).json();
    EXPECT_EQ(two["data"][1]["embedding"], one["data"][0]["embedding"]);
    EXPECT_NE(two["data"][0]["embedding"], one["data"][0]["embedding"]);
}

TEST_F(ApiAnswers, MetricsHaveVllmsNames) {
    ask(kChat, chat("hello", 3));
    Ask& metrics = get(*engine, "/metrics");
    EXPECT_EQ(metrics.fields["Content-Type"], "text/plain; version=1.0.0; charset=utf-8");
    EXPECT_TRUE(metrics.body.starts_with("# HELP python_gc_"));
    for (const char* line :
         {"vllm:num_requests_running{engine=\"0\",model_name=\"Qwen/Qwen2.5-7B-Instruct\"} 0.0\n",
          "vllm:num_requests_waiting{", "vllm:kv_cache_usage_perc{",
          "vllm:external_prefix_cache_hits_total{",
          "vllm:prompt_tokens_total{engine=\"0\",model_name=\"Qwen/Qwen2.5-7B-Instruct\"} 14.0\n",
          "source=\"external_kv_transfer\"} 0.0\n", "vllm:generation_tokens_total{",
          "finished_reason=\"length\"} 1.0\n"})
        EXPECT_NE(metrics.body.find(line), std::string::npos) << line;
}

TEST_F(ApiAnswers, AStreamedTokenTakesItsTime) {
    EngineOptions slow = plain();
    slow.timing.first_token = 100ms;
    slow.timing.first_token_per_prompt_token = 10ms;
    slow.timing.between_tokens = 50ms;
    engine = &add(slow);
    Ask& answer = ask(kChat, chat("hello", 5));
    EXPECT_GE(answer.took(), 100ms + 14 * 10ms + 4 * 50ms);
    EXPECT_LT(answer.took(), 500ms);
}

TEST_F(ApiAnswers, SlotsBlocksAndTheQueueAreLimited) {
    EngineOptions narrow = plain();
    narrow.timing.max_num_seqs = 2;
    narrow.timing.max_queued = 3;
    narrow.timing.first_token = 1s;
    engine = &add(narrow);
    std::vector<Ask*> asks;
    for (int i = 0; i < 6; ++i) {
        asks.push_back(&post(*engine, kChat, chat("queue", 1).dump()));
        run_for(1ms);
    }
    run_for(100ms);
    EXPECT_EQ(engine->state().scheduler.running, 2U);
    EXPECT_EQ(engine->state().scheduler.waiting, 3U);
    EXPECT_EQ(asks[5]->status, 503);
    EXPECT_EQ(asks[5]->json()["error"]["type"], "Service Unavailable");
    for (Ask* each : asks) wait(*each);
    EXPECT_GE(asks[4]->took(), 2900ms);

    EngineOptions small = plain();
    small.timing.blocks = 4;
    engine = &add(small);
    Ask& first = post(*engine, kChat, chat("blocks", 20).dump());
    Ask& second = post(*engine, kChat, chat("blocks", 20).dump());
    EXPECT_EQ(wait(first).status, 200);
    EXPECT_EQ(wait(second).status, 200);
    EXPECT_GT(second.took(), first.took() + 50ms);
    EXPECT_EQ(wait(post(*engine, kChat, chat(std::string(400, 'x'), 20).dump())).status,
              500);  // never fits
}

TEST_F(ApiAnswers, ALeavingClientFreesEverything) {
    Json body = chat("leave", 20);
    body["stream"] = true;
    Ask& streamed = post(*engine, kChat, body.dump());
    run_for(50ms);
    EXPECT_EQ(engine->state().scheduler.running, 1U);
    streamed.leave();
    body["stream"] = false;
    Ask& whole = post(*engine, kChat, body.dump());
    run_for(50ms);
    whole.leave();
    run_for(5ms);
    const EngineState state = engine->state();
    EXPECT_EQ(state.scheduler.running, 0U);
    EXPECT_EQ(state.scheduler.blocks_used, 0U);
    EXPECT_EQ(state.generations_live, 0U);
    EXPECT_EQ(state.counters.cancelled, 2U);
}

TEST_F(ApiAnswers, KeepAliveCommentsComeWhenItIsQuiet) {
    EngineOptions quiet = plain();
    quiet.sse_keep_alive = 1s;
    quiet.timing.first_token = 3500ms;
    engine = &add(quiet);
    Json body = chat("quiet", 2);
    body["stream"] = true;
    EXPECT_TRUE(ask(kChat, body)
                    .body.starts_with(": keep-alive\n\n: keep-alive\n\n: keep-alive\n\ndata: {"));
}

}  // namespace
}  // namespace sluice::engine::test
