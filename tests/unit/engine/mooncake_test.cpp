// SPDX-License-Identifier: Apache-2.0
// The Mooncake hand-over between two engines: together, early, late, shared, crossed. The
// expectations are what real vLLM did (facts: real-vllm.md, section 3).
#include "mooncake_bench.h"

namespace sluice::engine::test {
namespace {

TEST_F(Mooncake, BothLegsAtOnceGiveTheTextOfOneEngine) {
    make_pair();
    const Json body = chat("Tell me a long story about artificial intelligence.");
    Ask& prefill_leg = post(*p, kChat, prefill(body, "t1"));
    Ask& decode_leg = post(*d, kChat, with(body, decode_params(*p, "t1")));
    wait(prefill_leg);
    wait(decode_leg);
    EXPECT_EQ(prefill_leg.status, 200);
    EXPECT_TRUE(prefill_leg.json()["kv_transfer_params"].is_null());
    EXPECT_TRUE(prefill_leg.json().contains("kv_transfer_params"));
    EXPECT_EQ(prefill_leg.json()["usage"]["completion_tokens"], 1);
    EXPECT_EQ(decode_leg.status, 200);
    EXPECT_EQ(decode_leg.json()["usage"]["completion_tokens"], 8);
    EXPECT_TRUE(decode_leg.json()["kv_transfer_params"].is_null());
    EXPECT_EQ(decode_leg.text(), expected(body));
    EXPECT_TRUE(decode_leg.text().starts_with(prefill_leg.text()));
    EXPECT_EQ(p->state().counters.transfers, 1U);
    EXPECT_GT(d->state().counters.prompt_tokens_external, 0U);
    expect_idle(*p);
    expect_idle(*d);
}

TEST_F(Mooncake, EitherLegMayComeThreeSecondsLater) {
    make_pair();
    const Json body = chat("late");
    Ask& early = post(*d, kChat, with(body, decode_params(*p, "a")));
    run_for(3s);
    EXPECT_FALSE(early.done);
    wait(post(*p, kChat, prefill(body, "a")));
    EXPECT_EQ(wait(early).text(), expected(body));

    wait(post(*p, kChat, prefill(body, "b")));
    EXPECT_GT(p->state().connector.blocks_held, 0U);
    run_for(3s);
    EXPECT_EQ(wait(post(*d, kChat, with(body, decode_params(*p, "b")))).text(), expected(body));
    expect_idle(*p);
    expect_idle(*d);
}

TEST_F(Mooncake, AWrongPairingGivesWrongTextAndPoisonsTheCache) {
    make_pair();
    const Json asked = chat(
        "the right prompt, which is longer than one block of the cache, about 100 bytes of it");
    const Json other = chat(
        "the other prompt, which is longer than one block of the cache, about 100 bytes of it");
    post(*p, kChat, prefill(other, "t"));
    Ask& wrong = wait(post(*d, kChat, with(asked, decode_params(*p, "t"))));
    EXPECT_EQ(wrong.status, 200);
    EXPECT_EQ(wrong.text(), expected(other));
    EXPECT_NE(wrong.text(), expected(asked));
    EXPECT_EQ(wait(post(*d, kChat, asked.dump())).text(), expected(other));
}

TEST_F(Mooncake, AShorterPromptOnPIsRefusedAtOnce) {
    make_pair();
    post(*p, kChat, prefill(chat("short"), "t"));
    Ask& ask = wait(post(*d, kChat, with(chat(std::string(400, 'x')), decode_params(*p, "t"))));
    EXPECT_EQ(ask.status, 500);
    EXPECT_LT(ask.took(), 100ms);
}

TEST_F(Mooncake, TwoPromptsUnderOneIdGiveAWrongFirstChoice) {
    make_pair();
    Json body = {{"prompt", Json::array({"prompt number one", "prompt number two"})},
                 {"max_tokens", 6}};
    post(*p, kCompletions, prefill(body, "t"));
    Ask& ask = wait(post(*d, kCompletions, with(body, decode_params(*p, "t"))));
    ASSERT_EQ(ask.status, 200);
    const Json right = wait(post(*alone, kCompletions, body.dump())).json();
    EXPECT_NE(ask.json()["choices"][0]["text"], right["choices"][0]["text"]);
    EXPECT_EQ(ask.json()["choices"][1]["text"], right["choices"][1]["text"]);
    // The first one's blocks have lost their owner.
    run_for(60s);
    EXPECT_GT(p->state().scheduler.blocks_used, 0U);
}

TEST_F(Mooncake, ChildrenOfOneRequestArePulledTogether) {
    make_pair();
    Json body = chat("n is two");
    body["n"] = 2;
    post(*p, kChat, prefill(chat("n is two"), "t"));
    Ask& ask = wait(post(*d, kChat, with(body, decode_params(*p, "t"))));
    ASSERT_EQ(ask.status, 200);
    const Json right = wait(post(*alone, kChat, body.dump())).json();
    for (int i = 0; i < 2; ++i)
        EXPECT_EQ(ask.json()["choices"][i]["message"], right["choices"][i]["message"]) << i;
    EXPECT_NE(right["choices"][0]["message"], right["choices"][1]["message"]);
    EXPECT_EQ(d->state().counters.pulls_sent, 1U);
}

TEST_F(Mooncake, AClientThatLeavesLetsTheTransferFinish) {
    make_pair();
    Json body = chat("leaves");
    body["stream"] = true;
    Ask& ask = post(*d, kChat, with(body, decode_params(*p, "t")));
    run_for(1s);
    ask.leave();
    run_for(500ms);
    EXPECT_GT(d->state().scheduler.blocks_used, 0U);
    EXPECT_EQ(wait(post(*p, kChat, prefill(body, "t"))).status, 200);
    run_for(100ms);
    expect_idle(*p);
    expect_idle(*d);
    EXPECT_EQ(d->state().counters.cancelled, 1U);
}

TEST_F(Mooncake, WithoutATransferIdNothingIsSent) {
    make_pair();
    Json params = prefill_params("t");
    params.erase("transfer_id");
    EXPECT_EQ(wait(post(*p, kChat, with(chat("x", 1), params))).status, 200);
    expect_idle(*p);
}

TEST_F(Mooncake, ARefusedDecodeTellsP) {
    make_pair();
    const Json body = chat("refused");
    wait(post(*p, kChat, prefill(body, "t")));
    EXPECT_GT(p->state().connector.blocks_held, 0U);
    Json bad = body;
    bad["temperature"] = -1;
    EXPECT_EQ(wait(post(*d, kChat, with(bad, decode_params(*p, "t")))).status, 400);
    run_for(100ms);
    EXPECT_EQ(p->state().connector.blocks_held, 0U);
}

TEST_F(Mooncake, PromptLogprobsMakeDPrefillByItself) {
    make_pair();
    Json body = chat("logprobs");
    wait(post(*p, kChat, prefill(body, "t")));
    body["prompt_logprobs"] = 1;
    EXPECT_EQ(wait(post(*d, kChat, with(body, decode_params(*p, "t")))).text(),
              expected(chat("logprobs")));
    EXPECT_EQ(d->state().counters.prompt_tokens_external, 0U);
    run_for(10ms);
    expect_idle(*p);
}

TEST_F(Mooncake, RecomputeHidesAFailedLoad) {
    p = &add(mooncake(KvRole::Producer, 8s));
    EngineOptions options = mooncake(KvRole::Consumer, 8s);
    options.kv.failure_policy = LoadFailurePolicy::Recompute;
    d = &add(options);
    alone = &add(plain());
    Ask& ask = wait(post(*d, kChat, with(chat("x"), decode_params(*p, "nobody"))));
    EXPECT_EQ(ask.status, 200);
    EXPECT_GE(ask.took(), 8s);
    EXPECT_EQ(ask.text(), expected(chat("x")));
}

TEST_F(Mooncake, RanksHaveTheirOwnEngineIds) {
    EngineOptions two = mooncake(KvRole::Producer, 8s);
    two.data_parallel = 2;
    p = &add(two);
    d = &add(mooncake(KvRole::Consumer, 8s));
    alone = &add(plain());
    EXPECT_TRUE(p->engine_id(0).ends_with("_dp0"));
    EXPECT_TRUE(p->engine_id(1).ends_with("_dp1"));
    const Json known = send(p->bootstrap_address(), "GET", "/query").json();
    EXPECT_EQ(known["0"]["engine_id"], p->engine_id(0));
    EXPECT_EQ(known["1"]["engine_id"], p->engine_id(1));
    const Json body = chat("ranks");
    for (int rank = 0; rank < 2; ++rank) {
        const std::string transfer = "t" + std::to_string(rank);
        post(*p, kChat, prefill(body, transfer),
             "X-data-parallel-rank: " + std::to_string(rank) + "\r\n");
        EXPECT_EQ(
            wait(post(*d, kChat,
                      with(body, decode_params(*p, transfer, static_cast<std::size_t>(rank)))))
                .text(),
            expected(body));
    }
    post(*p, kChat, prefill(body, "crossed"), "X-data-parallel-rank: 0\r\n");
    Ask& crossed = wait(post(*d, kChat, with(body, decode_params(*p, "crossed", 1))));
    EXPECT_EQ(crossed.status, 500);
    EXPECT_GE(crossed.took(), 8s);
}

TEST_F(Mooncake, TensorParallelWorkersAllTakePart) {
    for (const auto& [p_size, d_size] : {std::pair{4U, 2U}, {2U, 4U}, {2U, 2U}}) {
        EngineOptions producer = mooncake(KvRole::Producer, 8s);
        producer.tensor_parallel = p_size;
        EngineOptions consumer = mooncake(KvRole::Consumer, 8s);
        consumer.tensor_parallel = d_size;
        p = &add(producer);
        d = &add(consumer);
        alone = &add(plain());
        EXPECT_EQ(send(p->bootstrap_address(), "GET", "/query").json()["0"]["worker_addr"].size(),
                  p_size);
        const Json body = chat("tensor parallel");
        post(*p, kChat, prefill(body, "t"));
        EXPECT_EQ(wait(post(*d, kChat, with(body, decode_params(*p, "t")))).text(), expected(body));
        EXPECT_EQ(d->state().counters.pulls_sent, std::max(p_size, d_size));
        run_for(10ms);
        expect_idle(*p);
        expect_idle(*d);
    }
}

TEST_F(Mooncake, TheSequentialContractNeedsTheSameRequestIdAndNoBootstrapServer) {
    EngineOptions producer = mooncake(KvRole::Producer, 8s);
    EngineOptions consumer = mooncake(KvRole::Consumer, 8s);
    producer.kv.sequential = consumer.kv.sequential = true;
    producer.version = consumer.version = "0.15.1";
    p = &add(producer);
    d = &add(consumer);
    alone = &add(plain());
    EXPECT_FALSE(p->bootstrap_address().valid());
    const Json body = chat("old");
    Ask& leg = wait(post(
        *p, kChat, with(chat("old", 1), {{"do_remote_decode", true}, {"do_remote_prefill", false}}),
        "X-Request-Id: same\r\n"));
    const Json params = leg.json()["kv_transfer_params"];
    EXPECT_EQ(params["do_remote_prefill"], true);
    EXPECT_EQ(params["remote_host"], "10.0.0.1");
    EXPECT_EQ(wait(post(*d, kChat, with(body, params), "X-Request-Id: same\r\n")).text(),
              expected(body));
    expect_idle(*p);
}

}  // namespace
}  // namespace sluice::engine::test
