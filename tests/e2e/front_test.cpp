// SPDX-License-Identifier: Apache-2.0
// Every way in and out: unix sockets and IPv6 on both sides, a configuration file, keys from a
// file, affinity, and HTTP as curl speaks it.
#include <gtest/gtest.h>

#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <set>
#include <thread>

#include "support/process.h"

namespace sluice::test {
namespace {

using namespace std::chrono_literals;
using Words = std::vector<std::string>;

class FrontTest : public testing::Test {
protected:
    // An IPv6 prefill with three data-parallel ranks, two decodes on unix sockets, and the proxy on
    // IPv4, IPv6 and a unix socket.
    void SetUp() override {
        // Short: a unix socket's path has 107 characters.
        folder_ = "/tmp/sluice-front-" + std::to_string(::getpid());
        std::filesystem::create_directories(folder_);
        const int prefill = free_port(), bootstrap = free_port();
        port_ = std::to_string(free_port());
        prefill_ = "http://[::1]:" + std::to_string(prefill);
        start("prefill",
              {"engine", "m", "--host", "::1", "--port", std::to_string(prefill),
               "--data-parallel-size", "3", "--sim-ttft-ms", "1", "--sim-itl-ms", "0",
               "--kv-transfer-config",
               R"({"kv_connector":"MooncakeConnector","kv_role":"kv_producer"})"},
              {{"VLLM_MOONCAKE_BOOTSTRAP_PORT", std::to_string(bootstrap)}});
        for (const std::string name : {"decode1", "decode2"})
            start(name, {"engine", "m", "--uds", folder_ + "/" + name, "--sim-ttft-ms", "1",
                         "--sim-itl-ms", "0", "--kv-transfer-config",
                         R"({"kv_connector":"MooncakeConnector","kv_role":"kv_consumer"})"});
        std::ofstream(folder_ + "/keys") << "key-one\nkey-two\n";
        std::ofstream(folder_ + "/sluice.toml")
            << "prefill = [[\"" << prefill_ << "\", " << bootstrap << "]]\n"
            << "decode = [\"unix:" << folder_ << "/decode1\", \"unix:" << folder_ << "/decode2\"]\n"
            << "listen = [\"[::1]:" << port_ << "\", \"127.0.0.1:" << port_
            << "\", \"unix:" << folder_ << "/front\"]\n"
            << "api-key-file = \"" << folder_ << "/keys\"\n"
            << "decode-policy = \"session_affinity\"\nexpose-instances = true\n";
        start("proxy", {"proxy", "--config", folder_ + "/sluice.toml"});
        const std::string all = R"("ready":true,"prefill":1,"decode":2)";
        for (int tries = 0; tries < 3000; ++tries) {
            if (http_call(std::stoi(port_), "GET", "/ready", "").body.find(all) !=
                std::string::npos)
                return;
            std::this_thread::sleep_for(10ms);
        }
        FAIL() << processes_.back()->log();
    }
    void TearDown() override {
        processes_.back()->signal(SIGTERM);
        EXPECT_EQ(processes_.back()->wait(40), 0) << processes_.back()->log();
        processes_.clear();
        std::filesystem::remove_all(folder_);
    }

    void start(const std::string& name, Words words,
               const std::map<std::string, std::string>& environment = {}) {
        words.insert(words.begin(), SLUICE_BINARY);
        processes_.push_back(
            std::make_unique<Process>(words, folder_ + "/" + name + ".log", environment));
    }
    // What it prints: with -i the head, too.
    std::string curl(Words words) const {
        words.insert(words.begin(), {"/usr/bin/env", "curl", "-s", "-i", "-g", "--max-time", "20"});
        Process process(words, folder_ + "/curl.log");
        EXPECT_EQ(process.wait(30), 0) << words.back();
        return process.log();
    }
    std::string chat(Words words, const std::string& key = "Bearer key-two") const {
        words.insert(words.begin(),
                     {"-H", "Authorization: " + key, "-H", "Content-Type: application/json", "-d",
                      R"({"model":"m","messages":[{"role":"user","content":"x"}]})"});
        return curl(words);
    }
    std::string path() const { return "http://127.0.0.1:" + port_ + "/v1/chat/completions"; }
    static int status_of(const std::string& answer) {
        return answer.size() > 12 ? std::atoi(answer.c_str() + 9) : 0;
    }
    static std::string field_of(const std::string& answer, const std::string& name) {
        const auto at = answer.find("\r\n" + name + ": ");
        if (at == std::string::npos) return {};
        const auto from = at + name.size() + 4;
        return answer.substr(from, answer.find("\r\n", from) - from);
    }

    std::string folder_;
    std::string port_;
    std::string prefill_;
    std::vector<std::unique_ptr<Process>> processes_;
};

TEST_F(FrontTest, UnixSocketsAndIpv6InFrontAndBehind) {
    const std::string first = chat({path()});
    EXPECT_EQ(status_of(first), 200) << first;
    EXPECT_EQ(field_of(first, "X-Sluice-Prefill"), prefill_);
    EXPECT_TRUE(field_of(first, "X-Sluice-Decode").starts_with("unix:" + folder_)) << first;
    EXPECT_EQ(status_of(chat({"http://[::1]:" + port_ + "/v1/chat/completions"})), 200);
    EXPECT_EQ(
        status_of(chat({"--unix-socket", folder_ + "/front", "http://x/v1/chat/completions"})),
        200);
    // Each with the right engine id and rank, or the decode would have failed.
    for (int i = 0; i < 9; ++i) EXPECT_EQ(status_of(chat({path()})), 200);
}

TEST_F(FrontTest, KeysOfAFile) {
    EXPECT_EQ(status_of(chat({path()}, "Bearer key-one")), 200);
    EXPECT_EQ(status_of(chat({path()}, "Bearer key-three")), 401);
    EXPECT_EQ(status_of(chat({path()}, "key-one")), 401);
    EXPECT_EQ(status_of(curl({"-X", "POST", path()})), 401);
    EXPECT_EQ(
        status_of(curl({"-H", "x-api-key: key-one", "-H", "Content-Type: application/json", "-d",
                        R"({"model":"m","max_tokens":3,)"
                        R"("messages":[{"role":"user","content":"x"}]})",
                        "http://127.0.0.1:" + port_ + "/v1/messages"})),
        200);
    EXPECT_EQ(status_of(curl({"http://127.0.0.1:" + port_ + "/health"})), 200) << "no key needed";
}

TEST_F(FrontTest, ASessionStaysWithItsDecode) {
    std::set<std::string> used;
    for (int session = 0; session < 8; ++session) {
        std::set<std::string> decodes;
        for (int i = 0; i < 4; ++i)
            decodes.insert(
                field_of(chat({"-H", "X-Session-ID: s" + std::to_string(session), path()}),
                         "X-Sluice-Decode"));
        EXPECT_EQ(decodes.size(), 1U) << session;
        used.insert(*decodes.begin());
    }
    EXPECT_EQ(used.size(), 2U);
}

TEST_F(FrontTest, HttpAsCurlSpeaksIt) {
    EXPECT_EQ(status_of(chat({"-0", path()})), 200);
    EXPECT_EQ(status_of(chat({"-H", "Transfer-Encoding: chunked", path()})), 200);
    const std::string expecting = chat({"-H", "Expect: 100-continue", path()});
    EXPECT_TRUE(expecting.starts_with("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n"))
        << expecting;
    const std::string head = curl({"-I", "http://127.0.0.1:" + port_ + "/version"});
    EXPECT_EQ(status_of(head), 200);
    EXPECT_TRUE(head.ends_with("\r\n\r\n")) << "no body: " << head;
    EXPECT_EQ(field_of(chat({"-H", "X-Request-Id: mine-1", path()}), "X-Request-Id"), "mine-1");
    EXPECT_EQ(field_of(chat({path()}), "X-Request-Id").size(), 32U) << "minted";
    // Two requests over one connection.
    const std::string two = chat({path(), path(), "-w", "connects=%{num_connects};"});
    EXPECT_NE(two.find("connects=0;"), std::string::npos) << "the second made no connection: " << two;
}

}  // namespace
}  // namespace sluice::test
