// SPDX-License-Identifier: Apache-2.0
// Faults on demand, by option and by POST /sim/fault.
#include "bench.h"

namespace sluice::engine::test {
namespace {

class Faulty : public Bench {
protected:
    Ask& ask(bool stream = false) {
        Json body = chat("fault", 10);
        body["stream"] = stream;
        return wait(post(*engine, kChat, body.dump()));
    }
    void fault(std::string_view json) {
        Ask& set = wait(post(*engine, "/sim/fault", json));
        EXPECT_EQ(set.status, 200) << set.body;
    }
    Engine* engine = &add(plain());
};

TEST_F(Faulty, AStatusACountOfTimes) {
    fault(R"({"kind":"status","status":429,"count":2,"retry_after":7})");
    for (int i = 0; i < 2; ++i) {
        Ask& refused = ask();
        EXPECT_EQ(refused.status, 429);
        EXPECT_EQ(refused.fields["Retry-After"], "7");
        EXPECT_EQ(refused.json()["error"]["code"], 429);
    }
    EXPECT_EQ(ask().status, 200);
    EXPECT_EQ(get(*engine, "/health").status, 200);
}

TEST_F(Faulty, OnlyOnItsPathAndOnlySometimes) {
    fault(R"({"kind":"status","status":503,"path":"/health"})");
    EXPECT_EQ(get(*engine, "/health").status, 503);
    EXPECT_EQ(ask().status, 200);
    fault(R"({"kind":"clear"})");
    EXPECT_EQ(get(*engine, "/health").status, 200);
    fault(R"({"kind":"status","probability":0.5})");
    int refused = 0;
    for (int i = 0; i < 40; ++i) refused += ask().status == 500;
    EXPECT_GT(refused, 8);
    EXPECT_LT(refused, 32);
}

TEST_F(Faulty, HangsBeforeAndAfterTheHeaders) {
    fault(R"({"kind":"hang","count":1})");
    Ask& silent = post(*engine, kChat, chat("x").dump());
    run_for(600s);
    EXPECT_FALSE(silent.done);
    EXPECT_EQ(silent.status, 0);
    silent.leave();
    fault(R"({"kind":"hang_after_headers","count":1})");
    Json body = chat("x");
    body["stream"] = true;
    Ask& headers = post(*engine, kChat, body.dump());
    run_for(600s);
    EXPECT_FALSE(headers.done);
    EXPECT_EQ(headers.status, 200);
    EXPECT_EQ(headers.body, "");
    headers.leave();
    run_for(10ms);
    EXPECT_EQ(engine->state().generations_live, 0U);
}

TEST_F(Faulty, DiesErrsOrStopsInMidStream) {
    fault(R"({"kind":"die_mid_stream","after_events":3,"count":1})");
    Ask& broken = ask(true);
    EXPECT_TRUE(broken.failed);
    EXPECT_EQ(broken.events().size(), 4U);  // the role and three tokens
    fault(R"({"kind":"error_event","after_events":3,"count":1})");
    Ask& error = ask(true);
    EXPECT_FALSE(error.failed);
    EXPECT_EQ(error.events().size(), 6U);
    EXPECT_EQ(error.events()[5], "[DONE]");
    fault(R"({"kind":"stop_mid_stream","after_events":3,"count":1})");
    Json body = chat("fault", 10);
    body["stream"] = true;
    Ask& stuck = post(*engine, kChat, body.dump());
    run_for(60s);
    EXPECT_FALSE(stuck.done);
    EXPECT_EQ(stuck.events().size(), 4U);
    EXPECT_EQ(engine->state().scheduler.running, 0U);
    stuck.leave();
    run_for(10ms);
    EXPECT_EQ(engine->state().scheduler.blocks_used, 0U);
    EXPECT_EQ(engine->state().generations_live, 0U);
}

TEST_F(Faulty, AnswersThatAreNone) {
    fault(R"({"kind":"close_before_answer","count":1})");
    EXPECT_TRUE(ask().failed);
    fault(R"({"kind":"garbage","count":1})");
    EXPECT_TRUE(ask().failed);
    fault(R"({"kind":"garbage_body","count":1})");
    Ask& body = ask();
    EXPECT_EQ(body.status, 200);
    EXPECT_TRUE(body.json().is_discarded());
    fault(R"({"kind":"early_answer","status":418,"count":1})");
    EXPECT_EQ(ask().status, 418);
    EXPECT_EQ(ask().status, 200);
}

TEST_F(Faulty, FirstTokensThatEndOrAreSlow) {
    fault(R"({"kind":"eos_first","count":1})");
    const Json empty = ask().json();
    EXPECT_EQ(empty["choices"][0]["message"]["content"], "");
    EXPECT_EQ(empty["choices"][0]["finish_reason"], "stop");
    fault(R"({"kind":"slow_first_token","delay_ms":3000,"count":1})");
    EXPECT_GE(ask().took(), 3s);
    EXPECT_LT(ask().took(), 1s);
}

TEST_F(Faulty, RefusesAndRestarts) {
    const io::Address address = engine->address();
    fault(R"({"kind":"refuse","delay_ms":2000})");
    run_for(10ms);
    Ask& refused = ask();
    EXPECT_TRUE(refused.failed);
    EXPECT_EQ(refused.status, 0);
    run_for(2s);
    EXPECT_EQ(engine->address(), address);
    EXPECT_EQ(ask().status, 200);
    Ask& cut = post(*engine, kChat, chat("cut", 20).dump());
    run_for(20ms);
    engine->add_fault({.kind = FaultKind::Restart, .delay = 500ms});
    EXPECT_TRUE(wait(cut).failed);
    run_for(1s);
    EXPECT_EQ(ask().status, 200);
    EXPECT_EQ(engine->state().restarts, 1U);
}

TEST_F(Faulty, StartsSlowly) {
    EngineOptions slow = plain();
    slow.listen = *io::Address::from_ip("10.0.0.1", 8123);
    slow.faults.push_back({.kind = FaultKind::SlowStart, .delay = 3s});
    engine = &add(slow);
    EXPECT_FALSE(engine->serving());
    EXPECT_TRUE(ask().failed);
    run_for(4s);
    EXPECT_TRUE(engine->serving());
    EXPECT_EQ(ask().status, 200);
}

TEST_F(Faulty, DiesLikeVllm) {
    Json body = chat("x", 20);
    body["stream"] = true;
    Ask& running = post(*engine, kChat, body.dump());
    Ask& whole = post(*engine, kChat, chat("x", 20).dump());
    run_for(30ms);
    engine->add_fault({.kind = FaultKind::Die});
    wait(running);
    EXPECT_NE(running.body.find("\"code\": 500"), std::string::npos);
    EXPECT_EQ(wait(whole).status, 500);
    EXPECT_EQ(get(*engine, "/health").status, 503);
    EXPECT_EQ(ask().status, 500);
    run_for(2s);
    EXPECT_TRUE(engine->dead());
    EXPECT_TRUE(ask().failed);
}

TEST_F(Faulty, TheStateIsTold) {
    ask();
    fault(R"({"kind":"hang","count":1})");
    const Json state = get(*engine, "/sim/state").json();
    EXPECT_EQ(state["succeeded"], 1);
    EXPECT_EQ(state["blocks_used"], 0);
    EXPECT_EQ(state["active_faults"][0], "hang");
}

TEST(Faults, SpecsAreReadOrRefusedWithASentence) {
    EXPECT_EQ(parse_fault("status=429")->kind, FaultKind::Status);
    EXPECT_EQ(parse_fault("status=429")->status, 429);
    const auto fault =
        parse_fault("hang,count=3,path=/v1/completions,probability=0.5,delay_ms=20,after_events=4");
    ASSERT_TRUE(fault.has_value());
    EXPECT_EQ(fault->kind, FaultKind::Hang);
    EXPECT_EQ(fault->count, 3);
    EXPECT_EQ(fault->path, "/v1/completions");
    EXPECT_EQ(fault->delay, 20ms);
    EXPECT_EQ(fault->after_events, 4U);
    for (const char* bad :
         {"", "nonsense", "count=1", "status=42", "hang,count=x", "hang,probability=2", "hang,x=1",
          "{}", "{\"kind\":7}", "{\"kind\":\"hang\",\"count\":true}", "{broken"})
        EXPECT_FALSE(parse_fault(bad).has_value()) << bad;
}

}  // namespace
}  // namespace sluice::engine::test
