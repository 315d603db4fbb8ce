// SPDX-License-Identifier: Apache-2.0
// The proxy and stand-in engines as processes: what a client sees when all is well, and when it is
// not.
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <thread>

#include "fleet_fixture.h"
#include "support/http_bench.h"
#include "support/load.h"

namespace sluice::test {
namespace {

using namespace std::chrono_literals;

class PdTest : public FleetTest, public testing::WithParamInterface<bool> {
protected:
    FleetPlan plan(int prefills, int decodes) const {
        FleetPlan plan;
        plan.prefills = prefills;
        plan.decodes = decodes;
        plan.nixl = GetParam();
        return plan;
    }
    std::string single(const std::string& prompt) const {
        return text_of(http_call(decodes_[0].port, "POST", "/v1/chat/completions",
                                 R"({"model":"test-model","messages":[{"role":"user","content":")" +
                                     prompt + "\"}]}")
                           .body);
    }
};

TEST_P(PdTest, AnswersAsASingleEngineWouldPlainAndStreamed) {
    start(plan(1, 1));
    for (const std::string prompt :
         {"a", "Tell me a long story about artificial intelligence.", "again and again"}) {
        const std::string expected = single(prompt);
        ASSERT_FALSE(expected.empty());
        const HttpAnswer plain = chat(prompt);
        EXPECT_EQ(plain.status, 200) << plain.body;
        EXPECT_EQ(text_of(plain.body), expected);
        EXPECT_NE(plain.head.find("Server-Timing: queue;dur="), std::string::npos) << plain.head;
        EXPECT_NE(plain.head.find("prefill;dur="), std::string::npos) << plain.head;
        const HttpAnswer streamed =
            chat(prompt, true, R"(,"stream_options":{"include_usage":true})");
        EXPECT_EQ(streamed.status, 200);
        EXPECT_TRUE(streamed.complete);
        EXPECT_EQ(text_of(streamed.body), expected);
        EXPECT_NE(streamed.body.find("\"usage\":{"), std::string::npos);
        EXPECT_TRUE(streamed.body.ends_with("data: [DONE]\n\n"));
    }
    expect_at_rest();
}

// A plain request that is cut at D makes D ask P for blocks that are long gone, which takes one of
// P's 20 seats until the abort timeout (600 s here).
TEST_P(PdTest, ClientsThatLeaveTakeNoSeatOfThePrefill) {
    if (GetParam()) GTEST_SKIP() << "NIXL has no seats";
    FleetPlan patient = plan(1, 1);
    patient.abort_timeout_seconds = "600";
    patient.proxy_flags = {"--kv-relay", "off"};
    start(patient);
    // How far each has come when its client leaves is left to chance; most are in their decode.
    for (int i = 0; i < 24; ++i) chat("gone " + std::to_string(i), i % 3 == 2, {}, 0.15);
    expect_at_rest();
    EXPECT_GT(metric("sluice_decodes_detached_total"), 0);
    const HttpAnswer state = http_call(prefills_[0].port, "GET", "/sim/state", {});
    EXPECT_NE(state.body.find("\"seats_taken\":0,"), std::string::npos) << state.body;
    EXPECT_EQ(text_of(chat("still here").body), single("still here"));
}

TEST_P(PdTest, ClientParametersNeverReachAnEngine) {
    start(plan(1, 1));
    const HttpAnswer answer = chat(
        "hi", false,
        R"(,"kv_transfer_params":{"do_remote_prefill":true,"do_remote_decode":true,"remote_host":"evil"})");
    EXPECT_EQ(answer.status, 200) << answer.body;
    EXPECT_EQ(text_of(answer.body), single("hi"));
    const HttpAnswer twice =
        chat("hi", false, R"(,"kv_transfer_params":{},"kv\u005ftransfer_params":{})");
    EXPECT_EQ(twice.status, 400) << twice.body;
}

TEST_P(PdTest, SeveralChoicesAndPromptsAreServedByADecodeAlone) {
    start(plan(1, 1));
    const HttpAnswer choices = chat("hi", false, R"(,"n":2,"temperature":0.7)");
    EXPECT_EQ(choices.status, 200) << choices.body;
    EXPECT_EQ(metric("sluice_whole_on_decode_total{reason=\"several_choices\"}"), 1);
    const HttpAnswer prompts = http_call(proxy_port_, "POST", "/v1/completions",
                                         R"({"model":"test-model","prompt":["one","two"]})");
    EXPECT_EQ(prompts.status, 200) << prompts.body;
    EXPECT_EQ(metric("sluice_whole_on_decode_total{reason=\"several_prompts\"}"), 1);
    EXPECT_NE(prompts.body.find("\"index\":1"), std::string::npos) << prompts.body;
}

TEST_P(PdTest, OtherApisWork) {
    start(plan(1, 1));
    const HttpAnswer responses =
        http_call(proxy_port_, "POST", "/v1/responses",
                  R"({"model":"test-model","input":"hello","stream":true})");
    EXPECT_EQ(responses.status, 200);
    EXPECT_NE(responses.body.find("response.completed"), std::string::npos) << responses.body;
    const HttpAnswer messages = http_call(
        proxy_port_, "POST", "/v1/messages",
        R"({"model":"test-model","max_tokens":5,"messages":[{"role":"user","content":"hello"}]})");
    EXPECT_EQ(messages.status, 200) << messages.body;
    EXPECT_EQ(
        http_call(proxy_port_, "POST", "/tokenize", R"({"model":"test-model","prompt":"hello"})")
            .status,
        200);
    const HttpAnswer models = http_call(proxy_port_, "GET", "/v1/models");
    EXPECT_EQ(models.status, 200);
    EXPECT_NE(models.body.find("test-model"), std::string::npos);
    EXPECT_EQ(http_call(proxy_port_, "POST", "/pause", "{}").status, 404);
    EXPECT_EQ(http_call(proxy_port_, "GET", "/v1/chat/completions").status, 405);
}

// Several requests in one send, with P/D requests among those that the proxy answers itself: the
// quick ones wait for the slow ones before them.
TEST_P(PdTest, PipelinedRequestsAreAnsweredInOrder) {
    FleetPlan quick = plan(1, 1);
    quick.engine_flags = {"--sim-itl-ms", "1"};
    start(quick);
    const auto post = [](const std::string& path, const std::string& body) {
        return "POST " + path + " HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n" +
               "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
    };
    const auto chat_body = [](const char* prompt, bool stream) {
        return R"({"model":"test-model","stream":)" + std::string(stream ? "true" : "false") +
               R"(,"messages":[{"role":"user","content":")" + prompt + "\"}]}";
    };
    const std::string get = " HTTP/1.1\r\nHost: x\r\n";
    const auto answers = parse_answers(
        raw_call(proxy_port_,
                 "GET /version" + get + "\r\n" +
                     post("/v1/chat/completions", chat_body("first", false)) + "GET /health" + get +
                     "\r\n" + post("/v1/chat/completions", chat_body("second", true)) +
                     post("/tokenize", R"({"model":"test-model","prompt":"third"})") +
                     post("/v1/chat/completions", "no JSON") + "GET /nowhere" + get + "\r\n" +
                     "GET /healthcheck" + get + "Connection: close\r\n\r\n",
                 20),
        true);
    std::vector<int> statuses;
    for (const Answer& answer : answers) {
        statuses.push_back(answer.status);
        EXPECT_TRUE(answer.whole) << answer.head;
    }
    ASSERT_EQ(statuses, (std::vector{200, 200, 200, 200, 200, 400, 404, 200}));
    EXPECT_NE(answers[0].body.find("\"version\""), std::string::npos);
    EXPECT_EQ(text_of(answers[1].body), single("first"));
    EXPECT_EQ(text_of(answers[3].body), single("second"));
    EXPECT_TRUE(answers[3].body.ends_with("data: [DONE]\n\n"));
    EXPECT_NE(answers[4].body.find("\"tokens\""), std::string::npos) << answers[4].body;
    EXPECT_NE(answers[7].body.find("prefill_instances"), std::string::npos);
    expect_at_rest();
}

// One after the other and several at once. A turn is taken by an attempt, and none is repeated
// here, so the counts differ by at most one.
TEST_P(PdTest, DataParallelRanksOfAPrefillAreUsedEvenly) {
    if (GetParam()) GTEST_SKIP() << "a NIXL prefill chooses its rank itself";
    FleetPlan three = plan(1, 1);
    three.engine_flags = {"--data-parallel-size", "3", "--sim-ttft-ms", "1", "--sim-itl-ms", "0"};
    start(three);
    const std::string expected = single("same");
    std::atomic<int> right{0};
    std::vector<std::jthread> clients;
    for (int client = 0; client < 4; ++client)
        clients.emplace_back([&] {
            for (int i = 0; i < 20; ++i)
                right += text_of(chat("same", i % 2 == 0).body) == expected;
        });
    clients.clear();
    for (int i = 0; i < 20; ++i) right += text_of(chat("same").body) == expected;
    EXPECT_EQ(right, 100);
    const auto state =
        nlohmann::json::parse(http_call(prefills_[0].port, "GET", "/sim/state").body);
    const auto ranks = state["generations_by_rank"].get<std::vector<int>>();
    ASSERT_EQ(ranks.size(), 3u) << state.dump();
    const auto [least, most] = std::ranges::minmax(ranks);
    std::printf("requests by rank: %d %d %d\n", ranks[0], ranks[1], ranks[2]);
    EXPECT_EQ(ranks[0] + ranks[1] + ranks[2], 100);
    EXPECT_LE(most - least, 1);
    expect_at_rest();
}

TEST_P(PdTest, AnEnginesRefusalIsReturnedAsItIs) {
    start(plan(1, 1));
    const HttpAnswer model =
        http_call(proxy_port_, "POST", "/v1/chat/completions",
                  R"({"model":"nope","messages":[{"role":"user","content":"x"}]})");
    EXPECT_EQ(model.status, 404) << model.body;
    EXPECT_NE(model.body.find("does not exist"), std::string::npos) << model.body;
    const HttpAnswer streamed = http_call(proxy_port_, "POST", "/v1/chat/completions",
                                          R"({"model":"test-model","stream":true,"messages":[]})");
    EXPECT_EQ(streamed.status, 400) << streamed.body;
    EXPECT_NE(streamed.body.find("\"error\""), std::string::npos);
    expect_at_rest();
}

// With one of two instances dead or answering 500, no client sees an error.
TEST_P(PdTest, OneBadInstanceOfTwoIsNotSeen) {
    FleetPlan two = plan(2, 2);
    two.engine_flags = {"--sim-ttft-ms", "1", "--sim-itl-ms", "0", "--sim-output-tokens", "3"};
    start(two);
    const auto no_errors = [&](const char* what) {
        int errors = 0;
        for (int i = 0; i < 60; ++i) {
            const HttpAnswer answer = chat("p" + std::to_string(i), i % 2 == 0);
            if (answer.status != 200 || !answer.complete) {
                ++errors;
                std::printf("%s: %d %s\n", what, answer.status, answer.body.c_str());
            }
        }
        EXPECT_EQ(errors, 0) << what;
    };
    no_errors("all well");
    prefills_[0].fault(R"({"kind":"status","status":500,"count":-1})");
    no_errors("a prefill answers 500");
    prefills_[0].fault("");
    decodes_[1].fault(R"({"kind":"status","status":500,"count":-1})");
    no_errors("a decode answers 500");
    decodes_[1].fault("");
    prefills_[1].kill_hard();
    no_errors("a prefill is dead");
    prefills_[1].start();
    ASSERT_TRUE(wait_until_ok(prefills_[1].port, "/health", 30));
    // The keeper asks its bootstrap server again: until then a decode would be told the ids of its
    // former life.
    std::this_thread::sleep_for(1500ms);
    decodes_[0].kill_hard();
    no_errors("a decode is dead");
    decodes_[0].start();
    ASSERT_TRUE(wait_until_ok(decodes_[0].port, "/health", 30));
    std::this_thread::sleep_for(1500ms);  // breakers and probes
    no_errors("all are back");
    expect_at_rest();
}

TEST_P(PdTest, ARestartedPrefillIsUsedUnderItsNewId) {
    start(plan(1, 1));
    EXPECT_EQ(chat("before").status, 200);
    prefills_[0].kill_hard();
    EXPECT_GE(chat("down").status, 502);
    prefills_[0].start();
    ASSERT_TRUE(wait_until_ok(prefills_[0].port, "/health", 30));
    HttpAnswer after;
    for (int tries = 0; tries < 60 && after.status != 200; ++tries) {
        after = chat("after");
        if (after.status != 200) std::this_thread::sleep_for(100ms);
    }
    EXPECT_EQ(after.status, 200) << after.body;
    EXPECT_EQ(text_of(after.body), single("after"));
}

// Back before any probe could have missed it, under load. Under its old engine id a decode would
// wait until a deadline, and the client with it: 504. What may be seen is that nobody serves: 502
// and 503, and a decode's own 500, since a prefill that dies between its answer and the pull fails
// that pull. They may be seen only when no retry was left, which the log and the metrics show.
TEST_P(PdTest, APrefillThatIsRestartedAtOnceIsNeverUsedUnderItsOldId) {
    const std::string log = testing::TempDir() + "/restarts-" + std::to_string(::getpid()) + ".log";
    std::remove(log.c_str());
    FleetPlan quick = plan(1, 2);
    quick.engine_flags = {"--sim-ttft-ms", "1", "--sim-itl-ms", "0", "--sim-output-tokens", "3"};
    // What ended well is not logged but for one in a million.
    quick.proxy_flags = {"--health-interval", "3600", "--retries",           "2",
                         "--access-log",      log,    "--access-log-sample", "1000000"};
    start(quick);
    const std::string expected = single("same");
    std::atomic<bool> stop{false};
    std::atomic<int> right{0}, refused{0}, decodes_word{0}, other{0};
    std::vector<std::thread> clients;
    for (int i = 0; i < 4; ++i)
        clients.emplace_back([&, i] {
            for (int n = 0; !stop; ++n) {
                const HttpAnswer answer = chat("same", (n + i) % 2 == 0);
                if (answer.status == 200 && text_of(answer.body) == expected) {
                    ++right;
                } else if (answer.status == 502 || answer.status == 503) {
                    ++refused;
                    std::this_thread::sleep_for(2ms);
                } else if (answer.status == 500) {
                    ++decodes_word;
                } else if (++other < 5) {
                    std::printf("%d %s\n", answer.status, answer.body.c_str());
                }
            }
        });
    for (int life = 0; life < 5; ++life) {
        const int before = right;
        while (right < before + 20 && other == 0) std::this_thread::sleep_for(1ms);
        prefills_[0].kill_hard();
        prefills_[0].start();
    }
    const int before = right;
    while (right < before + 20 && other == 0) std::this_thread::sleep_for(1ms);
    stop = true;
    for (auto& client : clients) client.join();
    EXPECT_EQ(other, 0);
    expect_at_rest();

    // By status and attempts. A thread of its own writes the log.
    std::map<std::pair<int, int>, int> failures;
    int logged = 0;
    for (int tries = 0; tries < 200 && logged < refused + decodes_word; ++tries) {
        std::this_thread::sleep_for(25ms);
        failures.clear();
        logged = 0;
        std::ifstream lines(log);
        for (std::string line; std::getline(lines, line);) {
            const auto record = nlohmann::json::parse(line, nullptr, false);
            // Not the fleet's start, when /ready says no.
            if (!record.is_object() || !record.contains("attempts") || record["status"] == 200)
                continue;
            ++failures[{record["status"].get<int>(), record["attempts"].get<int>()}];
            ++logged;
        }
    }
    int given_up = 0;
    for (const auto& [kind, count] : failures) {
        std::printf("%d after %d attempts: %d\n", kind.first, kind.second, count);
        if (kind.first >= 500 && kind.first != 503 && kind.second <= 2) given_up += count;
    }
    const double denied = metric("sluice_retries_denied_total");
    std::printf(
        "5 restarts: %d right, %d refused meanwhile, %d a decode's 500, %d else; %g retries "
        "denied by the budget\n",
        right.load(), refused.load(), decodes_word.load(), other.load(), denied);
    EXPECT_EQ(logged, refused + decodes_word);
    EXPECT_EQ(given_up, denied) << "a failure was handed on though a retry was due";
}

TEST_P(PdTest, HungInstancesEndWithinTheDeadlines) {
    FleetPlan one = plan(1, 1);
    one.proxy_flags = {"--prefill-timeout", "1", "--first-token-timeout", "1", "--retries", "0",
                       "--idle-timeout",    "1", "--request-timeout",     "4"};
    start(one);
    prefills_[0].fault(R"({"kind":"hang","count":1})");
    EXPECT_EQ(chat("x", true).status, 504);
    decodes_[0].fault(R"({"kind":"hang_after_headers","count":1})");
    EXPECT_EQ(chat("y", true).status, 504);
    decodes_[0].fault(R"({"kind":"hang","count":1})");
    EXPECT_EQ(chat("z", false).status, 504);
    HttpAnswer again;
    for (int tries = 0; tries < 50 && again.status != 200; ++tries) {
        again = chat("again", true);
        std::this_thread::sleep_for(100ms);
    }
    EXPECT_EQ(again.status, 200);
    expect_at_rest();
}

TEST_P(PdTest, ADecodeThatDiesMidStreamLeavesAVisiblyBrokenAnswer) {
    FleetPlan one = plan(1, 1);
    one.engine_flags = {"--sim-itl-ms", "5", "--sim-output-tokens", "40"};
    start(one);
    decodes_[0].fault(R"({"kind":"die_mid_stream","count":1,"after_events":3})");
    const HttpAnswer broken = chat("x", true);
    EXPECT_EQ(broken.status, 200);
    EXPECT_FALSE(broken.complete);
    EXPECT_NE(broken.body.find("data: {\"error\""), std::string::npos) << broken.body;
    EXPECT_EQ(broken.body.find("[DONE]"), std::string::npos);
    expect_at_rest();
}

// A client that leaves takes its decode leg with it. A prefill that runs is closed with NIXL, and
// left to finish with Mooncake, where a cut would pin blocks.
TEST_P(PdTest, WhatBecomesOfLegsWhoseClientHasLeft) {
    FleetPlan slow = plan(1, 1);
    slow.engine_flags = {"--sim-ttft-ms", "1500"};
    start(slow);
    const auto state_of = [](const EngineProcess& engine) {
        return nlohmann::json::parse(http_call(engine.port, "GET", "/sim/state").body);
    };
    nlohmann::json prefill;
    const auto look = [&] { return prefill = state_of(prefills_[0]); };
    for (double patience = 0.3; look()["generations"] == 0 && patience < 1.5; patience *= 2)
        chat("leaves during its prefill", true, {}, patience);
    expect_at_rest();
    for (int tries = 0; tries < 400 && look()["generations_live"] != 0; ++tries)
        std::this_thread::sleep_for(10ms);
    EXPECT_EQ(prefill["generations"], 1);
    EXPECT_EQ(prefill["cancelled"], GetParam() ? 1 : 0) << prefill.dump();
    EXPECT_EQ(prefill["succeeded"], GetParam() ? 0 : 1) << prefill.dump();
    EXPECT_EQ(metric("sluice_prefills_detached_total"), GetParam() ? 0 : 1);
    EXPECT_EQ(state_of(decodes_[0])["generations_live"], 0);
}

// With nobody to prefill the answer is 503 and when to come again, unless a decode may do all of
// it.
TEST_P(PdTest, WithoutAPrefillADecodeServesAloneIfItMay) {
    for (const bool may : {false, true}) {
        FleetPlan one = plan(1, 1);
        one.engine_flags = {"--sim-itl-ms", "1"};
        if (may) one.proxy_flags = {"--decode-fallback"};
        start(one);
        const std::string expected = single("alone");
        prefills_[0].kill_hard();
        const std::string up =
            "sluice_instance_up{role=\"prefill\",instance=\"" + prefills_[0].url() + "\"}";
        for (int tries = 0; tries < 1000 && metric(up) != 0; ++tries)
            std::this_thread::sleep_for(10ms);
        for (const bool stream : {false, true}) {
            const HttpAnswer answer = chat("alone", stream);
            EXPECT_EQ(answer.status, may ? 200 : 503) << answer.body;
            if (may) {
                EXPECT_EQ(text_of(answer.body), expected);
            } else {
                EXPECT_NE(answer.head.find("\r\nRetry-After: "), std::string::npos) << answer.head;
            }
        }
        EXPECT_EQ(metric("sluice_decode_fallbacks_total"), may ? 2 : 0);
        expect_at_rest();
        stop();
    }
}

// Streams that outlast --drain-timeout are cut, visibly, and the proxy ends all the same.
TEST_P(PdTest, ADrainDoesNotLastForEver) {
    FleetPlan slow = plan(1, 1);
    slow.engine_flags = {"--sim-itl-ms", "100", "--sim-output-tokens", "400"};
    slow.proxy_flags = {"--drain-timeout", "0.3"};
    start(slow);
    HttpAnswer streamed;
    std::thread client([&] { streamed = chat("long", true, {}, 30); });
    for (int tries = 0; metric("sluice_time_to_first_token_seconds_count") < 1 && tries < 2000;
         ++tries)
        std::this_thread::sleep_for(10ms);
    proxy_->signal(SIGTERM);
    client.join();
    EXPECT_EQ(streamed.status, 200);
    EXPECT_FALSE(streamed.complete);
    EXPECT_EQ(streamed.body.find("[DONE]"), std::string::npos);
    EXPECT_EQ(proxy_->wait(20), 0) << proxy_->log();
}

TEST_P(PdTest, SigtermFinishesStreamsAndExitsWithZero) {
    FleetPlan slow = plan(1, 1);
    slow.engine_flags = {"--sim-itl-ms", "20", "--sim-output-tokens", "40"};
    start(slow);
    HttpAnswer streamed;
    std::thread client([&] { streamed = chat("long", true); });
    std::this_thread::sleep_for(300ms);
    proxy_->signal(SIGTERM);
    int status = 200;  // until it no longer accepts
    for (int tries = 0; status != 0 && tries < 1000; ++tries)
        status = http_call(proxy_port_, "GET", "/health", {}, {}, 1).status;
    EXPECT_EQ(status, 0);
    client.join();
    EXPECT_EQ(streamed.status, 200);
    EXPECT_TRUE(streamed.complete);
    EXPECT_EQ(proxy_->wait(20), 0) << proxy_->log();
}

TEST_P(PdTest, OverloadIsAnsweredAtOnce) {
    FleetPlan slow = plan(1, 1);
    slow.engine_flags = {"--sim-ttft-ms", "300"};
    slow.proxy_flags = {"--max-in-flight", "2", "--queue-size", "2", "--queue-timeout", "0.1"};
    start(slow);
    std::map<int, std::atomic<int>> statuses;
    for (const int status : {200, 429, 503}) statuses[status] = 0;
    std::vector<std::thread> clients;
    for (int i = 0; i < 10; ++i)
        clients.emplace_back([&, i] {
            const int status = chat("x" + std::to_string(i)).status;
            if (statuses.contains(status)) ++statuses[status];
        });
    for (auto& client : clients) client.join();
    EXPECT_EQ(statuses[200] + statuses[429] + statuses[503], 10);
    EXPECT_GE(statuses[200], 2);
    EXPECT_GE(statuses[429], 1);
    expect_at_rest();
}

TEST_F(FleetTest, TheUpstreamKeyIsTheProxysOwnElseTheClients) {
    for (const bool own : {true, false}) {
        FleetPlan locked;
        locked.engine_flags = {"--api-key", "engine-key", "--sim-itl-ms", "1"};
        if (own) locked.proxy_flags = {"--upstream-api-key", "engine-key"};
        start(locked);
        const std::string body =
            R"({"model":"test-model","messages":[{"role":"user","content":"x"}]})";
        const auto status = [&](const std::string& fields) {
            return http_call(proxy_port_, "POST", "/v1/chat/completions", body, fields).status;
        };
        EXPECT_EQ(status(""), own ? 200 : 401);
        EXPECT_EQ(status("Authorization: Bearer wrong\r\n"), own ? 200 : 401);
        EXPECT_EQ(status("Authorization: Bearer engine-key\r\n"), 200);
        expect_at_rest();
        stop();
    }
}

// vLLM 0.13 to 0.15: P, then D with what P returned, and under the same X-Request-Id, without which
// the engine does not find the blocks.
TEST_F(FleetTest, TheSequentialMooncakeContractOfOldVersionsWorks) {
    FleetPlan old;
    old.engine_flags = {"--sim-version", "0.15.1", "--sim-itl-ms", "1"};
    old.proxy_flags = {"--kv-connector", "mooncake", "--retries", "0"};
    start(old);
    const std::string prompt = "Tell me a long story about artificial intelligence.";
    const std::string body =
        R"({"model":"test-model","messages":[{"role":"user","content":")" + prompt + "\"}]}";
    const std::string expected =
        text_of(http_call(decodes_[0].port, "POST", "/v1/chat/completions", body).body);
    ASSERT_FALSE(expected.empty());
    for (int i = 0; i < 6; ++i) {
        const HttpAnswer answer = chat(prompt, i % 2 == 0);
        EXPECT_EQ(answer.status, 200) << answer.body;
        EXPECT_TRUE(answer.complete);
        EXPECT_EQ(text_of(answer.body), expected);
    }
    const HttpAnswer named = http_call(proxy_port_, "POST", "/v1/chat/completions", body,
                                       "X-Request-Id: the-clients-own\r\n");
    EXPECT_EQ(text_of(named.body), expected);
    EXPECT_NE(named.head.find("\r\nX-Request-Id: the-clients-own\r\n"), std::string::npos);
    EXPECT_EQ(metric("sluice_requests_total{path=\"/v1/chat/completions\",dialect=\"mooncake-"
                     "sequential\",outcome=\"ok\"}"),
              7)
        << http_call(proxy_port_, "GET", "/metrics").body;
    const auto state =
        nlohmann::json::parse(http_call(prefills_[0].port, "GET", "/sim/state").body);
    EXPECT_EQ(state["transfers"], 7) << state.dump();
    expect_at_rest();
}

INSTANTIATE_TEST_SUITE_P(Dialects, PdTest, testing::Bool(), [](const auto& parameter) {
    return parameter.param ? "nixl" : "mooncake";
});

#ifdef SLUICE_SLOW_BUILD
constexpr std::uint64_t kRequests = 10'000;
#else
constexpr std::uint64_t kRequests = 100'000;
#endif

// 100,000 requests while engines misbehave at random and clients leave: each ends with the right
// answer or an error, and everything returns to its start values. SLUICE_E2E_REQUESTS sets another
// number.
TEST_F(FleetTest, RandomFaultsLeaveNothingBehind) {
    FleetPlan plan;
    plan.prefills = plan.decodes = 2;
    plan.engine_flags = {"--sim-ttft-ms", "1", "--sim-itl-ms", "0", "--sim-output-tokens", "4"};
    plan.proxy_flags = {"--prefill-timeout", "2", "--first-token-timeout", "2",
                        "--idle-timeout",    "2", "--request-timeout",     "8"};
    plan.abort_timeout_seconds = "2";
    start(plan);
    constexpr int kPrompts = 16;
    std::vector<std::string> expected;
    for (int i = 0; i < kPrompts; ++i)
        expected.push_back(text_of(chat("prompt " + std::to_string(i)).body));
    ASSERT_FALSE(expected[0].empty());
    expect_at_rest();
    const int descriptors = proxy_->open_descriptors();
    for (const auto* role : {&prefills_, &decodes_})
        for (const EngineProcess& engine : *role) {
            engine.fault(R"({"kind":"status","status":500,"count":-1,"probability":0.01})");
            engine.fault(R"({"kind":"status","status":503,"count":-1,"probability":0.01})");
            engine.fault(R"({"kind":"status","status":400,"count":-1,"probability":0.005})");
            engine.fault(R"({"kind":"close_before_answer","count":-1,"probability":0.01})");
            engine.fault(
                R"({"kind":"die_mid_stream","after_events":2,"count":-1,"probability":0.005})");
            engine.fault(R"({"kind":"hang","count":-1,"probability":0.0005})");
        }

    const char* asked = std::getenv("SLUICE_E2E_REQUESTS");
    LoadPlan load;
    load.target = *io::Address::from_ip("127.0.0.1", static_cast<std::uint16_t>(proxy_port_));
    load.requests = asked != nullptr ? std::strtoull(asked, nullptr, 10) : kRequests;
    load.concurrency = 64;
    load.seconds_max = 900;
    std::uint64_t right = 0, errors = 0, broken = 0, wrong = 0;
    std::map<std::string, int> kinds;  // of errors
    load.make = [](std::uint64_t number) {
        LoadRequest request;
        request.path = "/v1/chat/completions";
        request.body = R"({"model":"test-model","stream":)" +
                       std::string(number % 3 == 0 ? "false" : "true") +
                       R"(,"messages":[{"role":"user","content":"prompt )" +
                       std::to_string(number % kPrompts) + "\"}]}";
        if (number % 20 == 7) request.leave_after_ms = static_cast<double>(number % 13);
        return request;
    };
    load.judge = [&](std::uint64_t number, const LoadAnswer& answer) {
        if (answer.failed) {
            ++broken;
        } else if (answer.status == 200) {
            const bool good = text_of(answer.body) == expected[number % kPrompts];
            ++(good ? right : wrong);
            if (!good && wrong < 5) std::printf("wrong: %s\n", answer.body.c_str());
        } else {
            ++errors;
            ++kinds[std::to_string(answer.status) + " " + answer.body.substr(0, 90)];
            const bool known =
                answer.status == 400 || (answer.status >= 500 && answer.status <= 504);
            if (!known || answer.body.find("\"error\"") == std::string::npos) ++wrong;
        }
    };
    EXPECT_EQ(run_load(load), load.requests) << "some requests did not end";
    std::printf("%llu requests: %llu right, %llu errors, %llu broken, %llu wrong\n",
                static_cast<unsigned long long>(load.requests),
                static_cast<unsigned long long>(right), static_cast<unsigned long long>(errors),
                static_cast<unsigned long long>(broken), static_cast<unsigned long long>(wrong));
    for (const auto& [kind, count] : kinds) std::printf("%7d  %s\n", count, kind.c_str());
    EXPECT_EQ(wrong, 0u);
    EXPECT_GT(right, load.requests / 2);
    EXPECT_GT(errors, 0u);
    for (const auto* role : {&prefills_, &decodes_})
        for (const EngineProcess& engine : *role) engine.fault("");
    std::this_thread::sleep_for(3s);  // idle upstream connections retire
    expect_at_rest();
    EXPECT_LE(proxy_->open_descriptors(), descriptors + 10);
    EXPECT_TRUE(prefills_[0].process->running() && decodes_[0].process->running());
}

}  // namespace
}  // namespace sluice::test
