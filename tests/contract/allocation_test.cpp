// SPDX-License-Identifier: Apache-2.0
// A transfer allocates nothing once tables have grown: on neither end, on no thread.
#ifndef SLUICE_SLOW_BUILD  // sanitizers count allocations themselves

#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <new>
#include <numeric>
#include <thread>

#include "contract/node.h"

namespace {
std::atomic<std::uint64_t> allocations{0};
}

// Not inlined: g++ would take malloc's memory in a delete expression for a mistake.
[[gnu::noinline]] void* operator new(std::size_t size) {
    allocations.fetch_add(1, std::memory_order_relaxed);
    if (void* memory = std::malloc(size)) return memory;
    throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

namespace sluice::transport {
namespace {

class Allocation : public testing::TestWithParam<std::string_view> {};

TEST_P(Allocation, NoneInSteadyState) {
    Memory from(16 << 20), to(16 << 20);
    Node producer(GetParam(), patient(), {.threads = 2, .pin = false});
    Node consumer(GetParam(), patient(), {.threads = 2, .pin = false});
    const RegionId src = *producer->register_memory(from.region());
    const RegionId dst = *consumer->register_memory(to.region());
    Pair pair;
    ASSERT_TRUE(pair.connect(consumer, producer));
    std::vector<std::uint32_t> ids(100);
    std::iota(ids.begin(), ids.end(), 0);
    std::vector<Range> ranges;
    for (std::uint64_t i = 0; i < 8; ++i)
        ranges.push_back({.region = src,
                          .piece_bytes = 16384,
                          .offset = i << 21,
                          .block_stride = 16384,
                          .block_count = 100});
    ASSERT_EQ(src, dst);
    std::array<Completion, 1> done;
    const auto move = [&] {
        const auto ticket = consumer->open(pair.at_consumer, {ranges, ids}, {});
        ASSERT_TRUE(ticket);
        ASSERT_TRUE(producer->post(pair.at_producer, *ticket, {ranges, ids}, {}));
        while (consumer->poll(MonotonicClock::now(), done) == 0) std::this_thread::yield();
        ASSERT_EQ(done[0].status, Status::Landed);
        consumer->release(*ticket);
        while (producer->poll(MonotonicClock::now(), done) == 0) std::this_thread::yield();
        ASSERT_EQ(done[0].status, Status::Delivered);
    };
    for (int i = 0; i < 30; ++i) move();
    const std::uint64_t before = allocations.load();
    for (int i = 0; i < 100; ++i) move();
    EXPECT_EQ(allocations.load() - before, 0u);
}

INSTANTIATE_TEST_SUITE_P(All, Allocation, testing::Values("tcp", "shm", "mooncake"));

}  // namespace
}  // namespace sluice::transport

#endif
