// SPDX-License-Identifier: Apache-2.0
// What vLLM refuses, and in which words (facts: real-vllm.md section 3, "API answers").
#include "bench.h"

namespace sluice::engine::test {
namespace {

class Refusals : public Bench {
protected:
    // The error object; the status is checked against it.
    Json error(std::string_view path, std::string_view body, std::string_view headers = {}) {
        Ask& ask = wait(post(*engine, path, body, headers));
        const Json answer = ask.json();
        EXPECT_EQ(ask.fields["Content-Type"], "application/json");
        if (!answer.is_object() || !answer.contains("error")) {
            ADD_FAILURE() << ask.status << " " << ask.body << " for " << body.substr(0, 200);
            return Json::object();
        }
        EXPECT_EQ(answer["error"]["code"], ask.status);
        return answer["error"];
    }
    Json chat_error(const Json& change) {
        Json body = chat("hello");
        for (const auto& [name, value] : change.items()) body[name] = value;
        return error(kChat, body.dump());
    }
    Engine* engine = &add(limited());
    static EngineOptions limited() {
        EngineOptions options = plain();
        options.timing.max_model_len = 1024;
        return options;
    }
};

TEST_F(Refusals, BodiesThatAreNoRequest) {
    for (const auto& [body, param] : std::vector<std::pair<std::string, std::string>>{
             {R"({"model": oops})", "body.10"},
             {"", "body"},
             {"[1,2]", "body"},
             {"{}", "body.messages"},
             {R"({"messages":"x"})", "body.messages"},
             {R"({"messages":[{"role":"user","content":"x"}],"max_tokens":"many"})",
              "body.max_tokens"},
             {R"({"messages":[{"role":"user","content":"x"}],"kv_transfer_params":"x"})",
              "body.kv_transfer_params"},
             {R"({"messages":[1]})", "body.messages"},
             {R"({"messages":[{"role":"user","content":"x"}],"stream":"perhaps"})",
              "body.stream"}}) {
        const Json found = error(kChat, body, "Content-Type: application/json\r\n");
        EXPECT_EQ(found["type"], "Bad Request") << body;
        EXPECT_EQ(found["code"], 400) << body;
        EXPECT_EQ(found["param"], param) << body;
        EXPECT_TRUE(
            found["message"].get<std::string>().starts_with("1 validation error:\n  {'type': '"))
            << body;
    }
}

TEST_F(Refusals, MeaninglessValues) {
    const auto expect = [&](const Json& change, const Json& param, std::string_view words) {
        const Json found = chat_error(change);
        EXPECT_EQ(found.value("type", ""), "BadRequestError") << change;
        EXPECT_EQ(found["param"], param) << change;
        EXPECT_NE(found.value("message", "").find(words), std::string::npos) << found;
    };
    expect({{"max_tokens", 0}}, "max_tokens", "max_tokens must be at least 1, got 0.");
    expect({{"max_tokens", 2000}}, "max_tokens", "max_model_len=1024");
    expect({{"temperature", -1}}, "temperature", "temperature must be non-negative, got -1.0.");
    expect({{"min_tokens", 9}}, nullptr,
           "min_tokens must be less than or equal to max_tokens=8, got 9.");
    expect({{"stream_options", {{"include_usage", true}}}}, "stream_options", "`stream=True`");
    expect({{"messages", Json::array()}}, nullptr, "empty conversation");
    expect({{"n", 0}}, nullptr, "n must be at least 1, got 0.");
    expect({{"n", 2}, {"temperature", 0}}, nullptr,
           "n must be 1 when using greedy sampling, got 2.");
    expect({{"top_p", 0}}, "top_p", "top_p must be in (0, 1]");
    expect({{"stop", ""}}, nullptr, "empty");
    expect({{"tool_choice", "required"}}, "tool_choice", "`tools` must be set");
    expect({{"tools", Json::array({{{"type", "function"}}})}, {"tool_choice", "required"}}, nullptr,
           "--tool-call-parser");
    expect({{"tools", Json::array({{{"type", "function"}}})}}, nullptr,
           "--enable-auto-tool-choice");
    expect({{"stream", true}, {"temperature", -1}}, "temperature",
           "non-negative");  // plain JSON, no stream
}

TEST_F(Refusals, PromptsThatAreMissingOrTooLong) {
    EXPECT_EQ(error(kCompletions, "{\"model\":null}")["param"], "prompt");
    EXPECT_EQ(error(kCompletions, R"({"prompt":""})")["type"], "BadRequestError");
    const Json found = error(kChat, chat(std::string(4096, 'x')).dump());
    EXPECT_EQ(found["param"], "input_tokens");
    EXPECT_TRUE(found["message"].get<std::string>().starts_with(
        "This model's maximum context length is 1024 tokens. However, your prompt contains at "
        "least "));
    EXPECT_EQ(error("/v1/responses", "{}")["param"], "body.input");
}

TEST_F(Refusals, UnknownModelsButNoModelIsFine) {
    const Json found = chat_error({{"model", "nope"}});
    EXPECT_EQ(found["code"], 404);
    EXPECT_EQ(found["type"], "NotFoundError");
    EXPECT_EQ(found["param"], "model");
    EXPECT_EQ(found["message"],
              "The model `nope` does not exist. Valid aliases: Qwen/Qwen2.5-7B-Instruct.");
    EXPECT_EQ(wait(post(*engine, kChat, chat("no model").dump())).status, 200);
    Json unknown = chat("unknown member");
    unknown["surprise"] = 1;
    EXPECT_EQ(wait(post(*engine, kChat, unknown.dump())).status, 200);
}

TEST_F(Refusals, OtherMediaTypes) {
    const std::string body = chat("x").dump();
    for (const char* type :
         {"Content-Type: text/plain\r\n", "Content-Type: application/x-www-form-urlencoded\r\n"}) {
        const Json found = error(kChat, body, type);
        EXPECT_EQ(found["code"], 400);
        EXPECT_EQ(
            found["message"],
            "1 validation error:\n  Unsupported Media Type: Only 'application/json' is allowed");
    }
    EXPECT_EQ(wait(post(*engine, kChat, body, "Content-Type: application/json; charset=utf-8\r\n"))
                  .status,
              200);
}

TEST_F(Refusals, RanksThatDoNotExist) {
    const std::string body = chat("x").dump();
    for (const char* rank : {"1", "-1"}) {
        const Json found =
            error(kChat, body, "X-data-parallel-rank: " + std::string(rank) + "\r\n");
        EXPECT_EQ(found["code"], 400);
        EXPECT_EQ(found["message"],
                  "data_parallel_rank " + std::string(rank) + " is out of range [0, 1).");
    }
    EXPECT_EQ(wait(post(*engine, kChat, body, "X-data-parallel-rank: abc\r\n")).status, 200);
    EXPECT_EQ(wait(post(*engine, kChat, body, "X-data-parallel-rank: 0\r\n")).status, 200);
    Json streamed = chat("x");
    streamed["stream"] = true;
    Ask& ask = wait(post(*engine, kChat, streamed.dump(), "X-data-parallel-rank: 7\r\n"));
    EXPECT_NE(ask.body.find("out of range [0, 1)"), std::string::npos);
    EXPECT_EQ(engine->state().generations_live, 0U);
}

TEST_F(Refusals, KeysAreAskedForUnderV1Only) {
    EngineOptions guarded = plain();
    guarded.api_keys = {"secret", "other"};
    engine = &add(guarded);
    const std::string body = chat("x").dump();
    Ask& refused = wait(post(*engine, kChat, body));
    EXPECT_EQ(refused.status, 401);
    EXPECT_EQ(refused.body, R"({"error":"Unauthorized"})");
    EXPECT_EQ(wait(post(*engine, kChat, body, "Authorization: Bearer wrong\r\n")).status, 401);
    EXPECT_EQ(wait(post(*engine, kChat, body, "Authorization: Bearer other\r\n")).status, 200);
    EXPECT_EQ(get(*engine, "/health").status, 200);
    EXPECT_EQ(get(*engine, "/v1/models").status, 401);
}

// Nothing a client sends may take the engine down or leave anything behind.
TEST_F(Refusals, HostileBodies) {
    std::string deep = R"({"messages":[{"role":"user","content":)" + std::string(100'000, '[');
    const std::vector<std::string> bodies = {
        deep,
        deep + std::string(100'000, ']') + "}]}",
        R"({"messages":[{"role":"user","content":"\ud800"}]})",
        "{\"messages\":[{\"role\":\"user\",\"content\":\"\xff\xfe\"}]}",
        R"({"messages":[{"role":"user","content":"x"}],"max_tokens":1e400})",
        R"({"messages":[{"role":"user","content":"x"}],"max_tokens":99999999999999999999})",
        R"({"messages":[{"role":"user","content":"x"}],"n":-9223372036854775808})",
        R"({"messages":[{"role":"user","content":{"a":1}}],"max_tokens":2})",
        R"({"messages":[{"role":"user","content":"x"}],)"
        R"("kv_transfer_params":{"transfer_id":7,"do_remote_prefill":"x"}})",
        R"({"messages":[{"role":"user","content":"x"}],"stop_token_ids":[-1]})",
        R"({"prompt":[[]],"messages":null})",
        R"({"prompt":[1,"x"]})",
        R"({"prompt":[-1]})",
        R"({"prompt":{},"input":7})",
        "null",
        "\"\\",
        std::string(1, '\0'),
    };
    for (const std::string& body : bodies)
        for (const char* path :
             {kChat, kCompletions, "/v1/responses", "/v1/messages", "/tokenize", "/detokenize",
              "/v1/embeddings", "/v1/messages/count_tokens", "/sim/fault"}) {
            Ask& ask = wait(post(*engine, path, body, "Content-Type: application/json\r\n"));
            EXPECT_FALSE(ask.failed) << path << " " << body.substr(0, 60);
            EXPECT_TRUE(ask.status == 200 || ask.status == 400 || ask.status == 404)
                << ask.status << path;
            EXPECT_FALSE(ask.json().is_discarded())
                << path << " " << body.substr(0, 60) << ask.body.substr(0, 300);
        }
    EXPECT_EQ(engine->state().generations_live, 0U);
    EXPECT_EQ(engine->state().scheduler.blocks_used, 0U);
}

}  // namespace
}  // namespace sluice::engine::test
