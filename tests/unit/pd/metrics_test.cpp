// SPDX-License-Identifier: Apache-2.0
// The text of /metrics against a strict reader of the format, and the reader against faulty texts.
#include "pd/metrics.h"

#include <gtest/gtest.h>

#include <cmath>

#include "support/prometheus.h"

namespace sluice::pd {
namespace {

using namespace std::chrono_literals;
using test::MetricsPage;
using test::read_metrics;

fleet::Instance instance(fleet::Role role, std::uint32_t index, const std::string& url) {
    fleet::Instance made;
    made.role = role;
    made.index = index;
    made.url = url;
    made.state = std::make_shared<fleet::InstanceState>();
    if (role == fleet::Role::Prefill) made.dialect = fleet::DialectKind::Mooncake;
    return made;
}

class MetricsText : public testing::Test {
protected:
    MetricsText() {
        fleet_.prefill.push_back(instance(fleet::Role::Prefill, 0, "http://p0:1"));
        fleet_.prefill.push_back(instance(fleet::Role::Prefill, 1, "unix:/run/\"odd\\name\n.sock"));
        fleet_.decode.push_back(instance(fleet::Role::Decode, 0, "http://d0:1"));
        for (WorkerMetrics& worker : workers_) {
            worker.pools[0] = std::vector<PoolMetrics>(2);
            worker.pools[1] = std::vector<PoolMetrics>(1);
        }
    }
    MetricsPage page() {
        ProcessMetrics process;
        process.in_flight = 3;
        process.queued = 1;
        return read_metrics(render_metrics({&workers_[0], &workers_[1]}, fleet_, process));
    }

    fleet::FleetSnapshot fleet_;
    WorkerMetrics workers_[2];
};

std::string joined(const std::vector<std::string>& lines) {
    std::string out;
    for (const std::string& line : lines) out += line + "\n";
    return out;
}

TEST_F(MetricsText, IsValidBeforeAnythingHappened) {
    const MetricsPage read = page();
    EXPECT_TRUE(read.faults.empty()) << joined(read.faults);
    EXPECT_EQ(read.sum("sluice_requests_total"), 0);
    EXPECT_EQ(read.sum("sluice_requests_total",
                       {{"path", "/v1/messages"}, {"dialect", "mooncake"}, {"outcome", "ok"}}),
              0);
    // Neither of this fleet nor of any request.
    EXPECT_TRUE(std::isnan(read.sum("sluice_requests_total", {{"dialect", "nixl"}})));
    EXPECT_EQ(read.sum("sluice_requests_in_flight"), 3);
    EXPECT_EQ(read.sum("sluice_requests_queued"), 1);
}

TEST_F(MetricsText, AddsUpTheWorkers) {
    for (WorkerMetrics& worker : workers_) {
        worker.count(RequestPath::Chat, Outcome::Ok, fleet::DialectKind::Mooncake);
        worker.count(RequestPath::Chat, Outcome::Ok, fleet::DialectKind::Nixl);
        worker.count(RequestPath::Local, Outcome::Ok);
        worker.first_token.record(30ms);
        worker.event_gap.record(10ms);
        worker.plain_total.record(2s);
        worker.count_bytes(Side::Prefill, 5, 70);
        worker.pools[0][1].open.set(4);
        worker.whole_on_decode[1].add();
    }
    fleet_.decode[0].state->breaker.store(fleet::Breaker::Open);
    const MetricsPage read = page();
    EXPECT_TRUE(read.faults.empty()) << joined(read.faults);
    EXPECT_EQ(read.sum("sluice_requests_total"), 6);
    EXPECT_EQ(read.sum("sluice_requests_total", {{"dialect", "mooncake"}}), 2);
    EXPECT_EQ(read.sum("sluice_requests_total", {{"dialect", "nixl"}}), 2);
    EXPECT_EQ(read.sum("sluice_requests_total", {{"path", "local"}, {"dialect", "none"}}), 2);
    EXPECT_EQ(read.sum("sluice_time_to_first_token_seconds_bucket", {{"le", "0.025"}}), 0);
    EXPECT_EQ(read.sum("sluice_time_to_first_token_seconds_bucket", {{"le", "0.05"}}), 2);
    EXPECT_DOUBLE_EQ(read.sum("sluice_event_gap_seconds_sum"), 0.02);
    EXPECT_EQ(read.sum("sluice_request_seconds_count", {{"mode", "plain"}}), 2);
    EXPECT_EQ(read.sum("sluice_request_seconds_count", {{"mode", "stream"}}), 0);
    EXPECT_EQ(read.sum("sluice_body_bytes_total", {{"side", "prefill"}, {"direction", "in"}}), 10);
    EXPECT_EQ(read.sum("sluice_body_bytes_total", {{"side", "prefill"}, {"direction", "out"}}),
              140);
    EXPECT_EQ(read.sum("sluice_upstream_connections", {{"instance", fleet_.prefill[1].url}}), 8);
    EXPECT_EQ(read.sum("sluice_breaker_state", {{"role", "decode"}}), 1);
    EXPECT_EQ(read.sum("sluice_whole_on_decode_total"), 2);
}

// A reader that takes everything would prove nothing.
TEST(MetricsReader, ObjectsToWhatPrometheusWould) {
    const std::string head = "# HELP a_total A.\n# TYPE a_total counter\n";
    const std::string histogram = "# HELP h H.\n# TYPE h histogram\n";
    EXPECT_TRUE(read_metrics(head + "a_total{x=\"1\"} 1\na_total{x=\"2\"} 2\n").faults.empty());
    EXPECT_TRUE(read_metrics(histogram +
                             "h_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 2\nh_sum 3\nh_count 2\n")
                    .faults.empty());
    for (const std::string& bad :
         {head + "a_total 1",                                        // no line end
          head + "a_total x\n",                                      // no number
          head + "a_total{x=\"1\" 1\n",                              // labels without an end
          head + "a_total{x=\"\\q\"} 1\n",                           // a wrong escape
          head + "a_total{x=\"1\",} 1\n",                            // an empty label
          head + "a_total{1x=\"1\"} 1\n",                            // a wrong label name
          head + "a_total{x=\"1\",x=\"2\"} 1\n",                     // a label twice
          head + "a_total 1\na_total 1\n",                           // a sample twice
          head + "a_total 1.5\n",                                    // half an event
          head + "a_total -1\n",                                     // counters rise
          head + "b_total 1\n",                                      // another family's sample
          head,                                                      // no samples
          std::string("a_total 1\n"),                                // no family
          head + "a_total 1\n" + head + "a_total{y=\"1\"} 1\n",      // a family twice
          std::string("# TYPE a gauge\na 1\n"),                      // no HELP
          std::string("# HELP a A\n# TYPE a counter\na 1\n"),        // a counter without _total
          std::string("# HELP a A\n# TYPE a number\na 1\n"),         // an unknown type
          histogram + "h_bucket{le=\"1\"} 1\nh_sum 3\nh_count 1\n",  // no +Inf
          histogram + "h_bucket{le=\"1\"} 3\nh_bucket{le=\"+Inf\"} 2\nh_sum 3\nh_count 2\n",
          histogram + "h_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 2\nh_sum 3\nh_count 3\n",
          histogram + "h_bucket{le=\"2\"} 1\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 2\nh_sum "
                      "3\nh_count 2\n"})
        EXPECT_FALSE(read_metrics(bad).faults.empty()) << bad;
}

}  // namespace
}  // namespace sluice::pd
