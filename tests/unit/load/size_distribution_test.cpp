// SPDX-License-Identifier: Apache-2.0
#include "load/size_distribution.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <vector>

namespace sluice::load {
namespace {

TEST(SizeDistribution, ReadsItsForms) {
    Rng rng(1);
    EXPECT_EQ(SizeDistribution::parse("140")->draw(rng), 140U);
    EXPECT_EQ(SizeDistribution::parse("0")->largest(), 0U);
    const auto uniform = SizeDistribution::parse("uniform:10:20");
    ASSERT_TRUE(uniform);
    std::set<std::uint64_t> seen;
    for (int i = 0; i < 1000; ++i) seen.insert(uniform->draw(rng));
    EXPECT_EQ(seen.size(), 11U);
    EXPECT_EQ(*seen.begin(), 10U);
    EXPECT_EQ(*seen.rbegin(), 20U);
    const auto list = SizeDistribution::parse("list:1:5:9");
    ASSERT_TRUE(list);
    seen.clear();
    for (int i = 0; i < 1000; ++i) seen.insert(list->draw(rng));
    EXPECT_EQ(seen, (std::set<std::uint64_t>{1, 5, 9}));
    EXPECT_EQ(list->largest(), 9U);
    EXPECT_EQ(list->smallest(), 1U);
}

TEST(SizeDistribution, LogNormalHasItsMedianAndItsLimit) {
    Rng rng(2);
    const auto sizes = SizeDistribution::parse("lognormal:1000:1.5:20000");
    ASSERT_TRUE(sizes);
    std::vector<std::uint64_t> drawn;
    for (int i = 0; i < 20'000; ++i) drawn.push_back(sizes->draw(rng));
    std::ranges::sort(drawn);
    EXPECT_NEAR(static_cast<double>(drawn[10'000]), 1000, 50);
    EXPECT_EQ(drawn.back(), 20'000U);
    EXPECT_EQ(sizes->largest(), 20'000U);
}

TEST(SizeDistribution, RefusesEverythingElse) {
    for (const char* text :
         {"", "-1", "1.5", "12x", "uniform", "uniform:1", "uniform:5:1", "uniform:1:2:3",
          "list:", "list:1::2", "lognormal:5:1", "lognormal:5:x:9", "lognormal:5:-1:9",
          "lognormal:9:1:5", "normal:1:2", "99999999999999999999"})
        EXPECT_FALSE(SizeDistribution::parse(text)) << text;
}

}  // namespace
}  // namespace sluice::load
