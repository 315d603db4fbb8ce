// SPDX-License-Identifier: Apache-2.0
// The HTTP vectors through the real binary, one process for all of them one after the other:
// requests in front of stand-in engines, answers from a decode that sends just their bytes.
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <memory>

#include "at_proxy.h"
#include "support/canned_upstream.h"
#include "support/process.h"

namespace sluice::test {
namespace {

using Kind = Verdict::Kind;
constexpr double kSeconds = 10;  // for an answer; none takes a hundredth of it

class HttpProcessVectors : public testing::Test {
protected:
    void start_engine(const std::string& name, int port) {
        engines_.push_back(std::make_unique<Process>(
            std::vector<std::string>{SLUICE_BINARY, "engine", "m", "--host", "127.0.0.1", "--port",
                                     std::to_string(port), "--sim-ttft-ms", "0",
                                     "--kv-transfer-config",
                                     R"({"kv_connector":"NixlConnector","kv_role":"kv_both"})"},
            log_of(name),
            std::map<std::string, std::string>{
                {"VLLM_NIXL_SIDE_CHANNEL_HOST", "127.0.0.1"},
                {"VLLM_NIXL_SIDE_CHANNEL_PORT", std::to_string(free_port())}}));
    }
    void start_proxy(int prefill, int decode) {
        port_ = free_port();
        const std::string at = "http://127.0.0.1:";
        proxy_ = std::make_unique<Process>(
            std::vector<std::string>{
                SLUICE_BINARY, "proxy", "--host", "127.0.0.1", "--port", std::to_string(port_),
                "--max-body-bytes", std::to_string(kVectorBodyMax), "--retries", "0", "--prefill",
                at + std::to_string(prefill), "none", "--decode", at + std::to_string(decode)},
            log_of("proxy"));
        ASSERT_TRUE(wait_until_ok(port_, "/ready", 30)) << proxy_->log();
    }
    void TearDown() override {
        proxy_->signal(SIGTERM);
        EXPECT_EQ(proxy_->wait(40), 0) << proxy_->log();
    }
    static std::string log_of(const std::string& name) {
        return testing::TempDir() + "/vectors-" + std::to_string(::getpid()) + "-" + name + ".log";
    }

    std::vector<std::unique_ptr<Process>> engines_;
    std::unique_ptr<Process> proxy_;
    int port_ = 0;
};

std::string post(std::string_view path, std::string_view body, std::string_view fields = {}) {
    return "POST " + std::string(path) + " HTTP/1.1\r\nHost: a\r\n" + std::string(fields) +
           "Connection: close\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" +
           std::string(body);
}

// What is to come of it on a connection of its own. A connection that stays open is shown so by a
// last request behind it; one with an unfinished message by our end of it, on which nothing comes.
TEST_F(HttpProcessVectors, Requests) {
    const int prefill = free_port(), decode = free_port();
    start_engine("prefill", prefill);
    start_engine("decode", decode);
    for (const int engine : {prefill, decode}) ASSERT_TRUE(wait_until_ok(engine, "/health", 60));
    start_proxy(prefill, decode);
    int forwarded = 0;
    for (const HttpVector& vector : load_http_vectors()) {
        if (vector.is_copy || !vector.is_request) continue;
        SCOPED_TRACE(vector.place + " " + vector.name);
        AtProxy expected(vector);
        const bool stays = !expected.closes && !expected.incomplete;
        if (stays) {
            expected.bytes += "GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
            expected.answers.push_back({.status = 200});
        }
        const auto answers = final_answers(
            raw_call(port_, expected.bytes, kSeconds, expected.incomplete), true, expected);
        EXPECT_EQ(answers.size(), expected.answers.size());
        for (std::size_t i = 0; i < std::min(answers.size(), expected.answers.size()); ++i) {
            const AtProxy::Expected& wanted = expected.answers[i];
            EXPECT_TRUE(answers[i].whole) << answers[i].head;
            if (!wanted.forwarded()) {
                EXPECT_EQ(answers[i].status, wanted.status) << answers[i].head << answers[i].body;
                continue;
            }
            // As the engine answers when nobody stands between.
            ++forwarded;
            const auto direct =
                parse_answers(raw_call(decode, post(wanted.path, wanted.body), kSeconds), true);
            ASSERT_EQ(direct.size(), 1u);
            EXPECT_EQ(answers[i].status, direct[0].status) << answers[i].body;
            EXPECT_EQ(answers[i].body, direct[0].body);
        }
    }
    EXPECT_GE(forwarded, 20) << "bodies have to reach the engine for this to mean much";
}

TEST_F(HttpProcessVectors, Answers) {
    const int prefill = free_port();
    start_engine("prefill", prefill);
    ASSERT_TRUE(wait_until_ok(prefill, "/health", 30));
    CannedUpstream decode;
    start_proxy(prefill, decode.port());
    int asked = 0;
    for (const HttpVector& vector : load_http_vectors()) {
        if (vector.is_copy || vector.is_request || vector.to_head) continue;
        decode.set([bytes = vector.bytes](CannedUpstream::Visit& visit) {
            visit.read_body();
            visit.send(bytes);
            return false;
        });
        for (const bool with_prefill : {false, true}) {
            SCOPED_TRACE(vector.place + " " + vector.name +
                         (with_prefill ? ", behind a prefill" : ""));
            const std::string received = raw_call(
                port_,
                post(with_prefill ? "/v1/completions" : "/tokenize",
                     R"({"model":"m","prompt":"x"})", "Content-Type: application/json\r\n"),
                kSeconds);
            ++asked;
            const auto answers = parse_answers(received, true);
            const Verdict& last = vector.verdicts.back();
            ASSERT_EQ(answers.size(), 1u) << received;
            if (last.kind == Kind::Accept) {
                EXPECT_EQ(answers[0].status, last.status) << received;
                EXPECT_EQ(answers[0].body, last.body);
                EXPECT_TRUE(answers[0].whole);
            } else if (answers[0].whole) {
                EXPECT_EQ(answers[0].status, 502) << received;
                EXPECT_TRUE(answers[0].body.starts_with("{\"error\":{\"message\":")) << received;
            } else {
                EXPECT_FALSE(with_prefill) << received;
            }
        }
    }
    EXPECT_EQ(decode.posts(), asked) << "each was asked of the decode, and once";
}

}  // namespace
}  // namespace sluice::test
