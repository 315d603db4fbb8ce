// SPDX-License-Identifier: Apache-2.0
#include "mem/slice_queue.h"

#include <gtest/gtest.h>

#include <cstring>
#include <string>

#include "base/rng.h"

namespace sluice {
namespace {

class SliceQueueTest : public ::testing::Test {
protected:
    Slice slice(std::string_view text) {
        BufferRef buffer = pool_.allocate(text.size() + 1);
        std::memcpy(buffer.data(), text.data(), text.size());
        return {std::move(buffer), 0, static_cast<std::uint32_t>(text.size())};
    }
    static std::string text_of(const SliceQueue& queue) {
        std::string text;
        for (std::size_t i = 0; i < queue.count(); ++i) text += queue[i].view();
        return text;
    }

    BufferPool pool_{64 << 20};
};

TEST_F(SliceQueueTest, IsFirstInFirstOut) {
    SliceQueue queue;
    EXPECT_TRUE(queue.empty());
    for (const char* text : {"one ", "two ", "three ", "four ", "five"}) queue.push(slice(text));
    EXPECT_EQ(queue.count(), 5u);
    EXPECT_EQ(queue.bytes(), 23u);
    EXPECT_EQ(text_of(queue), "one two three four five");
    queue.pop_bytes(6);
    EXPECT_EQ(text_of(queue), "o three four five");
    queue.pop_bytes(2);
    EXPECT_EQ(queue.count(), 3u);
    queue.pop_bytes(queue.bytes());
    EXPECT_TRUE(queue.empty());
    EXPECT_EQ(pool_.buffers_in_use(), 0u);
}

TEST_F(SliceQueueTest, JoinsWhatContinuesInOneBuffer) {
    SliceQueue queue;
    const Slice whole = slice("abcdefgh");
    queue.push(whole.part(0, 3));
    queue.push(whole.part(3, 2));
    EXPECT_EQ(queue.count(), 1u);
    queue.push(whole.part(6, 2));
    EXPECT_EQ(queue.count(), 2u);
    queue.push(slice("x"));
    queue.push(Slice());
    EXPECT_EQ(queue.count(), 3u);
    EXPECT_EQ(text_of(queue), "abcdeghx");
}

TEST_F(SliceQueueTest, AnEmptiedQueueReleasesEveryBuffer) {
    SliceQueue queue;
    for (int i = 0; i < 10; ++i) queue.push(slice("0123456789"));
    EXPECT_EQ(pool_.buffers_in_use(), 10u);
    queue.pop_bytes(25);
    EXPECT_EQ(pool_.buffers_in_use(), 8u);
    queue.clear();
    EXPECT_EQ(pool_.buffers_in_use(), 0u);
    queue.clear();
}

TEST_F(SliceQueueTest, MovesAndSwaps) {
    SliceQueue a;
    a.push(slice("a"));
    SliceQueue b(std::move(a));
    EXPECT_TRUE(a.empty());
    EXPECT_EQ(text_of(b), "a");
    a.push(slice("again"));
    a.swap(b);
    EXPECT_EQ(text_of(a), "a");
    a = std::move(b);
    EXPECT_EQ(text_of(a), "again");
    EXPECT_TRUE(b.empty());
}

TEST_F(SliceQueueTest, TakesAllOfAnotherAlsoWhenThatHasWrapped) {
    SliceQueue from;
    for (int i = 0; i < 4; ++i) from.push(slice("ab"));
    from.pop_bytes(5);
    from.push(slice("c"));
    from.push(slice("d"));
    const std::string expected = text_of(from);
    SliceQueue to;
    to.push(slice("first "));
    to.take_all(from);
    EXPECT_EQ(text_of(to), "first " + expected);
    EXPECT_TRUE(from.empty());
    EXPECT_EQ(from.bytes(), 0u);
    from.push(slice("usable"));
    EXPECT_EQ(text_of(from), "usable");
}

TEST_F(SliceQueueTest, AgreesWithAStringUnderRandomUse) {
    Rng rng(9);
    SliceQueue queue;
    SliceQueue side;
    std::string model;
    std::string side_model;
    for (int step = 0; step < 20'000; ++step) {
        switch (rng.below(6)) {
            case 0:
            case 1: {
                const std::string text(rng.below(20), static_cast<char>('a' + rng.below(26)));
                queue.push(slice(text));
                model += text;
                break;
            }
            case 2: {
                const std::string text(rng.below(20), static_cast<char>('A' + rng.below(26)));
                side.push(slice(text));
                side_model += text;
                break;
            }
            case 3: {
                const auto bytes = rng.below(std::min<std::size_t>(model.size(), 60) + 1);
                queue.pop_bytes(bytes);
                model.erase(0, bytes);
                break;
            }
            case 4:
                queue.swap(side);
                model.swap(side_model);
                break;
            default:
                queue.take_all(side);
                model += std::exchange(side_model, {});
        }
        ASSERT_EQ(queue.bytes(), model.size());
        if (step % 10 == 0) {
            ASSERT_EQ(text_of(queue), model);
        }
        if (model.size() > 2000) {
            queue.clear();
            model.clear();
        }
    }
    queue.clear();
    side.clear();
    EXPECT_EQ(pool_.buffers_in_use(), 0u);
}

}  // namespace
}  // namespace sluice
