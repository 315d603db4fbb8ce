// SPDX-License-Identifier: Apache-2.0
// A bootstrap server and the workers that register with it, on simulated hosts.
#include "kv/registration.h"

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "support/http_bench.h"

namespace sluice::kv::test {
namespace {

using namespace std::chrono_literals;

TEST(BootstrapEntries, OddRepliesAreRefused) {
    for (const char* bad :
         {"", "[]", R"({"x":{}})", R"({"0":{}})", R"({"0":{"engine_id":1,"worker_addr":{}}})",
          R"({"0":{"engine_id":"a","worker_addr":{"x":{}}}})"})
        EXPECT_FALSE(read_bootstrap_entries(bad).has_value()) << bad;
    const std::string good = R"({"0":{"engine_id":"a","worker_addr":{"0":{"0":"tcp://h:1"}}}})";
    EXPECT_EQ(write_bootstrap_entries(*read_bootstrap_entries(good)), good);
    EXPECT_TRUE(read_bootstrap_entries("{}")->empty());
}

// What real vLLM's worker and bootstrap server were recorded to say.
TEST(BootstrapEntries, VllmsOwnAreWhatWeWrite) {
    std::ifstream file("tests/vectors/mooncake/side_channel.json");
    const auto recorded = nlohmann::json::parse(file);
    const auto query = recorded.at("query").get<std::string>();
    const auto entries = read_bootstrap_entries(query);
    ASSERT_TRUE(entries) << entries.error();
    ASSERT_TRUE(entries->contains(0));
    const RegisteredEngine& engine = entries->at(0);
    EXPECT_EQ(write_bootstrap_entries(*entries), query);
    EXPECT_EQ(write_registration({engine.engine_id, 0, 0, 0, engine.workers.at(0).at(0)}),
              recorded.at("register").get<std::string>());
}

TEST(WorkerPort, IsTheGuidesRule) {
    EXPECT_EQ(worker_port(8998, 0, 1, 0), 8998);
    EXPECT_EQ(worker_port(8998, 0, 4, 3), 9001);
    EXPECT_EQ(worker_port(8998, 3, 4, 2), 8998 + 14);
    EXPECT_EQ(worker_port(65535, 0, 8, 0), 65535);
    const auto beyond = worker_port(65530, 1, 8, 0);
    ASSERT_FALSE(beyond);
    EXPECT_NE(beyond.error().find("65538"), std::string::npos) << beyond.error();
    EXPECT_FALSE(worker_port(8998, 0, 4, 4));
    EXPECT_FALSE(worker_port(8998, UINT32_MAX, UINT32_MAX, 0));
}

class Registration : public ::testing::Test {
protected:
    ~Registration() override {
        registrar.cancel();
        calls.stop();
        if (server) server->stop();
        EXPECT_TRUE(bench.run([&] { return calls.finished() && (!server || server->finished()); }));
    }

    void open_server() {
        server.emplace(bench.server_loop);
        const auto socket = bench.server_loop.io().listen(bench.address, false);
        ASSERT_TRUE(socket.has_value());
        server->open(*socket);
    }
    static std::vector<WorkerRegistration> workers(const std::string& engine, std::uint32_t count) {
        std::vector<WorkerRegistration> all;
        for (std::uint32_t tp = 0; tp < count; ++tp)
            all.push_back({engine, 0, tp, 0, "tcp://10.0.0.1:" + std::to_string(41000 + tp)});
        return all;
    }
    // Registers, and waits for the end.
    std::expected<void, std::string> run(std::vector<WorkerRegistration> all) {
        std::optional<std::expected<void, std::string>> ended;
        const Instant began = bench.world.now();
        registrar.start(
            bench.address, "p:8998", std::move(all),
            [&](std::expected<void, std::string> result) { ended = std::move(result); });
        EXPECT_FALSE(ended.has_value());  // never from within start()
        EXPECT_TRUE(bench.run([&] { return ended.has_value(); }));
        took = bench.world.now() - began;
        return ended.value_or(std::unexpected("no end"));
    }

    sluice::test::Bench bench;
    std::optional<BootstrapServer> server;
    http::Calls calls{bench.client_loop};
    Registrar registrar{bench.client_loop, calls, {}};
    Duration took{};
};

TEST_F(Registration, EveryWorkerIsKnownThenAndAgainIsHarmless) {
    open_server();
    ASSERT_TRUE(run(workers("e", 4)));
    EXPECT_EQ(registrar.registered(), 4U);
    ASSERT_EQ(server->entries().size(), 1U);
    EXPECT_EQ(server->entries().at(0).engine_id, "e");
    EXPECT_EQ(server->entries().at(0).workers.at(3).at(0), "tcp://10.0.0.1:41003");
    const std::string before = write_bootstrap_entries(server->entries());
    ASSERT_TRUE(run(workers("e", 4)));
    EXPECT_EQ(write_bootstrap_entries(server->entries()), before);
    ASSERT_TRUE(run({}));  // nothing to say
}

TEST_F(Registration, ARefusalIsFinalAndQuoted) {
    open_server();
    ASSERT_TRUE(run(workers("e", 1)));
    const auto second = run(workers("other", 1));
    ASSERT_FALSE(second);
    EXPECT_NE(second.error().find("Engine ID mismatch for dp_rank=0: expected e, got other"),
              std::string::npos)
        << second.error();
    EXPECT_EQ(registrar.attempts(), 1);
    auto moved = workers("e", 1);
    moved[0].address = "tcp://10.0.0.9:1";
    EXPECT_FALSE(run(moved));
    EXPECT_EQ(server->entries().at(0).workers.at(0).at(0), "tcp://10.0.0.1:41000");
}

TEST_F(Registration, ThreeAttemptsWithDoublingPauses) {
    const auto ended = run(workers("e", 1));  // nobody listens
    ASSERT_FALSE(ended);
    EXPECT_NE(ended.error().find("3 attempts"), std::string::npos) << ended.error();
    EXPECT_EQ(registrar.attempts(), 3);
    EXPECT_GE(took, 3s);  // 1 + 2, refused at once each time; virtual time
    EXPECT_LT(took, 4s);
}

TEST_F(Registration, AServerThatComesUpMeanwhileIsFound) {
    bench.world.after(1500ms, [&] { open_server(); });
    ASSERT_TRUE(run(workers("e", 2)));
    EXPECT_EQ(server->entries().at(0).workers.size(), 2U);
}

TEST_F(Registration, ASilentServerCostsItsTimeoutsAndNoMore) {
    const auto socket = bench.server_loop.io().listen(bench.address, false);  // nobody accepts
    ASSERT_TRUE(socket.has_value());
    const auto ended = run(workers("e", 1));
    ASSERT_FALSE(ended);
    EXPECT_GE(took, 93s);  // 3 x 30 + 1 + 2
    EXPECT_LT(took, 94s);
    bench.server_loop.io().close(*socket, false);
}

TEST_F(Registration, CancelledIsSilent) {
    bool called = false;
    registrar.start(bench.address, "p", workers("e", 1), [&](auto) { called = true; });
    bench.run_for(1ms);
    registrar.cancel();
    bench.run_for(200s);
    EXPECT_FALSE(called);
}

}  // namespace
}  // namespace sluice::kv::test
