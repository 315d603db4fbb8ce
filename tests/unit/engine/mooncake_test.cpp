// SPDX-License-Identifier: Apache-2.0
// The Mooncake hand-over between two engines: early, late, lost, repeated, and what seats and blocks do meanwhile.
// The expectations are what real vLLM did (facts: real-vllm.md, section 3).
#include "bench.h"

namespace sluice::engine::test {
namespace {

class Mooncake : public Bench {
protected:
    // A pair with the abort time-out that the measurements had.
    void make_pair(Duration abort = 8s) {
        p = &add(mooncake(KvRole::Producer, abort));
        d = &add(mooncake(KvRole::Consumer, abort));
        alone = &add(plain());
    }
    std::string expected(const Json& body) { return wait(post(*alone, kChat, body.dump())).text(); }
    void expect_idle(const Engine& engine) {
        const EngineState state = engine.state();
        EXPECT_EQ(state.scheduler.blocks_used, 0U);
        EXPECT_EQ(state.scheduler.running + state.scheduler.waiting + state.scheduler.loading, 0U);
        EXPECT_EQ(state.connector.seats_taken, 0U);
        EXPECT_EQ(state.connector.transfers_live, 0U);
        EXPECT_EQ(state.connector.pulls_waiting, 0U);
        EXPECT_EQ(state.generations_live, 0U);
    }

    Engine* p = nullptr;
    Engine* d = nullptr;
    Engine* alone = nullptr;
};

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

TEST_F(Mooncake, ADecodeWithoutPrefillFailsAfterTheTimeout) {
    make_pair();
    Ask& ask = wait(post(*d, kChat, with(chat("x"), decode_params(*p, "nobody"))));
    EXPECT_EQ(ask.status, 500);
    EXPECT_EQ(ask.body,
              R"({"error":{"message":"Internal server error","type":"InternalServerError","param":null,"code":500}})");
    EXPECT_GE(ask.took(), 8s);
    EXPECT_LT(ask.took(), 9s);
    // A second, empty pull takes a seat for another time-out; placeholders stay for ever.
    run_for(100ms);
    EXPECT_EQ(p->state().connector.seats_taken, 1U);
    run_for(9s);
    EXPECT_EQ(p->state().connector.seats_taken, 0U);
    EXPECT_EQ(d->state().scheduler.blocks_used, 0U);
}

TEST_F(Mooncake, StreamedItHasItsHeadersAtOnceAndThenAnErrorEvent) {
    make_pair();
    Json body = chat("x");
    body["stream"] = true;
    Ask& ask = wait(post(*d, kChat, with(body, decode_params(*p, "nobody"))));
    EXPECT_EQ(ask.status, 200);
    EXPECT_EQ(ask.fields["Content-Type"], "text/event-stream; charset=utf-8");
    EXPECT_LT(ask.head_at - ask.began, 50ms);
    EXPECT_GE(ask.took(), 8s);
    const auto events = ask.events();
    ASSERT_EQ(events.size(), 3U);
    EXPECT_EQ(Json::parse(events[0])["choices"][0]["delta"]["role"], "assistant");
    EXPECT_EQ(events[1], R"({"error": {"message": "Internal server error", "type": "InternalServerError", )"
                         R"("param": null, "code": 500}})");
    EXPECT_EQ(events[2], "[DONE]");
    run_for(100ms);
    EXPECT_EQ(d->state().counters.pulls_sent, 1U);  // no second one
}

TEST_F(Mooncake, BlocksExpireAndALateDecodeWaitsInVain) {
    make_pair();
    const Json body = chat("expires");
    EXPECT_EQ(wait(post(*p, kChat, prefill(body, "t"))).status, 200);
    EXPECT_GT(p->state().connector.blocks_held, 0U);
    run_for(12s);
    EXPECT_EQ(p->state().counters.expired, 1U);
    EXPECT_EQ(p->state().scheduler.blocks_used, 0U);
    Ask& ask = wait(post(*d, kChat, with(body, decode_params(*p, "t"))));
    EXPECT_EQ(ask.status, 500);
    EXPECT_GE(ask.took(), 8s);
}

TEST_F(Mooncake, AWrongEngineIdOrNoBootstrapServerFailsAtOnce) {
    make_pair();
    Json params = decode_params(*p, "t");
    params["remote_engine_id"] = "somebody-else";
    Ask& wrong = wait(post(*d, kChat, with(chat("x"), params)));
    EXPECT_EQ(wrong.status, 500);
    EXPECT_LT(wrong.took(), 50ms);

    params = decode_params(*p, "t");
    params["remote_engine_id"] = "another";
    params["remote_bootstrap_addr"] = "http://10.0.0.1:9";
    Ask& refused = wait(post(*d, kChat, with(chat("x"), params)));
    EXPECT_EQ(refused.status, 500);
    EXPECT_GE(refused.took(), 200ms);  // three tries, 0.1 s apart
    EXPECT_LT(refused.took(), 400ms);

    params["remote_bootstrap_addr"] = "not a url";
    EXPECT_LT(wait(post(*d, kChat, with(chat("x"), params))).took(), 400ms);
}

TEST_F(Mooncake, ADeadPrefillCostsTheTimeoutAndAMinute) {
    make_pair();
    // D must know its workers, as from an earlier request.
    const Json body = chat("x");
    post(*p, kChat, prefill(body, "first"));
    wait(post(*d, kChat, with(body, decode_params(*p, "first"))));
    Ask& ask = post(*d, kChat, with(body, decode_params(*p, "t")));
    run_for(1s);
    p->stop();
    wait(ask);
    EXPECT_EQ(ask.status, 500);
    EXPECT_GE(ask.took(), 67s);
    EXPECT_LT(ask.took(), 69s);
}

TEST_F(Mooncake, ARestartHasANewEngineIdThatWorksAtOnce) {
    make_pair();
    const Json body = chat("restart");
    const std::string before = p->engine_id();
    const Json old_params = decode_params(*p, "t1");
    post(*p, kChat, prefill(body, "t1"));
    EXPECT_EQ(wait(post(*d, kChat, with(body, old_params))).status, 200);
    const io::Address bootstrap = p->bootstrap_address();
    const io::Address api = p->address();

    p->add_fault({.kind = FaultKind::Restart, .delay = 100ms});
    EXPECT_FALSE(p->serving());
    run_for(1s);
    ASSERT_TRUE(p->serving());
    EXPECT_NE(p->engine_id(), before);
    EXPECT_EQ(p->address(), api);
    EXPECT_EQ(p->bootstrap_address(), bootstrap);
    EXPECT_EQ(send(bootstrap, "GET", "/query").json()["0"]["engine_id"], p->engine_id());

    post(*p, kChat, prefill(body, "t2"));
    EXPECT_EQ(wait(post(*d, kChat, with(body, decode_params(*p, "t2")))).text(), expected(body));
    // The old id is known to D for ever, and leads nowhere.
    Ask& lost = wait(post(*d, kChat, with(body, old_params)));
    EXPECT_EQ(lost.status, 500);
    EXPECT_GE(lost.took(), 67s);
}

TEST_F(Mooncake, AnEndOfSequenceAsFirstTokenLosesTheTransfer) {
    make_pair();
    const Json body = chat("eos");
    p->add_fault({.kind = FaultKind::EosFirst});
    Json plain_prefill = body;
    plain_prefill["max_tokens"] = 1;
    Ask& lost = post(*d, kChat, with(body, decode_params(*p, "t")));
    Ask& leg = wait(post(*p, kChat, with(plain_prefill, prefill_params("t"))));
    EXPECT_EQ(leg.status, 200);
    EXPECT_EQ(leg.json()["choices"][0]["finish_reason"], "stop");
    EXPECT_EQ(wait(lost).status, 500);
    EXPECT_GE(lost.took(), 8s);
    // min_tokens = 1 is the cure.
    Ask& cured = post(*d, kChat, with(body, decode_params(*p, "t2")));
    EXPECT_EQ(wait(post(*p, kChat, prefill(body, "t2"))).json()["choices"][0]["finish_reason"], "length");
    EXPECT_EQ(wait(cured).text(), expected(body));
}

TEST_F(Mooncake, AStopTokenLosesItTooButAStopStringDoesNot) {
    make_pair();
    const Json body = chat("stop");
    const std::string first = wait(post(*alone, kChat, chat("stop", 1).dump())).text();
    Json by_token = chat("stop", 1);
    by_token["stop_token_ids"] = Json::array({tokenize(first).front()});
    by_token["ignore_eos"] = true;
    EXPECT_EQ(wait(post(*p, kChat, with(by_token, prefill_params("a")))).json()["choices"][0]["finish_reason"], "stop");
    EXPECT_EQ(p->state().connector.blocks_held, 0U);
    by_token["min_tokens"] = 1;
    EXPECT_EQ(wait(post(*p, kChat, with(by_token, prefill_params("b")))).json()["choices"][0]["finish_reason"],
              "length");
    EXPECT_GT(p->state().connector.blocks_held, 0U);

    Json by_string = chat("stop", 1);
    by_string["stop"] = first;
    Ask& leg = wait(post(*p, kChat, with(by_string, prefill_params("c"))));
    EXPECT_EQ(leg.json()["choices"][0]["finish_reason"], "stop");
    EXPECT_EQ(wait(post(*d, kChat, with(body, decode_params(*p, "c")))).text(), expected(body));
}

TEST_F(Mooncake, AWrongPairingGivesWrongTextAndPoisonsTheCache) {
    make_pair();
    const Json asked = chat("the right prompt, which is longer than one block of the cache, about 100 bytes of it");
    const Json other = chat("the other prompt, which is longer than one block of the cache, about 100 bytes of it");
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
    Json body = {{"prompt", Json::array({"prompt number one", "prompt number two"})}, {"max_tokens", 6}};
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

TEST_F(Mooncake, DanglingPullsTakeAllSeatsAndTheirClientsLeavingChangesNothing) {
    make_pair();
    std::vector<Ask*> bad;
    for (int i = 0; i < 24; ++i) {
        bad.push_back(&post(*d, kChat, with(chat("x"), decode_params(*p, "bad" + std::to_string(i)))));
        run_for(50ms);
    }
    EXPECT_EQ(p->state().connector.seats_taken, 20U);
    EXPECT_EQ(p->state().connector.pulls_queued, 4U);
    for (Ask* ask : bad) ask->leave();
    run_for(100ms);
    EXPECT_EQ(d->state().counters.cancelled, 24U);
    EXPECT_EQ(p->state().connector.seats_taken, 20U);
    EXPECT_EQ(p->state().connector.pulls_queued, 28U);  // a second, empty one of each
    EXPECT_EQ(d->state().scheduler.loading, 24U);       // their blocks are not free
    EXPECT_GT(d->state().scheduler.blocks_used, 0U);
    // A good pair behind them: P says 200, D fails.
    const Json body = chat("good");
    EXPECT_EQ(wait(post(*p, kChat, prefill(body, "good"))).status, 200);
    Ask& good = wait(post(*d, kChat, with(body, decode_params(*p, "good"))));
    EXPECT_EQ(good.status, 500);
    EXPECT_GT(good.took(), 8s);
}

TEST_F(Mooncake, ARescuePrefillFreesADanglingSeat) {
    make_pair();
    Ask& dangling = post(*d, kChat, with(chat("x"), decode_params(*p, "lost")));
    run_for(100ms);
    dangling.leave();
    run_for(100ms);
    EXPECT_EQ(p->state().connector.seats_taken, 2U);
    wait(post(*p, kChat, prefill(chat("x"), "lost")));
    run_for(100ms);
    EXPECT_LE(p->state().connector.seats_taken, 1U);
    EXPECT_EQ(d->state().scheduler.blocks_used, 0U);
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

TEST_F(Mooncake, CancellingThePrefillLeavesDWaiting) {
    EngineOptions slow = mooncake(KvRole::Producer, 8s);
    slow.timing.first_token = 2s;
    p = &add(slow);
    d = &add(mooncake(KvRole::Consumer, 8s));
    const Json body = chat("cut");
    Ask& leg = post(*p, kChat, prefill(body, "t"));
    Ask& ask = post(*d, kChat, with(body, decode_params(*p, "t")));
    run_for(1s);
    leg.leave();
    EXPECT_EQ(wait(ask).status, 500);
    EXPECT_GE(ask.took(), 8s);
    EXPECT_EQ(p->state().scheduler.blocks_used, 0U);
}

TEST_F(Mooncake, IncompleteParametersHangAndKillWhenTheClientLeaves) {
    make_pair();
    Json params = decode_params(*p, "t");
    params.erase("remote_engine_id");
    Ask& ask = post(*d, kChat, with(chat("x"), params));
    run_for(40s);
    EXPECT_FALSE(ask.done);
    EXPECT_TRUE(d->serving());
    ask.leave();
    run_for(100ms);
    EXPECT_FALSE(d->serving());
    EXPECT_EQ(get(*d, "/health").status, 503);
    run_for(2s);
    EXPECT_TRUE(d->dead());
    EXPECT_TRUE(get(*d, "/health").failed);
}

TEST_F(Mooncake, CrossedRolesKillTheEngine) {
    make_pair();
    EXPECT_EQ(wait(post(*p, kChat, with(chat("x"), decode_params(*p, "t")))).status, 500);
    EXPECT_EQ(wait(post(*d, kChat, prefill(chat("x"), "t"))).status, 500);
    run_for(2s);
    EXPECT_TRUE(p->dead());
    EXPECT_TRUE(d->dead());
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
    EXPECT_EQ(wait(post(*d, kChat, with(body, decode_params(*p, "t")))).text(), expected(chat("logprobs")));
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
        post(*p, kChat, prefill(body, transfer), "X-data-parallel-rank: " + std::to_string(rank) + "\r\n");
        EXPECT_EQ(wait(post(*d, kChat, with(body, decode_params(*p, transfer, static_cast<std::size_t>(rank))))).text(),
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
        EXPECT_EQ(send(p->bootstrap_address(), "GET", "/query").json()["0"]["worker_addr"].size(), p_size);
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
    Ask& leg = wait(post(*p, kChat, with(chat("old", 1), {{"do_remote_decode", true}, {"do_remote_prefill", false}}),
                         "X-Request-Id: same\r\n"));
    const Json params = leg.json()["kv_transfer_params"];
    EXPECT_EQ(params["do_remote_prefill"], true);
    EXPECT_EQ(params["remote_host"], "10.0.0.1");
    EXPECT_EQ(wait(post(*d, kChat, with(body, params), "X-Request-Id: same\r\n")).text(), expected(body));
    expect_idle(*p);
}

TEST_F(Mooncake, ThePullFaultsStrike) {
    make_pair();
    const Json body = chat("x");
    p->add_fault({.kind = FaultKind::PullFail});
    post(*p, kChat, prefill(body, "a"));
    Ask& failed = wait(post(*d, kChat, with(body, decode_params(*p, "a"))));
    EXPECT_EQ(failed.status, 500);
    EXPECT_LT(failed.took(), 1s);
    p->clear_faults();
    p->add_fault({.kind = FaultKind::PullHang});
    Ask& hangs = wait(post(*d, kChat, with(body, decode_params(*p, "b"))));
    EXPECT_EQ(hangs.status, 500);
    EXPECT_GE(hangs.took(), 68s);
}

}  // namespace
}  // namespace sluice::engine::test
