// SPDX-License-Identifier: Apache-2.0
// The KV relay between stand-in engines as processes: D's pulls go through the proxy, and whatever
// dies, nobody waits for it and nothing stays held. The engines' own time-out is a minute, far
// beyond what these tests wait for.
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <nlohmann/json.hpp>
#include <random>
#include <thread>

#include "fleet_fixture.h"
#include "support/load.h"

namespace sluice::test {
namespace {

using namespace std::chrono_literals;
using Json = nlohmann::json;

class RelayTest : public FleetTest {
protected:
    static FleetPlan plan(int prefills, int decodes) {
        FleetPlan plan;
        plan.prefills = prefills;
        plan.decodes = decodes;
        plan.abort_timeout_seconds = "60";
        plan.engine_flags = {"--sim-itl-ms", "1", "--sim-output-tokens", "10"};
        plan.proxy_flags = {"--kv-relay", "control", "--retries", "0"};
        return plan;
    }
    static Json state(const EngineProcess& engine) {
        return Json::parse(http_call(engine.port, "GET", "/sim/state").body, nullptr, false);
    }
    static int count(const EngineProcess& engine, const char* what) {
        return state(engine).value(what, -1);
    }
    static bool soon(const std::function<bool()>& holds) {
        for (int tries = 0; tries < 500; ++tries) {
            if (holds()) return true;
            std::this_thread::sleep_for(10ms);
        }
        return false;
    }
    // Nothing waits, nothing is held, on either side.
    void expect_nothing_held() {
        for (const EngineProcess& engine : prefills_) {
            if (!engine.process->running()) continue;
            EXPECT_TRUE(soon([&] {
                return count(engine, "blocks_held") == 0 && count(engine, "seats_taken") == 0 &&
                       count(engine, "pulls_queued") == 0 && count(engine, "blocks_used") == 0;
            })) << state(engine).dump();
        }
        for (const EngineProcess& engine : decodes_) {
            if (!engine.process->running()) continue;
            EXPECT_TRUE(soon([&] {
                return count(engine, "pulls_waiting") == 0 && count(engine, "blocks_used") == 0;
            })) << state(engine).dump();
        }
        EXPECT_TRUE(soon([&] {
            return metric("sluice_relay_open_pulls") == 0 &&
                   metric("sluice_relay_open_transfers") == 0;
        })) << http_call(proxy_port_, "GET", "/metrics").body;
        for (const EngineProcess& engine : prefills_)
            EXPECT_EQ(metric("sluice_relay_early{instance=\"" + engine.url() + "\"}"), 0);
    }
    std::string single(const std::string& prompt) const {
        return text_of(http_call(decodes_[0].port, "POST", "/v1/chat/completions",
                                 R"({"model":"test-model","messages":[{"role":"user","content":")" +
                                     prompt + "\"}]}")
                           .body);
    }
};

TEST_F(RelayTest, EveryPullGoesThroughItAndTheTextIsRight) {
    for (const int workers : {1, 3}) {
        FleetPlan some = plan(2, 2);
        some.proxy_flags.insert(some.proxy_flags.end(), {"--workers", std::to_string(workers)});
        start(some);
        std::vector<std::string> prompts, right;
        for (int i = 0; i < 40; ++i)
            prompts.push_back(std::to_string(i) +
                              std::string(static_cast<std::size_t>(i * 37), 'x'));
        for (const std::string& prompt : prompts) right.push_back(single(prompt));
        LoadPlan load;
        load.target = *io::Address::from_ip("127.0.0.1", static_cast<std::uint16_t>(proxy_port_));
        load.requests = 200;
        load.concurrency = 16;
        int wrong = 0;
        load.make = [&](std::uint64_t n) {
            return LoadRequest{"/v1/chat/completions",
                               R"({"model":"test-model","stream":)" +
                                   std::string(n % 2 == 0 ? "true" : "false") +
                                   R"(,"messages":[{"role":"user","content":")" +
                                   prompts[n % prompts.size()] + "\"}]}"};
        };
        load.judge = [&](std::uint64_t n, const LoadAnswer& answer) {
            if (answer.status != 200 || text_of(answer.body) != right[n % right.size()]) {
                ++wrong;
                std::printf("%llu: %d %s\n", static_cast<unsigned long long>(n), answer.status,
                            answer.body.substr(0, 300).c_str());
            }
        };
        EXPECT_EQ(run_load(load), 200U);
        EXPECT_EQ(wrong, 0);
        EXPECT_TRUE(soon([&] { return metric("sluice_relay_completed_total") == 200; }));
        EXPECT_EQ(metric("sluice_relay_handed_on_total"), 200);
        EXPECT_EQ(metric("sluice_relay_failed_total"), 0);
        EXPECT_EQ(metric("sluice_relay_way{instance=\"" + decodes_[0].url() + "\"}"), 1);
        expect_nothing_held();
        TearDown();
        proxy_.reset();
        prefills_.clear();
        decodes_.clear();
    }
}

TEST_F(RelayTest, ARefusedPrefillFreesItsDecodeAtOnce) {
    start(plan(1, 1));
    ASSERT_EQ(chat("first").status, 200);
    for (const int status : {500, 503, 400}) {
        prefills_[0].fault(R"({"kind":"status","count":1,"status":)" + std::to_string(status) +
                           "}");
        EXPECT_EQ(chat("refused").status, status);
        expect_nothing_held();
    }
    EXPECT_EQ(text_of(chat("again").body), single("again"));
}

TEST_F(RelayTest, AKilledPrefillFreesItsDecodeAtOnceAndIsReplaced) {
    FleetPlan two = plan(1, 1);
    two.proxy_flags.insert(two.proxy_flags.end(), {"--kv-relay-early", "0"});
    start(two);
    ASSERT_EQ(chat("first").status, 200);
    prefills_[0].fault(R"({"kind":"slow_first_token","delay_ms":30000,"count":1})");
    std::thread client([&] { EXPECT_GE(chat("killed").status, 500); });
    ASSERT_TRUE(soon([&] { return count(decodes_[0], "pulls_waiting") == 1; }));
    EXPECT_EQ(count(prefills_[0], "seats_taken"), 0);  // it waits with the proxy
    prefills_[0].kill_hard();
    client.join();
    expect_nothing_held();
    prefills_[0].start();
    ASSERT_TRUE(wait_until_ok(prefills_[0].port, "/health", 30));
    // Until its bootstrap server was asked again it would be asked under the ids of its former
    // life.
    std::this_thread::sleep_for(1500ms);
    EXPECT_EQ(text_of(chat("back").body), single("back"));
    expect_nothing_held();
}

// Handed on before it was done: the prefill's connection says that it has died.
TEST_F(RelayTest, AKilledPrefillThatHasThePullFreesItsDecodeToo) {
    start(plan(1, 1));
    for (int i = 0; i < 3; ++i) ASSERT_EQ(chat("first").status, 200);
    prefills_[0].fault(R"({"kind":"slow_first_token","delay_ms":30000,"count":1})");
    std::thread client([&] { EXPECT_GE(chat("killed").status, 500); });
    ASSERT_TRUE(soon([&] { return count(prefills_[0], "seats_taken") == 1; }));
    prefills_[0].kill_hard();
    client.join();
    expect_nothing_held();
}

TEST_F(RelayTest, AStoppedPrefillCostsItsOwnTimeoutAndNoMore) {
    FleetPlan one = plan(1, 1);
    one.proxy_flags.insert(one.proxy_flags.end(),
                           {"--prefill-timeout", "1", "--kv-relay-early", "0"});
    start(one);
    ASSERT_EQ(chat("first").status, 200);
    prefills_[0].process->signal(SIGSTOP);
    EXPECT_EQ(chat("stopped").status, 504);
    EXPECT_TRUE(soon([&] { return count(decodes_[0], "pulls_waiting") == 0; }));
    prefills_[0].process->signal(SIGCONT);
    expect_nothing_held();
}

// It may still write into the decode, which is told when it goes on: at once, not after a time-out,
// since its late prefill was not cut.
TEST_F(RelayTest, AStoppedPrefillThatHasThePullFreesItsDecodeWhenItGoesOn) {
    FleetPlan one = plan(1, 1);
    one.proxy_flags.insert(one.proxy_flags.end(), {"--prefill-timeout", "1"});
    start(one);
    for (int i = 0; i < 3; ++i) ASSERT_EQ(chat("first").status, 200);
    prefills_[0].fault(R"({"kind":"slow_first_token","delay_ms":3000,"count":1})");
    std::thread client([&] { EXPECT_EQ(chat("stopped").status, 504); });
    ASSERT_TRUE(soon([&] { return count(prefills_[0], "seats_taken") == 1; }));
    prefills_[0].process->signal(SIGSTOP);
    client.join();
    prefills_[0].process->signal(SIGCONT);
    expect_nothing_held();
}

// A decode whose connection to the relay ends before the prefill's word waits for its time-out.
TEST_F(RelayTest, AShutDownWaitsForThePullsThatAPrefillHas) {
    start(plan(1, 1));
    for (int i = 0; i < 3; ++i) ASSERT_EQ(chat("first").status, 200);
    prefills_[0].fault(R"({"kind":"slow_first_token","delay_ms":1500,"count":1})");
    std::thread client([&] { chat("left", true, {}, 0.7); });
    ASSERT_TRUE(soon([&] { return count(prefills_[0], "seats_taken") == 1; }));
    client.join();
    proxy_->signal(SIGTERM);
    EXPECT_EQ(proxy_->wait(20), 0) << proxy_->log();
    EXPECT_EQ(count(prefills_[0], "seats_taken"), 0);
    EXPECT_TRUE(soon([&] {
        return count(decodes_[0], "pulls_waiting") == 0 && count(decodes_[0], "blocks_used") == 0;
    })) << state(decodes_[0]).dump();
    EXPECT_EQ(count(decodes_[0], "failed_receives"), 0);
}

TEST_F(RelayTest, APrefillThatEndsAtItsFirstTokenIsAnsweredByTheDecodeAlone) {
    start(plan(1, 1));
    const std::string right = single("stops");
    prefills_[0].fault(R"({"kind":"eos_first","count":1})");
    const HttpAnswer answer = chat("stops");
    EXPECT_EQ(answer.status, 200) << answer.body;
    EXPECT_EQ(text_of(answer.body), right);
    expect_nothing_held();
}

TEST_F(RelayTest, ADecodeThatNeverPullsLeavesNothingOnThePrefill) {
    FleetPlan two = plan(1, 2);
    two.proxy_flags = {"--kv-relay", "control", "--retries", "2", "--first-token-timeout", "1"};
    start(two);
    for (int i = 0; i < 8; ++i) ASSERT_EQ(chat("both" + std::to_string(i)).status, 200);
    const double released = metric("sluice_relay_released_total");
    decodes_[0].fault(R"({"kind":"hang","count":-1})");
    // Until the hung one was chosen: which it is, is a matter of dice.
    for (int i = 0; i < 40 && metric("sluice_relay_released_total") == released; ++i) {
        const std::string prompt = "hung" + std::to_string(i);
        const HttpAnswer answer = chat(prompt, true);
        EXPECT_EQ(answer.status, 200);
        decodes_[0].fault("");
        EXPECT_EQ(text_of(answer.body), single(prompt));
        decodes_[0].fault(R"({"kind":"hang","count":-1})");
    }
    expect_nothing_held();
    EXPECT_GT(metric("sluice_relay_released_total"), released);
    EXPECT_EQ(metric("sluice_relay_unreleased_total"), 0);
}

TEST_F(RelayTest, AKilledDecodeIsReplacedAndNothingStaysHeld) {
    FleetPlan two = plan(1, 2);
    two.proxy_flags = {"--kv-relay", "control", "--retries", "2"};
    start(two);
    for (int i = 0; i < 8; ++i) ASSERT_EQ(chat("both" + std::to_string(i)).status, 200);
    const std::string right = single("killed");
    prefills_[0].fault(R"({"kind":"slow_first_token","delay_ms":1000,"count":1})");
    HttpAnswer answer;
    std::thread client([&] { answer = chat("killed"); });
    int with = -1;
    ASSERT_TRUE(soon([&] {
        for (int i = 0; i < 2; ++i)
            if (count(decodes_[static_cast<std::size_t>(i)], "pulls_waiting") == 1) with = i;
        return with >= 0;
    }));
    decodes_[static_cast<std::size_t>(with)].kill_hard();
    client.join();
    EXPECT_EQ(answer.status, 200) << answer.body;
    EXPECT_EQ(text_of(answer.body), right);
    expect_nothing_held();
}

TEST_F(RelayTest, TwoHundredClientsThatLeaveAtRandomLeaveNothing) {
    FleetPlan some = plan(2, 2);
    some.proxy_flags = {"--kv-relay", "control", "--workers", "2"};
    some.engine_flags = {"--sim-ttft-ms", "20", "--sim-itl-ms", "5", "--sim-output-tokens", "20"};
    start(some);
    for (int i = 0; i < 4; ++i) ASSERT_EQ(chat("first").status, 200);
    std::mt19937 dice(5);
    LoadPlan load;
    load.target = *io::Address::from_ip("127.0.0.1", static_cast<std::uint16_t>(proxy_port_));
    load.requests = 200;
    load.concurrency = 40;
    load.make = [&](std::uint64_t n) {
        return LoadRequest{
            "/v1/chat/completions",
            R"({"model":"test-model","stream":)" + std::string(n % 2 == 0 ? "true" : "false") +
                R"(,"messages":[{"role":"user","content":"leaves )" + std::to_string(n) + "\"}]}",
            static_cast<double>(dice() % 80)};
    };
    int seats = 0, queued = 0;
    double early = 0;
    std::atomic<bool> over{false};
    std::thread watch([&] {
        while (!over) {
            for (const EngineProcess& engine : prefills_) {
                const Json now = state(engine);
                seats = std::max(seats, now.value("seats_taken", 0));
                queued = std::max(queued, now.value("pulls_queued", 0));
                early = std::max(early,
                                 metric("sluice_relay_early{instance=\"" + engine.url() + "\"}"));
            }
            std::this_thread::sleep_for(5ms);
        }
    });
    EXPECT_EQ(run_load(load), 200U);
    over = true;
    watch.join();
    // A pull that was handed on when its prefill was done has a seat, too, while it is served; so
    // the seats may be more than the early ones. What must not happen is that somebody waits for a
    // seat.
    std::printf("at most %d seats taken, %.0f handed on early, %d without a seat\n", seats, early,
                queued);
    EXPECT_LE(early, 8 + 1);  // two workers look at the count at the same moment
    EXPECT_EQ(queued, 0);
    expect_nothing_held();
    const HttpAnswer answer = chat("and then");
    EXPECT_EQ(text_of(answer.body), single("and then"));
}

// Nobody listens at the address that decodes are given.
TEST_F(RelayTest, WithoutAWayToItRequestsAreServedDirectly) {
    FleetPlan lost = plan(1, 1);
    lost.proxy_flags.insert(lost.proxy_flags.end(), {"--kv-relay-host", "127.0.0.77"});
    start(lost);
    for (int i = 0; i < 5; ++i) {
        const std::string prompt = "lost" + std::to_string(i);
        const HttpAnswer answer = chat(prompt, i % 2 == 0);
        EXPECT_EQ(answer.status, 200) << answer.body;
        EXPECT_EQ(text_of(answer.body), single(prompt));
    }
    EXPECT_EQ(metric("sluice_relay_way_blocked_total"), 1);
    EXPECT_EQ(metric("sluice_relay_transfers_total"), 1);
    const std::string log = proxy_->log();
    const auto said = log.find("does not reach the KV relay");
    EXPECT_NE(said, std::string::npos);
    EXPECT_EQ(log.find("does not reach the KV relay", said + 1), std::string::npos);
    EXPECT_NE(log.find("--kv-relay-host"), std::string::npos);
}

// Somebody takes the decode's connections there and says nothing, as a firewall does.
TEST_F(RelayTest, WithASilentWayToItRequestsAreServedDirectly) {
    FleetPlan lost = plan(1, 1);
    // One with one of ours behind it, for the prefill's worker.
    int port = free_port();
    for (int next = free_port(); next != port + 1; next = free_port()) port = next;
    lost.proxy_flags.insert(lost.proxy_flags.end(),
                            {"--kv-relay-host", "127.0.0.78", "--kv-relay-listen",
                             "127.0.0.1:" + std::to_string(port)});
    const auto silent = *io::Address::from_ip("127.0.0.78", static_cast<std::uint16_t>(port));
    const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ASSERT_EQ(::bind(fd, silent.raw(), silent.size()), 0);
    ASSERT_EQ(::listen(fd, 16), 0);
    start(lost);
    for (const bool stream : {true, false}) {
        const HttpAnswer answer = chat("silent", stream);
        EXPECT_EQ(answer.status, 200) << answer.body;
        EXPECT_EQ(text_of(answer.body), single("silent"));
    }
    EXPECT_EQ(metric("sluice_relay_way_blocked_total"), 1);
    ::close(fd);
}

TEST_F(RelayTest, OffMeansThatDecodesAskThePrefillItself) {
    FleetPlan off = plan(1, 1);
    off.proxy_flags = {"--kv-relay", "off"};
    start(off);
    EXPECT_EQ(text_of(chat("off").body), single("off"));
    EXPECT_EQ(metric("sluice_relay_transfers_total"), -1);
}

}  // namespace
}  // namespace sluice::test
