// SPDX-License-Identifier: Apache-2.0
// The keeper under everything the simulated network and its engines can do to it, one history a
// seed: whatever came before, once there is calm the snapshot is true, and in the end nothing is
// left behind. SLUICE_SEEDS sets how many seeds run, SLUICE_SEED runs one.
#include <cstdlib>

#include "unit/fleet/keeper_world.h"

namespace sluice::fleet::test {
namespace {

class Storm : public KeeperWorld {
public:
    explicit Storm(std::uint64_t seed) : KeeperWorld(seed), dice_(seed ^ 0x57012) {}

    void run() {
        io::sim::Faults faults = io::sim::Faults::stormy();
        faults.reset = 0.02;
        faults.refuse = 0.2;
        faults.lose_syn = 0.1;
        faults.clock_jump = 0.002;
        world_.faults() = faults;
        for (const auto& [host, port] : {std::pair{"10.0.0.1", 8010},
                                         {"10.0.0.1", 8998},
                                         {"10.0.0.2", 8010},
                                         {"10.0.0.2", 8998},
                                         {"10.0.0.3", 8020}})
            engine(host, static_cast<std::uint16_t>(port));
        for (const std::size_t boot : {1U, 3U}) new_life(boot);
        for (FakeEngine& one : engines_)
            one.replies["/v1/models"].body = R"({"data":[{"id":"m"}]})";
        resolver_.names["p2.local"] = {"10.0.0.2"};
        options_.connector = KvConnector::Auto;
        keep({{"http://10.0.0.1:8010", 8998}, {"http://p2.local:8010", 8998}},
             {{"http://10.0.0.3:8020", 0}});
        for (int i = 0; i < 40; ++i) {
            something_happens();
            run_for(Duration(dice_.below(3'000'000'000)));
            check_always();
        }
        calm();
        EXPECT_TRUE(until([&] { return truth(); }, 60s)) << world_.report() << log_.back();
        finish();
    }

private:
    void new_life(std::size_t boot) {
        // As many ranks as before, or others; while they register there are fewer.
        const auto ranks = dice_.between(1, 3);
        std::vector<std::string> born;
        for (std::uint64_t i = 0; i < ranks; ++i) born.push_back("life" + std::to_string(++lives_));
        present_[boot] = born;
        engines_[boot].replies["/query"] = {200, query_reply(born), false};
    }

    void something_happens() {
        FakeEngine& one = engines_[dice_.below(engines_.size())];
        switch (dice_.below(8)) {
            case 0:
                one.replies["/health"].status = 503;
                break;
            case 1:
                one.replies["/health"].hangs = true;
                break;
            case 2:
                one.replies["/query"] = {200, dice_.chance(0.5) ? "{}" : "garbage", false};
                break;
            case 3:
                one.replies["/query"].hangs = true;
                break;
            case 4:
                new_life(dice_.chance(0.5) ? 1 : 3);
                break;
            case 5:
                now()->prefill[dice_.below(2)].state->refresh_wanted = true;
                break;
            case 6:
                resolver_.names["p2.local"] = {dice_.chance(0.5) ? "10.0.0.2" : "10.0.0.99"};
                break;
            case 7:
                one.stop();
                if (until([&] { return one.finished(); }, 60s)) one.start();
                break;
        }
        if (dice_.chance(0.4)) one.replies["/health"] = {};
    }

    // Published ranks are those of one life, never a mixture and never twice.
    void check_always() {
        for (const Instance& instance : now()->prefill) {
            EXPECT_LE(instance.ranks.size(), 3U);
            for (std::size_t i = 0; i < instance.ranks.size(); ++i) {
                EXPECT_EQ(instance.ranks[i].rank, i);
                EXPECT_TRUE(instance.ranks[i].engine_id.starts_with("life"));
            }
        }
    }

    void calm() {
        world_.faults() = io::sim::Faults();
        resolver_.names["p2.local"] = {"10.0.0.2"};
        for (FakeEngine& one : engines_) one.replies["/health"] = {};
        for (const auto& [boot, born] : present_)
            engines_[boot].replies["/query"] = {200, query_reply(born), false};
    }

    bool truth() {
        return ids(0) == present_[1] && ids(1) == present_[3] &&
               dialect(0) == DialectKind::Mooncake && dialect(1) == DialectKind::Mooncake &&
               reachable(Role::Prefill, 0) && reachable(Role::Prefill, 1) &&
               reachable(Role::Decode) &&
               now()->models_json == R"({"object":"list","data":[{"id":"m"}]})" &&
               now()->prefill[1].address.text() == "10.0.0.2:8010";
    }

    Rng dice_;
    int lives_ = 0;
    std::map<std::size_t, std::vector<std::string>> present_;
};

TEST(KeeperStorm, TheSnapshotIsTrueInTheEnd) {
    const char* one = std::getenv("SLUICE_SEED");
    const char* many = std::getenv("SLUICE_SEEDS");
    const std::uint64_t first = one != nullptr ? std::strtoull(one, nullptr, 10) : 1;
    const std::uint64_t count = one != nullptr    ? 1
                                : many != nullptr ? std::strtoull(many, nullptr, 10)
                                                  : 100;
    for (std::uint64_t seed = first; seed < first + count; ++seed) {
        SCOPED_TRACE("SLUICE_SEED=" + std::to_string(seed));
        Storm(seed).run();
        if (testing::Test::HasFailure()) return;
    }
}

}  // namespace
}  // namespace sluice::fleet::test
