// SPDX-License-Identifier: Apache-2.0
#include "load/report.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <nlohmann/json.hpp>

#include "load/process_usage.h"

namespace sluice::load {
namespace {

LoadResult made_result() {
    LoadResult result;
    Tally& tally = *result.tally;
    tally.started.add(10);
    tally.succeeded.add(8);
    tally.failures[static_cast<std::size_t>(Failure::Timeout)].add(2);
    tally.events.add(80);
    for (int i = 1; i <= 8; ++i) tally.total.record(std::chrono::milliseconds(i));
    result.seconds = 2;
    result.ended = 10;
    result.events = 80;
    result.targets = {{.pid = 7, .name = "a\"b", .cpu_seconds = 0.001, .resident_bytes_max = 4096},
                      {.pid = 8, .name = "c", .gone = true}};
    return result;
}

TEST(LoadReport, JsonSaysWhatWasCounted) {
    const auto json = nlohmann::json::parse(json_of(LoadOptions{}, made_result()));
    EXPECT_EQ(json["started"], 10);
    EXPECT_EQ(json["succeeded"], 8);
    EXPECT_EQ(json["failed"], 2);
    EXPECT_EQ(json["failures"]["timeout"], 2);
    EXPECT_EQ(json["failures"]["connect"], 0);
    EXPECT_DOUBLE_EQ(json["requests_per_second"], 4);
    EXPECT_EQ(json["total_ms"]["count"], 8);
    EXPECT_NEAR(json["total_ms"]["p50"].get<double>(), 4, 0.04);
    EXPECT_DOUBLE_EQ(json["total_ms"]["max"], 8);
    EXPECT_EQ(json["targets"][0]["name"], "a\"b");
    EXPECT_DOUBLE_EQ(json["targets"][0]["cpu_us_per_request"], 100);
    EXPECT_DOUBLE_EQ(json["targets"][0]["cpu_us_per_event"], 12.5);
    EXPECT_EQ(json["targets"][1]["gone"], true);
}

TEST(LoadReport, TableNamesFailuresAndTargets) {
    const std::string table = table_of(LoadOptions{}, made_result());
    for (const char* part : {"10 requests in 2.00 s: 8 good (4.0/s), 2 failed", "timeout",
                             "80 events with content", "100.00", "12.50", "gone before the end"})
        EXPECT_NE(table.find(part), std::string::npos) << part << "\n" << table;
    EXPECT_EQ(table.find("first token"), std::string::npos);  // none was streamed
}

TEST(ProcessUsage, OwnTimeGrowsAndNobodyHasNone) {
    const auto before = usage_of(::getpid());
    ASSERT_TRUE(before);
    EXPECT_GT(before->resident_bytes, 0U);
    EXPECT_FALSE(name_of_process(::getpid()).empty());
    volatile std::uint64_t sum = 0;
    auto after = before;
    // As long as it takes until the kernel has counted some of it.
    while (after && after->cpu_seconds <= before->cpu_seconds) {
        for (int i = 0; i < 1'000'000; ++i) sum = sum + static_cast<std::uint64_t>(i);
        after = usage_of(::getpid());
    }
    EXPECT_TRUE(after);
    EXPECT_FALSE(usage_of(1 << 22));
    EXPECT_EQ(name_of_process(1 << 22), "");
}

}  // namespace
}  // namespace sluice::load
