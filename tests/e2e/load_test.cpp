// SPDX-License-Identifier: Apache-2.0
// `sluice load` against the proxy and stand-in engines: what it counts is what happened.
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "fleet_fixture.h"

namespace sluice::test {
namespace {

class LoadTest : public FleetTest {
protected:
    void start_fleet(std::vector<std::string> engine_flags = {}) {
        FleetPlan plan;
        plan.nixl = true;
        plan.engine_flags = {"--sim-ttft-ms", "1", "--sim-itl-ms", "0", "--sim-kv-ms", "0"};
        plan.engine_flags.insert(plan.engine_flags.end(), engine_flags.begin(), engine_flags.end());
        start(plan);
    }
    // The result of a run, as JSON; null if it cannot be read.
    nlohmann::json load(std::vector<std::string> flags, int expected_status = 0) {
        const std::string out = testing::TempDir() + "/sluice-load-" + std::to_string(::getpid());
        std::vector<std::string> command{"/bin/sh",
                                         "-c",
                                         R"(out=$1; shift; exec "$@" >"$out")",
                                         "sh",
                                         out,
                                         SLUICE_BINARY,
                                         "load",
                                         "http://127.0.0.1:" + std::to_string(proxy_port_),
                                         "--model",
                                         "test-model",
                                         "--format",
                                         "json"};
        command.insert(command.end(), flags.begin(), flags.end());
        Process process(command, out + ".log");
        EXPECT_EQ(process.wait(60), expected_status) << process.log();
        std::ostringstream text;
        text << std::ifstream(out).rdbuf();
        return nlohmann::json::parse(text.str(), nullptr, false);
    }
};

TEST_F(LoadTest, CountsEveryRequestEventAndByte) {
    start_fleet();
    const auto result = load({"--stream", "--requests", "200", "--output-tokens", "list:3:5", "-c",
                              "7", "--threads", "2", "--prompt-bytes", "uniform:0:3000", "--pid",
                              std::to_string(proxy_->pid())});
    EXPECT_EQ(result["started"], 200);
    EXPECT_EQ(result["succeeded"], 200);
    EXPECT_EQ(result["failed"], 0) << result["failures"];
    EXPECT_EQ(result["first_token_ms"]["count"], 200);
    EXPECT_EQ(result["total_ms"]["count"], 200);
    const int events = result["events"];
    EXPECT_GE(events, 600);
    EXPECT_LE(events, 1000);
    EXPECT_EQ(result["gap_ms"]["count"], events - 200);
    EXPECT_GE(result["first_token_ms"]["p50"].get<double>(), 1);  // P's own time at least
    EXPECT_GT(result["targets"][0]["cpu_seconds"].get<double>(), 0);
    EXPECT_GT(result["targets"][0]["rss_bytes_max"].get<double>(), 1e6);
    EXPECT_EQ(metric("sluice_attempts_total"), 200);
}

// A target that takes 30 ms a request cannot keep up with 100 a second on one connection. Sent one
// after another each would seem to take 30 ms; meant for every 10 ms, the last waits for all
// before.
TEST_F(LoadTest, OpenLoopCountsTheWaitThatASlowTargetCauses) {
    start_fleet({"--sim-ttft-ms", "30"});
    const auto result =
        load({"--rate", "100", "--requests", "30", "--output-tokens", "1", "-c", "1"});
    EXPECT_EQ(result["succeeded"], 30) << result["failures"];
    EXPECT_GE(result["total_ms"]["max"].get<double>(), 30 * 30 - 29 * 10);
    EXPECT_GE(result["late_ms"]["max"].get<double>(), 29 * 30 - 29 * 10);
}

TEST_F(LoadTest, FailuresAreCountedByKind) {
    start_fleet();
    decodes_[0].fault(R"({"kind":"status","status":400,"count":3})");
    auto result = load({"--requests", "20", "-c", "2"});
    EXPECT_EQ(result["failures"]["refused_4xx"], 3) << result["failures"];
    EXPECT_EQ(result["succeeded"], 17);
    decodes_[0].fault(R"({"kind":"die_mid_stream","after_events":2,"count":2})");
    result = load({"--stream", "--requests", "20", "-c", "2", "--output-tokens", "9"});
    EXPECT_EQ(result["failed"], 2) << result["failures"];
    EXPECT_EQ(result["failures"]["error_event"], 2) << result["failures"];
    decodes_[0].fault(R"({"kind":"hang"})");
    result = load({"--requests", "2", "-c", "2", "--timeout", "0.3"}, 1);
    EXPECT_EQ(result["failures"]["timeout"], 2) << result["failures"];
    decodes_[0].fault("");
}

TEST_F(LoadTest, NobodyThereIsAnErrorAndEnds) {
    start_fleet();
    proxy_port_ = free_port();
    const auto result = load({"--duration", "0.2", "-c", "4"}, 1);
    EXPECT_EQ(result["succeeded"], 0);
    EXPECT_GT(result["failures"]["connect"], 0);
    EXPECT_EQ(result["failures"]["connect"], result["failed"]);
}

}  // namespace
}  // namespace sluice::test
