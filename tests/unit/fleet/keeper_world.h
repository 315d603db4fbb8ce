// SPDX-License-Identifier: Apache-2.0
// A keeper in a simulated world with engines it can ask, and the fixture of the keeper's tests.
//
// Engines run on one simulated host, the keeper on another; time is the world's, so nothing here
// waits for real.
// Threads: one.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "fleet/keeper.h"
#include "io/sim/sim_world.h"
#include "unit/fleet/fake_engine.h"

namespace sluice::fleet::test {

using namespace std::chrono_literals;

// Answers names from a table, at the next look.
class FakeResolver final : public Resolver {
public:
    std::map<std::string, std::vector<std::string>> names;
    std::map<std::string, int> asked;

    void ask(std::string host, std::uint16_t port) override {
        ++asked[host];
        Answer answer{host, port, {}, {Errc::NotResolved}};
        for (const std::string& ip : names[host])
            answer.addresses.push_back(*io::Address::from_ip(ip, port));
        answers_.push_back(std::move(answer));
    }
    std::vector<Answer> take_answers() override { return std::exchange(answers_, {}); }

private:
    std::vector<Answer> answers_;
};

class KeeperWorld {
public:
    explicit KeeperWorld(std::uint64_t seed) : world_({.seed = seed}) {
        engines_host_.attach(engines_loop_);
        proxy_host_.attach(proxy_loop_);
        options_.health_interval = 1s;
        options_.probe_timeout = 300ms;
        options_.bootstrap_refresh = 4s;
        options_.models_interval = 5s;
        options_.resolve_interval = 10s;
        options_.log = [this](std::string_view line) { log_.emplace_back(line); };
        options_.on_published = [this] { ++published_; };
    }

    // Ends everything and looks for what was left.
    void finish() {
        if (keeper_) keeper_->stop();
        for (FakeEngine& engine : engines_) engine.stop();
        EXPECT_TRUE(world_.run_until([&] {
            return (!keeper_ || keeper_->finished()) &&
                   std::ranges::all_of(engines_,
                                       [](const FakeEngine& engine) { return engine.finished(); });
        }));
        keeper_.reset();
        engines_.clear();
        world_.check_clean();
    }

    // -- the world
    FakeEngine& engine(std::string_view host, std::uint16_t port, bool started = true) {
        FakeEngine& made = engines_.emplace_back(engines_loop_, host, port);
        if (started) made.start();
        return made;
    }
    void stop(FakeEngine& engine) {
        engine.stop();
        ASSERT_TRUE(world_.run_until([&] { return engine.finished(); }));
    }
    static std::string query_reply(const std::vector<std::string>& engine_ids, int workers = 1) {
        std::string reply = "{";
        for (std::size_t rank = 0; rank < engine_ids.size(); ++rank) {
            reply += (rank == 0 ? "\"" : ",\"") + std::to_string(rank) + R"(":{"engine_id":")" +
                     engine_ids[rank] + R"(","worker_addr":{)";
            for (int i = 0; i < workers; ++i)
                reply += (i == 0 ? "\"" : ",\"") + std::to_string(i) +
                         R"(":{"0":"tcp://10.0.0.1:4000"})";
            reply += "}}";
        }
        return reply + "}";
    }

    // -- the keeper
    void keep(const std::vector<InstanceSpec>& prefill, const std::vector<InstanceSpec>& decode) {
        auto first = make_fleet(prefill, decode, options_.connector);
        ASSERT_TRUE(first.has_value()) << first.error();
        fleet_ = std::make_unique<Fleet>(*first);
        keeper_ = std::make_unique<Keeper>(proxy_loop_, *fleet_, resolver_, options_);
        keeper_->start();
    }
    std::shared_ptr<const FleetSnapshot> now() const { return fleet_->load(); }
    const InstanceState& state_of(Role role, std::size_t i = 0) const {
        return *now()->of(role)[i].state;
    }
    std::vector<std::string> ids(std::size_t i = 0) const {
        std::vector<std::string> found;
        for (const DataParallelRank& rank : now()->prefill[i].ranks)
            found.push_back(rank.engine_id);
        return found;
    }
    DialectKind dialect(std::size_t i = 0) const { return now()->prefill[i].dialect; }
    bool reachable(Role role, std::size_t i = 0) const {
        return state_of(role, i).reachable.load();
    }

    bool until(const std::function<bool()>& done, Duration most = 30s) {
        io::sim::RunLimits limits;
        limits.time = most;
        return world_.run_until(done, limits);
    }
    void run_for(Duration time) { world_.run_for(time); }
    int logged(std::string_view part) const {
        return static_cast<int>(std::ranges::count_if(
            log_, [&](const std::string& line) { return line.find(part) != std::string::npos; }));
    }

    io::sim::SimWorld world_;
    io::sim::SimHost& engines_host_ = world_.add_host("engines");
    io::sim::SimHost& proxy_host_ = world_.add_host("proxy");
    io::Loop engines_loop_{engines_host_.io()};
    io::Loop proxy_loop_{proxy_host_.io()};
    KeeperOptions options_;
    FakeResolver resolver_;
    std::unique_ptr<Fleet> fleet_;
    std::deque<FakeEngine> engines_;
    std::unique_ptr<Keeper> keeper_;
    std::vector<std::string> log_;
    int published_ = 0;
};

class KeeperTest : public testing::Test, protected KeeperWorld {
protected:
    KeeperTest() : KeeperWorld(11) {}
    void TearDown() override { finish(); }
};

}  // namespace sluice::fleet::test
