// SPDX-License-Identifier: Apache-2.0
// What an operator sees of requests: /metrics and the fields of an answer.
#include <cmath>

#include "fleet_fixture.h"
#include "support/prometheus.h"

namespace sluice::test {
namespace {

class SeenTest : public FleetTest, public testing::WithParamInterface<bool> {
protected:
    void start_pair(std::vector<std::string> proxy_flags = {}) {
        FleetPlan plan;
        plan.nixl = GetParam();
        plan.proxy_flags = std::move(proxy_flags);
        start(plan);
    }
    MetricsPage metrics() {
        MetricsPage page = read_metrics(http_call(proxy_port_, "GET", "/metrics").body);
        for (const std::string& fault : page.faults) ADD_FAILURE() << fault;
        return page;
    }
    std::string dialect() const { return GetParam() ? "nixl" : "mooncake"; }
};

TEST_P(SeenTest, MetricsCountWhatHappened) {
    start_pair();
    constexpr int kPlain = 5;
    constexpr int kStreams = 4;
    std::size_t client_out = 0;
    for (int i = 0; i < kPlain + kStreams; ++i) {
        const HttpAnswer answer = chat("one two three", i >= kPlain, R"(,"max_tokens":8)");
        ASSERT_EQ(answer.status, 200) << answer.body;
        client_out += answer.body.size();
    }
    ASSERT_EQ(chat("hi", false, R"(,"n":2)").status, 200);
    ASSERT_EQ(http_call(proxy_port_, "POST", "/v1/chat/completions",
                        R"({"model":"nope","messages":[{"role":"user","content":"x"}]})")
                  .status,
              404);
    ASSERT_EQ(http_call(proxy_port_, "POST", "/v1/completions", "{").status, 400);
    ASSERT_EQ(http_call(proxy_port_, "POST", "/nowhere", "{}").status, 404);
    expect_at_rest();

    const MetricsPage page = metrics();
    const auto requests = [&](const std::string& path, const std::string& with,
                              const std::string& outcome) {
        return page.sum("sluice_requests_total",
                        {{"path", path}, {"dialect", with}, {"outcome", outcome}});
    };
    EXPECT_EQ(requests("/v1/chat/completions", dialect(), "ok"), kPlain + kStreams);
    EXPECT_EQ(requests("/v1/chat/completions", "none", "ok"), 1);
    EXPECT_EQ(requests("/v1/chat/completions", dialect(), "client_error"), 1);
    EXPECT_EQ(requests("/v1/completions", "none", "client_error"), 1);
    EXPECT_EQ(requests("unknown", "none", "client_error"), 1);

    EXPECT_EQ(page.sum("sluice_request_seconds_count", {{"mode", "stream"}}), kStreams);
    EXPECT_EQ(page.sum("sluice_request_seconds_count", {{"mode", "plain"}}), kPlain + 3);
    EXPECT_EQ(page.sum("sluice_queue_seconds_count"), kPlain + kStreams + 2);
    EXPECT_EQ(page.sum("sluice_prefill_seconds_count"), kPlain + kStreams);
    EXPECT_EQ(page.sum("sluice_time_to_first_token_seconds_count"), kStreams);
    EXPECT_EQ(page.sum("sluice_kv_wait_seconds_count"), kStreams);
    // Eight tokens a stream; those that arrived together count as one piece.
    EXPECT_GT(page.sum("sluice_event_gap_seconds_count"), 0);
    EXPECT_LE(page.sum("sluice_event_gap_seconds_count"), kStreams * 10);
    EXPECT_GT(page.sum("sluice_loop_lag_seconds_count"), 0);

    EXPECT_GT(page.sum("sluice_body_bytes_total", {{"side", "client"}, {"direction", "out"}}),
              static_cast<double>(client_out));
    for (const char* side : {"client", "prefill", "decode"})
        for (const char* direction : {"in", "out"})
            EXPECT_GT(
                page.sum("sluice_body_bytes_total", {{"side", side}, {"direction", direction}}), 0)
                << side << direction;
    EXPECT_GT(page.sum("sluice_socket_bytes_total", {{"direction", "out"}}),
              page.sum("sluice_body_bytes_total", {{"direction", "out"}}));
    EXPECT_GE(page.sum("sluice_upstream_connects_total", {{"role", "decode"}}), 1);
    EXPECT_GE(page.sum("sluice_upstream_reuses_total", {{"role", "decode"}}), 1);
    EXPECT_EQ(page.sum("sluice_breaker_state"), 0);
    EXPECT_EQ(page.sum("sluice_in_flight"), 0);
}

TEST_P(SeenTest, InstancesAreNamedOnlyWhenAsked) {
    start_pair({"--expose-instances"});
    for (const bool stream : {false, true}) {
        const HttpAnswer answer = chat("hi", stream);
        EXPECT_NE(answer.head.find("\r\nX-Sluice-Prefill: " + prefills_[0].url() + "\r\n"),
                  std::string::npos)
            << answer.head;
        EXPECT_NE(answer.head.find("\r\nX-Sluice-Decode: " + decodes_[0].url() + "\r\n"),
                  std::string::npos)
            << answer.head;
        EXPECT_NE(answer.head.find("\r\nServer-Timing: queue;dur="), std::string::npos);
    }
    // Served by a decode alone.
    const HttpAnswer alone = chat("hi", false, R"(,"n":2)");
    EXPECT_EQ(alone.head.find("X-Sluice-Prefill"), std::string::npos) << alone.head;
    EXPECT_NE(alone.head.find("X-Sluice-Decode"), std::string::npos) << alone.head;
    EXPECT_EQ(alone.head.find("prefill;dur="), std::string::npos) << alone.head;
}

TEST_P(SeenTest, InstancesAreNotNamedOtherwise) {
    start_pair();
    EXPECT_EQ(chat("hi").head.find("X-Sluice"), std::string::npos);
}

INSTANTIATE_TEST_SUITE_P(, SeenTest, testing::Bool(),
                         [](const auto& which) { return which.param ? "Nixl" : "Mooncake"; });

}  // namespace
}  // namespace sluice::test
