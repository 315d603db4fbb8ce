// SPDX-License-Identifier: Apache-2.0
// Clients that are slow, rude, many, or gone, against the real binary.
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <thread>

#include "fleet_fixture.h"

namespace sluice::test {
namespace {

using namespace std::chrono_literals;

// Open connections of our own, closed with the object.
class Crowd {
public:
    ~Crowd() { disperse(); }
    bool join(int port, const std::string& bytes) {
        const int fd = connect_to(port);
        if (fd < 0) return false;
        if (!bytes.empty() && ::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL) < 0) {
            ::close(fd);
            return false;
        }
        members_.push_back(fd);
        return true;
    }
    void disperse() {
        for (const int fd : members_) ::close(fd);
        members_.clear();
    }
    std::size_t size() const { return members_.size(); }
    // How many have been sent something that begins so.
    std::size_t answered(const std::string& beginning) const {
        std::size_t count = 0;
        for (const int fd : members_) {
            char buffer[64] = {};
            const ssize_t got = ::recv(fd, buffer, sizeof buffer - 1, MSG_DONTWAIT | MSG_PEEK);
            count += got > 0 && std::string(buffer).starts_with(beginning);
        }
        return count;
    }

private:
    std::vector<int> members_;
};

double cpu_seconds(pid_t pid) {
    const std::string path = "/proc/" + std::to_string(pid) + "/stat";
    std::FILE* file = std::fopen(path.c_str(), "r");
    if (file == nullptr) return 0;
    unsigned long user = 0, system = 0;
    const int read = std::fscanf(
        file, "%*d (%*[^)]) %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system);
    std::fclose(file);
    return read == 2
               ? static_cast<double>(user + system) / static_cast<double>(sysconf(_SC_CLK_TCK))
               : 0;
}

class AbuseTest : public FleetTest {
protected:
    void start_quick(std::vector<std::string> proxy_flags = {}) {
        FleetPlan plan;
        plan.engine_flags = {"--sim-ttft-ms", "1", "--sim-itl-ms", "0", "--sim-output-tokens", "3"};
        plan.proxy_flags = std::move(proxy_flags);
        start(plan);
    }
};

TEST_F(AbuseTest, TenThousandSlowClientsDoNotKeepOthersWaiting) {
    rlimit limit{};
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    const std::size_t want =
        std::min<std::size_t>(10'000, limit.rlim_cur > 500 ? limit.rlim_cur - 500 : 100);
    start_quick({"--head-timeout", "4"});
    Crowd crowd;
    const std::string part = "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Le";
    while (crowd.size() < want)
        ASSERT_TRUE(crowd.join(proxy_port_, part)) << crowd.size() << ": " << strerror(errno);
    EXPECT_GE(metric("sluice_client_connections"), static_cast<double>(want) * 0.5);
    for (int i = 0; i < 20; ++i) EXPECT_EQ(chat("hello " + std::to_string(i)).status, 200);
    // They hold no pages: an idle or dripping client costs a connection, not a buffer of its own
    // for ever.
    std::size_t told = 0;
    for (int tries = 0; tries < 200 && told < want; ++tries) {
        std::this_thread::sleep_for(100ms);
        told = crowd.answered("HTTP/1.1 408");
    }
    EXPECT_EQ(told, want);
    crowd.disperse();
    expect_at_rest();
    std::printf("%zu slow clients, all answered with 408\n", want);
}

TEST_F(AbuseTest, RunningOutOfDescriptorsPausesAcceptAndRecovers) {
    FleetPlan plan;
    plan.engine_flags = {"--sim-ttft-ms", "1", "--sim-itl-ms", "0"};
    start(plan);
    // A second proxy with few descriptors in front of the same engines.
    const int port = free_port();
    Process small(
        {"/bin/sh", "-c",
         "ulimit -n 60; exec " + std::string(SLUICE_BINARY) + " proxy --workers 1 --port " +
             std::to_string(port) + " --prefill " + prefills_[0].url() + " " +
             std::to_string(prefills_[0].bootstrap_port) + " --decode " + decodes_[0].url()},
        testing::TempDir() + "/small-proxy.log");
    ASSERT_TRUE(wait_until_ok(port, "/ready", 30)) << small.log();
    Crowd crowd;
    for (int i = 0; i < 200; ++i) ASSERT_TRUE(crowd.join(port, ""));
    const double before = cpu_seconds(small.pid());
    std::this_thread::sleep_for(2s);
    EXPECT_LT(cpu_seconds(small.pid()) - before, 0.5) << "it spins";
    EXPECT_TRUE(small.running());
    crowd.disperse();
    HttpAnswer answer;
    for (int tries = 0; tries < 100 && answer.status != 200; ++tries) {
        answer = http_call(port, "GET", "/health", {}, {}, 2);
        std::this_thread::sleep_for(50ms);
    }
    EXPECT_EQ(answer.status, 200);
    EXPECT_NE(http_call(port, "GET", "/metrics").body.find("sluice_accept_pauses_total"),
              std::string::npos);
    small.signal(SIGTERM);
    EXPECT_EQ(small.wait(20), 0) << small.log();
}

TEST_F(AbuseTest, OversizedAndMalformedRequestsAreRefused) {
    start_quick({"--max-body-bytes", "64KiB"});
    const auto status_of = [&](const std::string& bytes, bool half_close = false) {
        const std::string answer = raw_call(proxy_port_, bytes, 5, half_close);
        return answer.size() > 12 ? std::atoi(answer.c_str() + 9) : 0;
    };
    EXPECT_EQ(status_of("GET / HTTP/1.1\r\n\r\n"), 400);  // no Host
    EXPECT_EQ(status_of("GET /" + std::string(10'000, 'a') + " HTTP/1.1\r\nHost: x\r\n\r\n"), 414);
    EXPECT_EQ(status_of("GET / HTTP/1.1\r\nHost: x\r\nA: " + std::string(80'000, 'a') + "\r\n\r\n"),
              431);
    EXPECT_EQ(
        status_of("POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 70000\r\n\r\n"),
        413);
    EXPECT_EQ(status_of("POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: "
                        "1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
              400);
    EXPECT_EQ(
        status_of(
            "POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"),
        501);
    EXPECT_EQ(status_of("GET / HTTP/2.0\r\nHost: x\r\n\r\n"), 505);
    EXPECT_EQ(status_of("BREW / HTTP/1.1\r\nHost: x\r\n\r\n"), 501);
    EXPECT_EQ(status_of("GET / HTTP/1.1\nHost: x\n\n"), 400);
    EXPECT_EQ(status_of("POST /v1/completions HTTP/1.1\r\nHost: x\r\nExpect: "
                        "200-ok\r\nContent-Length: 1\r\n\r\n"),
              417);
    EXPECT_EQ(status_of("GET /health HTTP/1.0\r\n\r\n"), 200);
    // A pipelined pair, answered in order.
    const std::string two = raw_call(proxy_port_,
                                     "GET /health HTTP/1.1\r\nHost: x\r\n\r\nGET /nope "
                                     "HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
                                     5);
    EXPECT_TRUE(two.starts_with("HTTP/1.1 200")) << two;
    EXPECT_NE(two.find("HTTP/1.1 404"), std::string::npos) << two;
    expect_at_rest();
}

TEST_F(AbuseTest, ClientsThatVanishAtAnyMomentLeaveNothing) {
    FleetPlan plan;
    plan.engine_flags = {"--sim-ttft-ms", "10", "--sim-itl-ms", "5", "--sim-output-tokens", "20"};
    start(plan);
    const std::string body =
        R"({"model":"test-model","stream":true,"messages":[{"role":"user","content":"vanish"}]})";
    const std::string request =
        "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: "
        "application/json\r\nContent-Length: " +
        std::to_string(body.size()) + "\r\n\r\n" + body;
    for (std::size_t cut = 1; cut < request.size(); cut += 7) {
        Crowd one;
        ASSERT_TRUE(one.join(proxy_port_, request.substr(0, cut)));
    }
    for (int ms = 0; ms < 150; ms += 3) {
        Crowd one;
        ASSERT_TRUE(one.join(proxy_port_, request));
        std::this_thread::sleep_for(std::chrono::milliseconds(ms));
    }
    expect_at_rest();
    EXPECT_EQ(chat("still there").status, 200);
    // Nothing is held on either side of the hand-over.
    for (int tries = 0; tries < 100; ++tries) {
        const std::string state = http_call(prefills_[0].port, "GET", "/sim/state").body;
        if (state.find("\"blocks_held\":0") != std::string::npos) return;
        std::this_thread::sleep_for(100ms);
    }
    ADD_FAILURE() << http_call(prefills_[0].port, "GET", "/sim/state").body;
}

// A client that has sent its request and ends its side counts as gone, as in nginx and uvicorn,
// unless it may do so.
TEST_F(AbuseTest, HalfClosedSocketsAreServedOnlyIfAllowed) {
    for (const bool allowed : {false, true}) {
        start_quick(allowed ? std::vector<std::string>{"--allow-half-close"}
                            : std::vector<std::string>{});
        const std::string body =
            R"({"model":"test-model","messages":[{"role":"user","content":"half"}]})";
        for (int i = 0; i < 10; ++i) {
            const std::string answer =
                raw_call(proxy_port_,
                         "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: "
                         "application/json\r\nConnection: close\r\nContent-Length: " +
                             std::to_string(body.size()) + "\r\n\r\n" + body,
                         10, true);
            EXPECT_EQ(answer.starts_with("HTTP/1.1 200 OK\r\n"), allowed) << answer;
            EXPECT_TRUE(allowed || answer.empty()) << answer;
        }
        // In mid-head and mid-body nothing is answered either way.
        EXPECT_EQ(raw_call(proxy_port_, "GET /health HTT", 10, true), "");
        EXPECT_EQ(
            raw_call(proxy_port_,
                     "POST /tokenize HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nab", 10, true),
            "");
        expect_at_rest();
        stop();
    }
}

TEST_F(AbuseTest, NamesThatDoNotResolveAreSaidSoAndTheRestWorks) {
    start_quick();
    const int port = free_port();
    Process proxy({SLUICE_BINARY, "proxy", "--port", std::to_string(port), "--prefill",
                   prefills_[0].url(), std::to_string(prefills_[0].bootstrap_port), "--decode",
                   "http://no-such-host.invalid:8000", "--decode", decodes_[0].url()},
                  testing::TempDir() + "/unresolved-proxy.log");
    ASSERT_TRUE(wait_until_ok(port, "/ready", 30)) << proxy.log();
    for (int i = 0; i < 5; ++i)
        EXPECT_EQ(
            http_call(port, "POST", "/v1/completions", R"({"model":"test-model","prompt":"x"})")
                .status,
            200);
    EXPECT_NE(proxy.log().find("no-such-host.invalid"), std::string::npos) << proxy.log();
    proxy.signal(SIGTERM);
    EXPECT_EQ(proxy.wait(20), 0);
}

}  // namespace
}  // namespace sluice::test
