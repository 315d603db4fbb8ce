// SPDX-License-Identifier: Apache-2.0
#include "obs/histogram.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include "base/rng.h"

namespace sluice::obs {
namespace {

TEST(Histogram, EmptyOneSaysNothing) {
    const auto histogram = std::make_unique<Histogram>();
    EXPECT_EQ(histogram->count(), 0U);
    EXPECT_EQ(histogram->quantile(0.5), 0U);
    EXPECT_EQ(histogram->mean(), 0.0);
    EXPECT_EQ(histogram->count_up_to(Histogram::kValueMax), 0U);
}

TEST(Histogram, SmallValuesAreExact) {
    const auto histogram = std::make_unique<Histogram>();
    for (std::uint64_t value = 0; value < 128; ++value) histogram->record(value);
    for (std::uint64_t value = 0; value < 128; ++value) {
        EXPECT_EQ(histogram->quantile(static_cast<double>(value + 1) / 128), value);
        EXPECT_EQ(histogram->count_up_to(value), value + 1);
    }
    EXPECT_EQ(histogram->max(), 127U);
    EXPECT_EQ(histogram->sum(), 127U * 128 / 2);
}

// Against the sorted values themselves.
TEST(Histogram, QuantilesAreOffByLessThanOnePercent) {
    Rng rng(7);
    const auto histogram = std::make_unique<Histogram>();
    std::vector<std::uint64_t> values;
    for (int i = 0; i < 20'000; ++i) {
        const std::uint64_t value = rng() >> rng.between(23, 60);
        values.push_back(value);
        histogram->record(value);
    }
    std::ranges::sort(values);
    for (const double q : {0.0, 0.01, 0.25, 0.5, 0.9, 0.99, 0.999, 1.0}) {
        const auto rank = static_cast<std::size_t>(
            std::max(1.0, std::ceil(q * static_cast<double>(values.size()))));
        const auto exact = static_cast<double>(values[rank - 1]);
        EXPECT_NEAR(static_cast<double>(histogram->quantile(q)), exact, exact / 100) << q;
    }
    EXPECT_EQ(histogram->count(), values.size());
    EXPECT_EQ(histogram->count_up_to(Histogram::kValueMax), values.size());
}

TEST(Histogram, ValuesBeyondTheLastBucketCountAsTheLargest) {
    const auto histogram = std::make_unique<Histogram>();
    histogram->record(UINT64_MAX);
    histogram->record(Duration(-5));
    EXPECT_EQ(histogram->count(), 2U);
    EXPECT_EQ(histogram->max(), Histogram::kValueMax);
    EXPECT_EQ(histogram->quantile(0.5), 0U);
    EXPECT_GE(histogram->quantile(1), Histogram::kValueMax / 128 * 127);
}

TEST(Histogram, MergingIsRecordingBoth) {
    Rng rng(8);
    const auto both = std::make_unique<Histogram>();
    const auto one = std::make_unique<Histogram>();
    const auto other = std::make_unique<Histogram>();
    for (int i = 0; i < 5000; ++i) {
        const std::uint64_t value = rng.below(1'000'000'000);
        (i % 3 == 0 ? one : other)->record(value);
        both->record(value);
    }
    one->merge(*other);
    for (const double q : {0.1, 0.5, 0.99, 1.0}) EXPECT_EQ(one->quantile(q), both->quantile(q));
    EXPECT_EQ(one->sum(), both->sum());
    EXPECT_EQ(one->max(), both->max());
    one->clear();
    EXPECT_EQ(one->count(), 0U);
    EXPECT_EQ(one->max(), 0U);
}

}  // namespace
}  // namespace sluice::obs
