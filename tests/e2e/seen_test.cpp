// SPDX-License-Identifier: Apache-2.0
// What an operator sees of requests: /metrics, the access log, and the fields of an answer.
#include <signal.h>

#include <chrono>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <regex>
#include <thread>

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
    // With mooncake a decode's first content may overtake the prefill's answer.
    const double prefills = page.sum("sluice_prefill_seconds_count");
    const double waits = page.sum("sluice_kv_wait_seconds_count");
    EXPECT_LE(prefills, kPlain + kStreams);
    EXPECT_LE(waits, kStreams);
    EXPECT_GE(prefills, GetParam() ? kPlain + kStreams : 1);
    EXPECT_GE(waits, GetParam() ? kStreams : 1);
    EXPECT_EQ(page.sum("sluice_time_to_first_token_seconds_count"), kStreams);
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
        EXPECT_TRUE(std::regex_search(
            answer.head, std::regex(stream ? "\r\nServer-Timing: queue;dur=[0-9]+[.][0-9]{3}, "
                                             "prefill;dur=[0-9]+[.][0-9]{3}, "
                                             "(kv_wait;dur=[0-9]+[.][0-9]{3}, )?"
                                             "first_token;dur=[0-9]+[.][0-9]{3}\r\n"
                                           : "\r\nServer-Timing: queue;dur=[0-9]+[.][0-9]{3}, "
                                             "prefill;dur=[0-9]+[.][0-9]{3}, "
                                             "first_token;dur=[0-9]+[.][0-9]{3}\r\n")))
            << answer.head;
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

// -- the access log

using nlohmann::json;

class AccessLogE2e : public SeenTest {
protected:
    void start_logging(std::vector<std::string> flags = {}) {
        path_ = testing::TempDir() + "/sluice-access-" + std::to_string(::getpid()) + ".log";
        std::filesystem::remove(path_);
        std::filesystem::remove(path_ + ".1");
        flags.insert(flags.end(), {"--access-log", path_});
        start_pair(std::move(flags));
    }
    void stop_proxy() {
        proxy_->signal(SIGTERM);
        EXPECT_EQ(proxy_->wait(40), 0) << proxy_->log();
        proxy_.reset();
    }
    // Valid lines of a file, by request id. Python's judgement of what is JSON, not only our own.
    static std::multimap<std::string, json> lines_of(const std::string& path) {
        const std::string check =
            "python3 -c 'import json,sys\nfor l in open(sys.argv[1]): assert "
            "isinstance(json.loads(l), dict)' " +
            path;
        EXPECT_EQ(std::system(check.c_str()), 0);
        std::multimap<std::string, json> lines;
        std::ifstream file(path);
        for (std::string text; std::getline(file, text);) {
            const json line = json::parse(text, nullptr, false);
            EXPECT_TRUE(line.is_object()) << text;
            lines.emplace(line.value("request_id", ""), line);
        }
        return lines;
    }
    HttpAnswer ask(const std::string& id, const std::string& path, const std::string& body) {
        return http_call(proxy_port_, "POST", path, body, "X-Request-Id: " + id + "\r\n");
    }

    std::string path_;
};

// Every request of a mixed run has exactly one line, and it says what the client saw.
TEST_P(AccessLogE2e, EveryRequestHasOneLine) {
    start_logging();
    struct Asked {
        int status;
        std::size_t bytes;
        bool stream;
    };
    std::map<std::string, Asked> asked;
    const std::string chat_path = "/v1/chat/completions";
    const std::string messages = R"("messages":[{"role":"user","content":"hi"}]})";
    for (int i = 0; i < 60; ++i) {
        const std::string id = "req-" + std::to_string(i);
        const bool stream = i % 3 == 1;
        HttpAnswer answer;
        if (i % 10 == 9) {
            answer = ask(id, chat_path, R"({"model":"no\u0022pe",)" + messages);
            EXPECT_EQ(answer.status, 404);
        } else if (i % 10 == 8) {
            answer = ask(id, chat_path, "{\"stream\":1}");
            EXPECT_EQ(answer.status, 400);
        } else if (i % 10 == 7) {
            answer = ask(id, "/pause", "{}");
            EXPECT_EQ(answer.status, 404);
        } else {
            answer = ask(id, chat_path,
                         R"({"model":"test-model","max_tokens":4,"stream":)" +
                             std::string(stream ? "true," : "false,") + messages);
            EXPECT_EQ(answer.status, 200) << answer.body;
        }
        asked[id] = {answer.status, answer.body.size(), stream && answer.status == 200};
    }
    stop_proxy();

    const auto lines = lines_of(path_);
    for (const auto& [id, seen] : asked) {
        ASSERT_EQ(lines.count(id), 1U) << id;
        const json& line = lines.find(id)->second;
        EXPECT_EQ(line["status"], seen.status) << line;
        EXPECT_EQ(line["outcome"], seen.status == 200 ? "ok" : "client_error") << line;
        EXPECT_EQ(line["stream"], seen.stream) << line;
        if (seen.status != 200) continue;
        EXPECT_EQ(line["path"], chat_path);
        EXPECT_EQ(line["model"], "test-model");
        EXPECT_EQ(line["dialect"], dialect());
        EXPECT_EQ(line["attempts"], 1);
        EXPECT_EQ(line["prefill"], prefills_[0].url());
        EXPECT_EQ(line["decode"], decodes_[0].url());
        EXPECT_EQ(line["bytes_out"], seen.bytes) << line;
        double before = 0;
        const auto in_order =
            GetParam() ? std::vector{"admitted_ms",    "prefill_begin_ms", "prefill_end_ms",
                                     "decode_sent_ms", "decode_head_ms",   "first_content_ms",
                                     "last_byte_ms",   "total_ms"}
                       : std::vector{"admitted_ms",    "prefill_begin_ms", "decode_sent_ms",
                                     "decode_head_ms", "first_content_ms", "last_byte_ms",
                                     "total_ms"};
        for (const char* moment : in_order) {
            ASSERT_TRUE(line.contains(moment)) << moment << line;
            EXPECT_GE(line[moment].get<double>(), before) << moment << line;
            before = line[moment].get<double>();
        }
    }
    EXPECT_EQ(lines.find("req-9")->second["model"], "no\"pe");
}

TEST_P(AccessLogE2e, RetriesBreaksAndLostClientsAreLogged) {
    start_logging({"--retries", "1"});
    const std::string path = "/v1/chat/completions";
    const std::string body =
        R"({"model":"test-model","max_tokens":2000,"ignore_eos":true,"stream":true,)"
        R"("messages":[{"role":"user","content":"hi"}]})";
    prefills_[0].fault(R"({"kind":"status","status":500,"count":1})");
    const HttpAnswer retried =
        ask("retried", path,
            R"({"model":"test-model","max_tokens":2,"messages":[{"role":"user","content":"hi"}]})");
    prefills_[0].fault("");
    // A client that leaves in the middle of its stream.
    const std::string head = "POST " + path +
                             " HTTP/1.1\r\nHost: x\r\nContent-Type: "
                             "application/json\r\nX-Request-Id: left\r\nContent-Length: " +
                             std::to_string(body.size()) + "\r\n\r\n";
    EXPECT_NE(raw_call(proxy_port_, head + body, 1.5).find("200 OK"), std::string::npos);
    expect_at_rest();
    stop_proxy();
    const auto lines = lines_of(path_);
    ASSERT_EQ(lines.count("retried"), 1U);
    const json& first = lines.find("retried")->second;
    EXPECT_EQ(first["status"], retried.status) << first;
    EXPECT_EQ(first["attempts"], 2) << first;
    ASSERT_EQ(lines.count("left"), 1U);
    const json& left = lines.find("left")->second;
    EXPECT_EQ(left["outcome"], "client_gone") << left;
    EXPECT_EQ(left["status"], 200) << left;
    EXPECT_GT(left["bytes_out"].get<int>(), 0) << left;
}

TEST_P(AccessLogE2e, IsOpenedAgainOnHangup) {
    start_logging();
    EXPECT_EQ(chat("one").status, 200);
    std::filesystem::rename(path_, path_ + ".1");
    proxy_->signal(SIGHUP);
    for (int tries = 0; !std::filesystem::exists(path_) && tries < 500; ++tries)
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
    ASSERT_TRUE(std::filesystem::exists(path_)) << proxy_->log();
    EXPECT_EQ(ask("later", "/v1/chat/completions", "{}").status, 400);
    EXPECT_TRUE(proxy_->running());
    stop_proxy();
    EXPECT_EQ(lines_of(path_).count("later"), 1U);
    EXPECT_GE(lines_of(path_ + ".1").size(), 1U);
}

TEST_P(AccessLogE2e, SamplingKeepsErrors) {
    start_logging({"--access-log-sample", "5", "--workers", "1"});
    for (int i = 0; i < 40; ++i) {
        EXPECT_EQ(ask("good", "/tokenize", R"({"model":"test-model","prompt":"a"})").status, 200);
        if (i % 4 == 0) {
            EXPECT_EQ(ask("bad", "/v1/completions", "{").status, 400);
        }
    }
    stop_proxy();
    const auto lines = lines_of(path_);
    EXPECT_EQ(lines.count("bad"), 10U);
    // Requests of the fixture (is it ready?) are sampled along with these.
    EXPECT_GE(lines.count("good"), 7U);
    EXPECT_LE(lines.count("good"), 9U);
    EXPECT_EQ(lines.find("good")->second["sample"], 5);
    EXPECT_EQ(lines.find("bad")->second["sample"], 1);
}

INSTANTIATE_TEST_SUITE_P(, AccessLogE2e, testing::Bool(),
                         [](const auto& which) { return which.param ? "Nixl" : "Mooncake"; });

INSTANTIATE_TEST_SUITE_P(, SeenTest, testing::Bool(),
                         [](const auto& which) { return which.param ? "Nixl" : "Mooncake"; });

}  // namespace
}  // namespace sluice::test
