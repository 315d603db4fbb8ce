// SPDX-License-Identifier: Apache-2.0
#include "mem/buffer.h"

#include <gtest/gtest.h>

#include <cstring>
#include <set>
#include <utility>
#include <vector>

#include "base/rng.h"

namespace sluice {
namespace {

constexpr std::size_t kMiB = 1 << 20;

TEST(BufferPool, APageHoldsWhatItSaysAndHasSlackBehindIt) {
    BufferPool pool(kMiB);
    BufferRef page = pool.allocate_page();
    ASSERT_TRUE(page);
    EXPECT_EQ(page.capacity(), BufferPool::kPageCapacity);
    EXPECT_EQ(pool.buffers_in_use(), 1u);
    EXPECT_EQ(pool.bytes_in_use(), limits::kPageBytes);
    std::memset(page.data(), 'x', page.capacity() + limits::kBufferSlack);
}

TEST(BufferPool, GivesTheSmallestClassThatFits) {
    BufferPool pool(4UL << 30);
    std::size_t expected = limits::kPageBytes;
    for (std::size_t bytes = 1; bytes <= (256UL << 20); bytes *= 2) {
        while (expected - limits::kBufferSlack < bytes) expected *= 4;
        const BufferRef buffer = pool.allocate(bytes);
        ASSERT_TRUE(buffer) << bytes;
        EXPECT_EQ(buffer.capacity(), expected - limits::kBufferSlack);
        EXPECT_EQ(pool.bytes_in_use(), expected);
    }
    EXPECT_EQ(pool.bytes_in_use(), 0u);
}

TEST(BufferPool, RefusesAboveItsLimitAndServesAgainBelowIt) {
    BufferPool pool(3 * limits::kPageBytes);
    BufferRef a = pool.allocate_page();
    BufferRef b = pool.allocate_page();
    BufferRef c = pool.allocate_page();
    EXPECT_TRUE(c);
    EXPECT_FALSE(pool.allocate_page());
    EXPECT_FALSE(pool.allocate(100'000));
    EXPECT_EQ(pool.refusals(), 2u);
    b.reset();
    EXPECT_TRUE(pool.allocate_page());
}

TEST(BufferPool, RefusesWhatNoClassHolds) {
    BufferPool pool(SIZE_MAX / 2);
    EXPECT_FALSE(pool.allocate(limits::kBufferBytesMax + 1));
    EXPECT_FALSE(pool.allocate(SIZE_MAX / 4));
    EXPECT_EQ(pool.buffers_in_use(), 0u);
}

TEST(BufferRef, CountsItsHolders) {
    BufferPool pool(kMiB);
    BufferRef a = pool.allocate_page();
    EXPECT_TRUE(a.unique());
    BufferRef b = a;
    EXPECT_FALSE(a.unique());
    BufferRef c = std::move(b);
    EXPECT_FALSE(b);
    EXPECT_EQ(c.get(), a.get());
    BufferRef& same = a;
    a = same;
    EXPECT_EQ(a.get()->references, 2u);
    c = BufferRef();
    EXPECT_TRUE(a.unique());
    a.reset();
    a.reset();
    EXPECT_EQ(pool.buffers_in_use(), 0u);
}

TEST(BufferPool, LiveBuffersNeverOverlapAndHaveNumbersOfTheirOwn) {
    Rng rng(1);
    BufferPool pool(300 * kMiB);
    struct Held {
        BufferRef buffer;
        std::size_t bytes;
        char mark;
    };
    std::vector<Held> held;
    for (int step = 0; step < 3000; ++step) {
        if (held.size() < 60 && rng.chance(0.55)) {
            const std::size_t bytes = 1 + rng.below(1ULL << rng.between(1, 22));
            BufferRef buffer = pool.allocate(bytes);
            if (!buffer) continue;
            const auto mark = static_cast<char>(step);
            std::memset(buffer.data(), mark, bytes);
            held.push_back({std::move(buffer), bytes, mark});
        } else if (!held.empty()) {
            const std::size_t i = rng.below(held.size());
            const Held& each = held[i];
            ASSERT_EQ(each.buffer.data()[0], each.mark);
            ASSERT_EQ(each.buffer.data()[each.bytes / 2], each.mark);
            ASSERT_EQ(each.buffer.data()[each.bytes - 1], each.mark);
            held[i] = std::move(held.back());
            held.pop_back();
        }
        ASSERT_EQ(pool.buffers_in_use(), held.size());
        std::set<std::uint32_t> numbers;
        for (const Held& each : held) numbers.insert(each.buffer.get()->number);
        ASSERT_EQ(numbers.size(), held.size());
    }
    held.clear();
    EXPECT_EQ(pool.bytes_in_use(), 0u);
}

TEST(Slice, PartsKeepTheBufferAlive) {
    BufferPool pool(kMiB);
    Slice part;
    {
        BufferRef buffer = pool.allocate_page();
        std::memcpy(buffer.data(), "0123456789", 10);
        const Slice whole{std::move(buffer), 2, 6};
        EXPECT_EQ(whole.view(), "234567");
        part = whole.part(1, 3);
        EXPECT_EQ(whole.from(4).view(), "67");
        EXPECT_TRUE(whole.from(6).empty());
    }
    EXPECT_EQ(part.view(), "345");
    EXPECT_EQ(pool.buffers_in_use(), 1u);
    part = {};
    EXPECT_EQ(pool.buffers_in_use(), 0u);
    EXPECT_EQ(Slice().view(), "");
}

}  // namespace
}  // namespace sluice
