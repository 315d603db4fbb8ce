// SPDX-License-Identifier: Apache-2.0
// How the Mooncake hand-over fails: time-outs, seats, death and restarts, as real vLLM was seen to
// (facts: real-vllm.md, section 3).
#include "mooncake_bench.h"

namespace sluice::engine::test {
namespace {

TEST_F(Mooncake, ADecodeWithoutPrefillFailsAfterTheTimeout) {
    make_pair();
    Ask& ask = wait(post(*d, kChat, with(chat("x"), decode_params(*p, "nobody"))));
    EXPECT_EQ(ask.status, 500);
    EXPECT_EQ(
        ask.body,
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
    EXPECT_EQ(events[1],
              R"({"error": {"message": "Internal server error", "type": "InternalServerError", )"
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
    EXPECT_EQ(wait(post(*p, kChat, prefill(body, "t2"))).json()["choices"][0]["finish_reason"],
              "length");
    EXPECT_EQ(wait(cured).text(), expected(body));
}

TEST_F(Mooncake, AStopTokenLosesItTooButAStopStringDoesNot) {
    make_pair();
    const Json body = chat("stop");
    const std::string first = wait(post(*alone, kChat, chat("stop", 1).dump())).text();
    Json by_token = chat("stop", 1);
    by_token["stop_token_ids"] = Json::array({tokenize(first).front()});
    by_token["ignore_eos"] = true;
    EXPECT_EQ(wait(post(*p, kChat, with(by_token, prefill_params("a"))))
                  .json()["choices"][0]["finish_reason"],
              "stop");
    EXPECT_EQ(p->state().connector.blocks_held, 0U);
    by_token["min_tokens"] = 1;
    EXPECT_EQ(wait(post(*p, kChat, with(by_token, prefill_params("b"))))
                  .json()["choices"][0]["finish_reason"],
              "length");
    EXPECT_GT(p->state().connector.blocks_held, 0U);

    Json by_string = chat("stop", 1);
    by_string["stop"] = first;
    Ask& leg = wait(post(*p, kChat, with(by_string, prefill_params("c"))));
    EXPECT_EQ(leg.json()["choices"][0]["finish_reason"], "stop");
    EXPECT_EQ(wait(post(*d, kChat, with(body, decode_params(*p, "c")))).text(), expected(body));
}

TEST_F(Mooncake, DanglingPullsTakeAllSeatsAndTheirClientsLeavingChangesNothing) {
    make_pair();
    std::vector<Ask*> bad;
    for (int i = 0; i < 24; ++i) {
        bad.push_back(
            &post(*d, kChat, with(chat("x"), decode_params(*p, "bad" + std::to_string(i)))));
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
