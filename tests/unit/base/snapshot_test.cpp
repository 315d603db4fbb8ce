// SPDX-License-Identifier: Apache-2.0
#include "base/snapshot.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

namespace sluice {
namespace {

TEST(Snapshot, AReaderSeesTheNewValueAfterARefreshAndNotBefore) {
    Snapshot<int> source(std::make_shared<const int>(1));
    Snapshot<int>::Reader reader(source);
    EXPECT_EQ(*reader, 1);
    EXPECT_FALSE(reader.refresh());
    source.publish(std::make_shared<const int>(2));
    EXPECT_EQ(*reader, 1);
    EXPECT_TRUE(reader.refresh());
    EXPECT_EQ(*reader, 2);
    EXPECT_FALSE(reader.refresh());
    EXPECT_EQ(*source.load(), 2);
}

TEST(Snapshot, AValueLivesUntilItsLastReaderHasRefreshed) {
    auto first = std::make_shared<const int>(1);
    const std::weak_ptr<const int> watch = first;
    Snapshot<int> source(std::move(first));
    Snapshot<int>::Reader a(source);
    Snapshot<int>::Reader b(source);
    source.publish(std::make_shared<const int>(2));
    a.refresh();
    EXPECT_FALSE(watch.expired());
    const std::shared_ptr<const int> held = b.hold();
    b.refresh();
    EXPECT_EQ(*held, 1);
    EXPECT_FALSE(watch.expired());
}

// Two threads, for the thread sanitizer above all: values are whole and never go back.
TEST(Snapshot, IsReadWhileItIsPublished) {
    struct Pair {
        std::uint64_t a;
        std::uint64_t b;
    };
    constexpr std::uint64_t kLast = 20'000;
    Snapshot<Pair> source(std::make_shared<const Pair>(Pair{0, 0}));
    std::thread writer([&] {
        for (std::uint64_t i = 1; i <= kLast; ++i)
            source.publish(std::make_shared<const Pair>(Pair{i, ~i}));
    });
    Snapshot<Pair>::Reader reader(source);
    std::uint64_t seen = reader->a;
    bool whole = true;
    while (seen < kLast) {
        if (!reader.refresh()) continue;
        whole = whole && reader->b == ~reader->a && reader->a >= seen;
        seen = reader->a;
    }
    writer.join();
    EXPECT_TRUE(whole);
}

}  // namespace
}  // namespace sluice
