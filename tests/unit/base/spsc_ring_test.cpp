// SPDX-License-Identifier: Apache-2.0
#include "base/spsc_ring.h"

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <memory>
#include <numeric>
#include <thread>
#include <vector>

#include "base/event_fd.h"
#include "base/rng.h"
#include "base/waker.h"

namespace sluice {
namespace {

#ifdef SLUICE_SLOW_BUILD
constexpr std::uint64_t kStressItems = 200'000;
#else
constexpr std::uint64_t kStressItems = 3'000'000;
#endif

TEST(SpscRing, GivesBackWhatWentInInOrder) {
    SpscRing<int> ring(4);
    EXPECT_TRUE(ring.empty());
    for (int i = 0; i < 4; ++i) EXPECT_TRUE(ring.try_push(i));
    EXPECT_FALSE(ring.try_push(4));
    EXPECT_EQ(ring.approximate_size(), 4u);
    int item = -1;
    for (int i = 0; i < 4; ++i) {
        ASSERT_TRUE(ring.try_pop(item));
        EXPECT_EQ(item, i);
    }
    EXPECT_FALSE(ring.try_pop(item));
    EXPECT_EQ(item, 3);
}

TEST(SpscRing, TheCapacityIsRoundedUpAndAllOfItIsUsed) {
    for (const auto& [asked, given] :
         {std::pair{0u, 1u}, {1u, 1u}, {3u, 4u}, {64u, 64u}, {65u, 128u}}) {
        SpscRing<std::uint32_t> ring(asked);
        EXPECT_EQ(ring.capacity(), given);
        std::uint32_t count = 0;
        while (ring.try_push(count)) ++count;
        EXPECT_EQ(count, given);
    }
}

TEST(SpscRing, BatchesTakeWhatFitsAndWhatIsThere) {
    SpscRing<int> ring(8);
    std::array<int, 6> items{};
    std::iota(items.begin(), items.end(), 0);
    EXPECT_EQ(ring.push_some(items), 6u);
    EXPECT_EQ(ring.push_some(items), 2u);
    EXPECT_EQ(ring.push_some(items), 0u);
    EXPECT_EQ(ring.push_some({}), 0u);
    EXPECT_EQ(ring.free_slots(), 0u);
    std::array<int, 5> out{};
    EXPECT_EQ(ring.pop_some(out), 5u);
    EXPECT_EQ(out, (std::array{0, 1, 2, 3, 4}));
    EXPECT_EQ(ring.free_slots(), 5u);
    EXPECT_EQ(ring.pop_some(out), 3u);
    EXPECT_EQ(out, (std::array{5, 0, 1, 3, 4}));
    EXPECT_EQ(ring.pop_some(out), 0u);
}

TEST(SpscRing, ARefusedItemStaysWithTheCaller) {
    SpscRing<std::unique_ptr<int>> ring(1);
    EXPECT_TRUE(ring.try_push(std::make_unique<int>(1)));
    auto second = std::make_unique<int>(2);
    EXPECT_FALSE(ring.try_push(std::move(second)));
    ASSERT_NE(second, nullptr);
    EXPECT_EQ(*second, 2);
}

TEST(SpscRing, DestroysExactlyWhatItHeld) {
    auto counted = std::make_shared<int>(0);
    {
        SpscRing<std::shared_ptr<int>> ring(8);
        for (int i = 0; i < 5; ++i) EXPECT_TRUE(ring.try_push(counted));
        EXPECT_EQ(ring.consume([](std::shared_ptr<int>&&) {}, 2), 2u);
        EXPECT_EQ(counted.use_count(), 4);
    }
    EXPECT_EQ(counted.use_count(), 1);
}

TEST(SpscRing, AgreesWithADequeUnderRandomUse) {
    Rng rng{7};
    SpscRing<std::uint32_t> ring(16);
    std::uint32_t pushed = 0, popped = 0;
    for (int step = 0; step < 200'000; ++step) {
        std::array<std::uint32_t, 20> batch{};
        const std::size_t count = rng.below(20);
        switch (rng.below(4)) {
            case 0:
                ASSERT_EQ(ring.try_push(std::uint32_t{pushed}), pushed - popped < 16);
                if (pushed - popped < 16) ++pushed;
                break;
            case 1: {
                std::iota(batch.begin(), batch.end(), pushed);
                const auto done = ring.push_some(std::span(batch).first(count));
                ASSERT_EQ(done, std::min<std::size_t>(count, 16 - (pushed - popped)));
                pushed += static_cast<std::uint32_t>(done);
                break;
            }
            case 2: {
                std::uint32_t item = 0;
                ASSERT_EQ(ring.try_pop(item), pushed != popped);
                if (pushed != popped) {
                    ASSERT_EQ(item, popped++);
                }
                break;
            }
            default: {
                const auto done = ring.pop_some(std::span(batch).first(count));
                ASSERT_EQ(done, std::min<std::size_t>(count, pushed - popped));
                for (std::size_t i = 0; i < done; ++i) ASSERT_EQ(batch[i], popped++);
            }
        }
        ASSERT_EQ(ring.approximate_size(), pushed - popped);
    }
}

// A litmus test at scale. The item's words are plain memory, all equal and a function of its
// number: a push that became visible before its item, or a slot written again before its item was
// out, shows as a torn or repeated item (and under TSan as a race). Small rings meet both borders,
// full and empty, all the time.
struct Wide {
    std::uint64_t words[8];
};
static_assert(sizeof(Wide) == 64);

// Rings of one or two items change threads with every item, so they run fewer.
void stress(std::size_t capacity, std::size_t push_batch, std::size_t pop_batch) {
    SpscRing<Wide> ring(capacity);
    const std::uint64_t items = capacity < 8 ? kStressItems / 30 : kStressItems;
    std::thread producer([&] {
        std::vector<Wide> batch(push_batch);
        std::uint64_t next = 0;
        while (next < items) {
            std::size_t count = std::min<std::uint64_t>(push_batch, items - next);
            for (std::size_t i = 0; i < count; ++i)
                for (auto& word : batch[i].words) word = (next + i) * 0x9E3779B97F4A7C15u;
            std::size_t done = push_batch == 1 ? ring.try_push(batch[0])
                                               : ring.push_some(std::span(batch).first(count));
            next += done;
            if (done == 0) std::this_thread::yield();
        }
    });
    std::vector<Wide> out(pop_batch);
    std::uint64_t wrong = 0;
    for (std::uint64_t next = 0; next < items;) {
        const std::size_t done = pop_batch == 1 ? ring.try_pop(out[0]) : ring.pop_some(out);
        for (std::size_t i = 0; i < done; ++i, ++next)
            for (const auto word : out[i].words) wrong += word != next * 0x9E3779B97F4A7C15u;
        if (done == 0) std::this_thread::yield();
    }
    producer.join();
    EXPECT_EQ(wrong, 0u);
    EXPECT_TRUE(ring.empty());
}

TEST(SpscRingStress, RingOfOneItem) { stress(1, 1, 1); }
TEST(SpscRingStress, RingOfTwoItems) { stress(2, 1, 1); }
TEST(SpscRingStress, SingleItems) { stress(1024, 1, 1); }
TEST(SpscRingStress, BatchesIntoSingles) { stress(64, 7, 1); }
TEST(SpscRingStress, BatchesOfUnequalSize) { stress(64, 48, 5); }

// Message passing through two rings and back: an answer is seen with everything that was written
// before its question (the plain array), and the other way round.
TEST(SpscRingStress, ARoundTripOrdersPlainMemory) {
    SpscRing<std::uint64_t> there(1), back(1);
    std::uint64_t shared = 0;  // whose turn it is follows from the rings alone
    constexpr std::uint64_t kTrips = kStressItems / 20;
    std::thread other([&] {
        std::uint64_t question = 0;
        for (std::uint64_t i = 0; i < kTrips; ++i) {
            while (!there.try_pop(question)) std::this_thread::yield();
            if (shared != question) return;
            shared = question + 1;
            while (!back.try_push(question + 1)) std::this_thread::yield();
        }
    });
    std::uint64_t wrong = 0;
    for (std::uint64_t i = 0; i < kTrips; ++i) {
        shared = 2 * i;
        EXPECT_TRUE(there.try_push(2 * i));
        std::uint64_t answer = 0;
        while (!back.try_pop(answer)) std::this_thread::yield();
        wrong += answer != 2 * i + 1 || shared != answer;
    }
    other.join();
    EXPECT_EQ(wrong, 0u);
}

// Nobody sleeps through an item: each item is sent only when the one before was answered, so a lost
// wake-up leaves both sides waiting, and the wait's limit shows it.
TEST(Waker, NoWakeUpIsLost) {
    auto created = EventFd::create();
    ASSERT_TRUE(created);
    EventFd event = std::move(*created);
    Waker waker(Delegate<void()>::to<&EventFd::set>(event));
    SpscRing<std::uint64_t> ring(4), answers(4);
    constexpr std::uint64_t kItems = kStressItems / 50;
    std::uint64_t timeouts = 0;
    std::thread sleeper([&] {
        Rng rng(3);
        for (std::uint64_t next = 0; next < kItems;) {
            std::uint64_t item = 0;
            if (ring.try_pop(item)) {
                EXPECT_EQ(item, next++);
                EXPECT_TRUE(answers.try_push(item));
                continue;
            }
            if (rng.below(3) == 0) continue;  // now and then the flag is raised a little later
            waker.prepare_to_sleep();
            if (ring.empty()) timeouts += !event.wait(std::chrono::seconds(20));
            waker.awake();
        }
    });
    Rng rng(5);
    for (std::uint64_t next = 0; next < kItems; ++next) {
        EXPECT_TRUE(ring.try_push(next));
        waker.notify();
        std::uint64_t answer = 0;
        while (!answers.try_pop(answer)) std::this_thread::yield();
        EXPECT_EQ(answer, next);
        for (auto spin = rng.below(200); spin-- > 0;)
            std::atomic_signal_fence(std::memory_order_seq_cst);
    }
    sleeper.join();
    EXPECT_EQ(timeouts, 0u);
}

TEST(Waker, KicksOnceAndOnlyASleeper) {
    struct Counter {
        int kicks = 0;
        void kick() { ++kicks; }
    } counter;
    Waker waker(Delegate<void()>::to<&Counter::kick>(counter));
    waker.notify();
    EXPECT_EQ(counter.kicks, 0);
    waker.prepare_to_sleep();
    waker.notify();
    waker.notify();
    EXPECT_EQ(counter.kicks, 1);
    waker.prepare_to_sleep();
    waker.awake();
    waker.notify();
    EXPECT_EQ(counter.kicks, 1);
}

}  // namespace
}  // namespace sluice
