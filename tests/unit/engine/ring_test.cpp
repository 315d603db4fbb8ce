// SPDX-License-Identifier: Apache-2.0
// The same engines on the real ring over loopback: one hand-over in each dialect, and a stop that
// leaves nothing.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "bench.h"
#include "io/uring/uring_io.h"

namespace sluice::engine::test {
namespace {

class Ring : public ::testing::Test {
protected:
    void SetUp() override {
        const auto capabilities = io::probe_uring();
        if (!capabilities.sufficient()) GTEST_SKIP() << io::explain_missing(capabilities);
        auto made = io::UringIo::create({.capabilities = capabilities});
        ASSERT_TRUE(made.has_value());
        io_ = std::move(*made);
        loop_ = std::make_unique<io::Loop>(*io_);
    }
    bool turn_until(const std::function<bool()>& done) {
        const Instant limit = MonotonicClock::now() + 20s;
        while (!done() && MonotonicClock::now() < limit) loop_->run_turn(10ms);
        return done();
    }
    Engine& add(ConnectorKind connector, KvRole role) {
        EngineOptions options;
        options.listen = *io::Address::from_ip("127.0.0.1", 0);
        options.kv.connector = connector;
        options.kv.role = role;
        options.kv.bootstrap_port = options.kv.nixl_port = 0;
        options.timing.first_token = options.timing.between_tokens = 1ms;
        options.seed = engines_.size() + 1;
        engines_.push_back(std::make_unique<Engine>(*loop_, options));
        EXPECT_TRUE(engines_.back()->start().has_value());
        pools_.push_back(std::make_unique<http::UpstreamPool>(*loop_, engines_.back()->address(),
                                                              http::UpstreamOptions{}));
        return *engines_.back();
    }
    Ask& ask(std::size_t engine, const Json& body) {
        asks_.push_back(std::make_unique<Ask>(*loop_, *pools_[engine]));
        asks_.back()->start("POST", "/v1/chat/completions", body.dump());
        return *asks_.back();
    }
    void TearDown() override {
        if (!loop_) return;
        asks_.clear();
        for (auto& engine : engines_) engine->stop();
        for (auto& pool : pools_) pool->drain();
        EXPECT_TRUE(turn_until([&] {
            bool over = true;
            for (auto& engine : engines_) over = over && engine->finished();
            for (auto& pool : pools_) over = over && pool->open() == 0;
            return over;
        }));
        pools_.clear();
        engines_.clear();
        EXPECT_EQ(io_->operations_in_flight(), 0U);
    }

    std::unique_ptr<io::UringIo> io_;
    std::unique_ptr<io::Loop> loop_;
    std::vector<std::unique_ptr<Engine>> engines_;
    std::vector<std::unique_ptr<http::UpstreamPool>> pools_;
    std::vector<std::unique_ptr<Ask>> asks_;
};

Json story(bool stream) {
    Json body;
    body["messages"] = Json::array({{{"role", "user"}, {"content", "Tell me a long story."}}});
    body["max_tokens"] = 12;
    body["stream"] = stream;
    return body;
}

TEST_F(Ring, MooncakeBothLegsAtOnce) {
    Engine& p = add(ConnectorKind::Mooncake, KvRole::Producer);
    add(ConnectorKind::Mooncake, KvRole::Consumer);
    add(ConnectorKind::None, KvRole::Both);
    for (int i = 0; i < 40; ++i) {
        const std::string transfer = "t" + std::to_string(i);
        Json for_p = story(false);
        for_p["max_tokens"] = 1;
        for_p["kv_transfer_params"] = {{"do_remote_decode", true}, {"transfer_id", transfer}};
        Json for_d = story(true);
        for_d["kv_transfer_params"] = {
            {"do_remote_prefill", true},
            {"transfer_id", transfer},
            {"remote_engine_id", p.engine_id()},
            {"remote_bootstrap_addr", "http://" + p.bootstrap_address().text()}};
        ask(0, for_p);
        ask(1, for_d);
    }
    Ask& alone = ask(2, story(false));
    ASSERT_TRUE(turn_until(
        [&] { return std::ranges::all_of(asks_, [](const auto& each) { return each->done; }); }));
    for (std::size_t i = 1; i < 80; i += 2) EXPECT_EQ(asks_[i]->text(), alone.text());
    EXPECT_EQ(p.state().scheduler.blocks_used, 0U);
    EXPECT_EQ(p.state().counters.transfers, 40U);
}

TEST_F(Ring, NixlOneLegAfterTheOther) {
    add(ConnectorKind::Nixl, KvRole::Both);
    add(ConnectorKind::Nixl, KvRole::Both);
    add(ConnectorKind::None, KvRole::Both);
    Json for_p = story(false);
    for_p["max_tokens"] = 1;
    for_p["kv_transfer_params"] = {{"do_remote_decode", true}};
    Ask& leg = ask(0, for_p);
    ASSERT_TRUE(turn_until([&] { return leg.done; }));
    Json for_d = story(true);
    for_d["kv_transfer_params"] = leg.json()["kv_transfer_params"];
    Ask& answer = ask(1, for_d);
    Ask& alone = ask(2, story(false));
    ASSERT_TRUE(turn_until([&] { return answer.done && alone.done; }));
    EXPECT_EQ(answer.text(), alone.text());
    EXPECT_FALSE(answer.text().empty());
}

TEST_F(Ring, StopsWithEverythingUnderWay) {
    add(ConnectorKind::None, KvRole::Both);
    Json body = story(true);
    body["max_tokens"] = 3000;  // all fifty have blocks
    body["ignore_eos"] = true;
    std::vector<Ask*> running;
    for (int i = 0; i < 50; ++i) running.push_back(&ask(0, body));
    ASSERT_TRUE(turn_until([&] {
        return std::ranges::all_of(running,
                                   [](const Ask* each) { return each->body.size() > 5000; });
    }));
    EXPECT_EQ(engines_[0]->state().scheduler.running, 50U);
}

}  // namespace
}  // namespace sluice::engine::test
