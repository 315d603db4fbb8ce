// SPDX-License-Identifier: Apache-2.0
#include "fleet/policy.h"

#include <gtest/gtest.h>

#include <map>
#include <set>

#include "fleet/policies.h"

namespace sluice::fleet {
namespace {

struct PolicyTest : testing::Test {
    std::vector<Instance> instances;
    std::vector<std::uint16_t> candidates;
    Rng rng{7};
    std::uint64_t turn = 0;

    void make(std::size_t count, Role role = Role::Decode) {
        instances.clear();
        candidates.clear();
        for (std::size_t i = 0; i < count; ++i) {
            Instance instance;
            instance.index = static_cast<std::uint32_t>(i);
            instance.role = role;
            instance.url = "http://10.0.0." + std::to_string(i) + ":8010";
            instance.state = std::make_shared<InstanceState>();
            instances.push_back(std::move(instance));
            candidates.push_back(static_cast<std::uint16_t>(i));
        }
    }
    std::uint16_t pick(Policy policy, std::string_view key = {}, bool with_rng = true) {
        PickContext context;
        context.candidates = candidates;
        context.turn = turn++;
        context.affinity_key = key;
        context.rng = with_rng ? &rng : nullptr;
        return policy(instances, context);
    }
    void load(std::size_t i, std::int32_t in_flight, std::int64_t bytes = 0) {
        instances[i].state->in_flight = in_flight;
        instances[i].state->pending_bytes = bytes;
    }
};

TEST_F(PolicyTest, TableKnowsEveryName) {
    for (const PolicyKind kind :
         {PolicyKind::RoundRobin, PolicyKind::LeastLoaded, PolicyKind::SessionAffinity}) {
        EXPECT_EQ(parse_policy(name_of(kind)), kind);
        EXPECT_NE(policy_of(kind), nullptr);
    }
    EXPECT_EQ(name_of(PolicyKind::LeastLoaded), "least_loaded");
    EXPECT_FALSE(parse_policy("LeastLoaded"));
    EXPECT_FALSE(parse_policy(""));
}

TEST_F(PolicyTest, RoundRobinIsEvenOverTheCandidates) {
    make(5);
    candidates = {0, 2, 4};
    std::map<std::uint16_t, int> picked;
    for (int i = 0; i < 300; ++i) ++picked[pick(pick_round_robin)];
    EXPECT_EQ(picked, (std::map<std::uint16_t, int>{{0, 100}, {2, 100}, {4, 100}}));
}

TEST_F(PolicyTest, LeastLoadedOfOneAndOfTwo) {
    make(2);
    candidates = {1};
    EXPECT_EQ(pick(pick_least_loaded), 1);
    candidates = {0, 1};
    load(0, 5);
    load(1, 4);
    for (int i = 0; i < 100; ++i) EXPECT_EQ(pick(pick_least_loaded), 1);
    load(1, 6);
    for (int i = 0; i < 100; ++i) EXPECT_EQ(pick(pick_least_loaded), 0);
}

TEST_F(PolicyTest, LeastLoadedBreaksTiesFairly) {
    for (const bool with_rng : {true, false}) {
        make(2);
        std::map<std::uint16_t, int> picked;
        for (int i = 0; i < 1000; ++i) ++picked[pick(pick_least_loaded, {}, with_rng)];
        EXPECT_NEAR(picked[0], 500, 80) << with_rng;
    }
}

TEST_F(PolicyTest, PrefillsAreWeighedByBytesThenByNumber) {
    make(2, Role::Prefill);
    load(0, 1, 1000);
    load(1, 9, 10);
    for (int i = 0; i < 50; ++i) EXPECT_EQ(pick(pick_least_loaded), 1);
    load(1, 9, 1000);
    for (int i = 0; i < 50; ++i) EXPECT_EQ(pick(pick_least_loaded), 0);
}

TEST_F(PolicyTest, DecodesAreWeighedByNumberAlone) {
    make(2, Role::Decode);
    load(0, 1, 1000000);
    load(1, 2, 0);
    for (int i = 0; i < 50; ++i) EXPECT_EQ(pick(pick_least_loaded), 0);
}

TEST_F(PolicyTest, LeastLoadedNeverPicksTheWorstOfMany) {
    make(8);
    for (std::size_t i = 0; i < 8; ++i) load(i, static_cast<std::int32_t>(i));
    std::set<std::uint16_t> picked;
    for (int i = 0; i < 2000; ++i) picked.insert(pick(pick_least_loaded));
    EXPECT_FALSE(picked.contains(7));
    EXPECT_EQ(picked.size(), 7U) << "the others are all picked at times: nobody herds";
}

// The known property of two choices: the fullest of n bins stays close to the mean.
TEST_F(PolicyTest, LeastLoadedKeepsTheFleetEven) {
    make(16);
    for (int i = 0; i < 16000; ++i) ++instances[pick(pick_least_loaded)].state->in_flight;
    for (const Instance& instance : instances)
        EXPECT_NEAR(instance.state->in_flight.load(), 1000, 6);
}

TEST_F(PolicyTest, AffinityKeepsAKeyAndSpreadsKeys) {
    make(4);
    std::map<std::uint16_t, int> picked;
    for (int key = 0; key < 4000; ++key) {
        const std::string text = "session-" + std::to_string(key);
        const auto first = pick(pick_session_affinity, text);
        EXPECT_EQ(pick(pick_session_affinity, text), first);
        ++picked[first];
    }
    for (const auto& [instance, keys] : picked) EXPECT_NEAR(keys, 1000, 150) << instance;
    EXPECT_EQ(picked.size(), 4U);
}

TEST_F(PolicyTest, AffinityMovesOnlyTheKeysOfWhoComesOrGoes) {
    make(5);
    int moved = 0;
    for (int key = 0; key < 2000; ++key) {
        const std::string text = std::to_string(key);
        candidates = {0, 1, 2, 3, 4};
        const auto of_five = pick(pick_session_affinity, text);
        candidates = {0, 1, 2, 3};
        const auto of_four = pick(pick_session_affinity, text);
        if (of_five == of_four) continue;
        ++moved;
        EXPECT_EQ(of_five, 4) << "only the keys of the one that is new";
    }
    EXPECT_NEAR(moved, 400, 80);
}

TEST_F(PolicyTest, AffinityDoesNotDependOnTheOrder) {
    make(4);
    for (int key = 0; key < 100; ++key) {
        candidates = {0, 1, 2, 3};
        const auto one = pick(pick_session_affinity, std::to_string(key));
        candidates = {3, 1, 0, 2};
        EXPECT_EQ(pick(pick_session_affinity, std::to_string(key)), one);
    }
}

TEST_F(PolicyTest, AffinityWithoutAKeyIsLeastLoaded) {
    make(2);
    load(0, 3);
    for (int i = 0; i < 50; ++i) EXPECT_EQ(pick(pick_session_affinity), 1);
}

}  // namespace
}  // namespace sluice::fleet
