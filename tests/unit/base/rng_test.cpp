// SPDX-License-Identifier: Apache-2.0
#include "base/rng.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <vector>

namespace sluice {
namespace {

// The published first outputs of both generators: a seed must mean the same on every machine and
// for ever.
TEST(Rng, IsTheGeneratorItSaysItIs) {
    std::uint64_t state = 1234567;
    EXPECT_EQ(splitmix64(state), 6457827717110365317ULL);
    EXPECT_EQ(splitmix64(state), 3203168211198807973ULL);
    EXPECT_EQ(splitmix64(state), 9817491932198370423ULL);
    // xoshiro256** by its definition, from the same seeding.
    std::uint64_t seed = 42;
    std::array<std::uint64_t, 4> s{};
    for (auto& word : s) word = splitmix64(seed);
    Rng rng(42);
    for (int i = 0; i < 100; ++i) {
        const std::uint64_t expected = std::rotl(s[1] * 5, 7) * 9;
        const std::uint64_t t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = std::rotl(s[3], 45);
        ASSERT_EQ(rng(), expected);
    }
}

TEST(Rng, OneSeedGivesOneSequence) {
    Rng a(7);
    Rng b(7);
    Rng c(8);
    int equal = 0;
    for (int i = 0; i < 100; ++i) {
        const auto value = a();
        EXPECT_EQ(value, b());
        equal += value == c() ? 1 : 0;
    }
    EXPECT_EQ(equal, 0);
}

TEST(Rng, StaysWithinItsBoundsAndReachesThem) {
    Rng rng(1);
    std::array<int, 7> counts{};
    for (int i = 0; i < 70'000; ++i) ++counts[rng.below(7)];
    for (const int count : counts) {
        EXPECT_GT(count, 9'500);
        EXPECT_LT(count, 10'500);
    }
    std::uint64_t low = UINT64_MAX;
    std::uint64_t high = 0;
    for (int i = 0; i < 1000; ++i) {
        const auto value = rng.between(5, 9);
        low = std::min(low, value);
        high = std::max(high, value);
    }
    EXPECT_EQ(low, 5u);
    EXPECT_EQ(high, 9u);
    EXPECT_EQ(rng.below(1), 0u);
    EXPECT_EQ(rng.between(3, 3), 3u);
}

TEST(Rng, ChancesAreWhatTheySay) {
    Rng rng(2);
    int hits = 0;
    for (int i = 0; i < 100'000; ++i) {
        const double unit = rng.unit();
        ASSERT_GE(unit, 0.0);
        ASSERT_LT(unit, 1.0);
        hits += rng.chance(0.25) ? 1 : 0;
        ASSERT_FALSE(rng.chance(0));
        ASSERT_TRUE(rng.chance(1));
    }
    EXPECT_NEAR(hits, 25'000, 600);
}

TEST(Rng, ShufflesWithTheStandardLibrary) {
    Rng rng(3);
    std::vector<int> values{1, 2, 3, 4, 5, 6, 7, 8};
    std::ranges::shuffle(values, rng);
    std::ranges::sort(values);
    EXPECT_EQ(values, (std::vector{1, 2, 3, 4, 5, 6, 7, 8}));
}

}  // namespace
}  // namespace sluice
