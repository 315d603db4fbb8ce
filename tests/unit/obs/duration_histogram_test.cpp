// SPDX-License-Identifier: Apache-2.0
#include "obs/duration_histogram.h"

#include <gtest/gtest.h>

#include <numeric>
#include <thread>

#include "base/rng.h"
#include "obs/prometheus.h"

namespace sluice::obs {
namespace {

TEST(DurationHistogram, ABoundIsTheLargestOfItsBucket) {
    for (std::size_t i = 0; i < DurationHistogram::kBounds; ++i) {
        const std::uint64_t bound = DurationHistogram::kUpperBounds[i];
        EXPECT_EQ(DurationHistogram::bucket_of(bound), i);
        EXPECT_EQ(DurationHistogram::bucket_of(bound + 1), i + 1);
        EXPECT_DOUBLE_EQ(std::stod(std::string(DurationHistogram::kBoundTexts[i])) * 1e9,
                         static_cast<double>(bound));
    }
    EXPECT_EQ(DurationHistogram::bucket_of(0), 0U);
    EXPECT_EQ(DurationHistogram::bucket_of(UINT64_MAX), DurationHistogram::kBounds);
}

// Against the first bound that is not below the value.
TEST(DurationHistogram, EveryValueFallsIntoItsBucket) {
    Rng rng(11);
    for (int i = 0; i < 100'000; ++i) {
        const std::uint64_t ns = rng() >> rng.below(64);
        std::size_t expected = 0;
        while (expected < DurationHistogram::kBounds &&
               DurationHistogram::kUpperBounds[expected] < ns)
            ++expected;
        ASSERT_EQ(DurationHistogram::bucket_of(ns), expected) << ns;
    }
}

TEST(DurationHistogram, IsWrittenWithRisingBucketsAndExactSums) {
    DurationHistogram one;
    DurationHistogram other;
    one.record(std::chrono::microseconds(9));
    one.record(std::chrono::milliseconds(2));
    one.record(Duration(-3));
    other.record(std::chrono::hours(1));
    DurationHistogram::Sum sum;
    sum.add(one);
    sum.add(other);
    PrometheusText text;
    text.family("x_seconds", "histogram", "Some.");
    text.histogram(label("k", "a\"\\\n"), sum);
    const std::string page = text.take();
    const std::string labels = R"({k="a\"\\\n")";
    EXPECT_TRUE(page.starts_with("# HELP x_seconds Some.\n# TYPE x_seconds histogram\n")) << page;
    for (const std::string line : {R"(,le="0.00001"} 2)", R"(,le="0.001"} 2)", R"(,le="0.0025"} 3)",
                                   R"(,le="1000"} 3)", R"(,le="+Inf"} 4)"})
        EXPECT_NE(page.find("\nx_seconds_bucket" + labels + line + "\n"), std::string::npos)
            << line << "\n"
            << page;
    EXPECT_NE(page.find("\nx_seconds_sum" + labels + "} 3600.002009000\n"), std::string::npos)
        << page;
    EXPECT_TRUE(page.ends_with("\nx_seconds_count" + labels + "} 4\n")) << page;
}

TEST(DurationHistogram, MayBeReadWhileItIsWritten) {
    constexpr std::uint64_t kValues = 200'000;
    DurationHistogram histogram;
    std::jthread writer([&] {
        for (std::uint64_t i = 0; i < kValues; ++i)
            histogram.record(Duration(static_cast<std::int64_t>(i)));
    });
    std::uint64_t seen = 0;
    while (seen < kValues) {
        DurationHistogram::Sum sum;
        sum.add(histogram);
        const std::uint64_t now =
            std::accumulate(sum.buckets.begin(), sum.buckets.end(), std::uint64_t{0});
        ASSERT_GE(now, seen);
        seen = now;
    }
    EXPECT_EQ(seen, kValues);
}

}  // namespace
}  // namespace sluice::obs
