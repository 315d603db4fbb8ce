// SPDX-License-Identifier: Apache-2.0
#include "mem/text_arena.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "base/rng.h"

namespace sluice {
namespace {

TEST(TextArena, WritesTextsOneAfterAnother) {
    BufferPool pool(1 << 20);
    {
        TextArena arena(pool);
        TextWriter first(arena);
        first.append("HTTP/1.1 ");
        first.append_number(200);
        first.append(' ');
        first.append_number(0xbeef, 16);
        EXPECT_EQ(first.view(), "HTTP/1.1 200 beef");
        EXPECT_EQ(first.size(), 17u);
        const Slice a = first.finish();
        TextWriter second(arena);
        second.append("second");
        const Slice b = second.finish();
        EXPECT_EQ(a.view(), "HTTP/1.1 200 beef");
        EXPECT_EQ(b.view(), "second");
        EXPECT_EQ(a.buffer.get(), b.buffer.get());
        EXPECT_EQ(pool.buffers_in_use(), 1u);
    }
    EXPECT_EQ(pool.buffers_in_use(), 0u);
}

TEST(TextArena, AWriterThatIsNotFinishedLeavesNothing) {
    BufferPool pool(1 << 20);
    TextArena arena(pool);
    {
        TextWriter writer(arena);
        writer.append("x");
        EXPECT_EQ(writer.finish().view(), "x");
        EXPECT_TRUE(writer.finish().empty());
    }
    TextWriter writer(arena);
    EXPECT_TRUE(writer.finish().empty());
}

TEST(TextArena, ATextMayOutgrowItsPage) {
    BufferPool pool(64 << 20);
    TextArena arena(pool);
    TextWriter writer(arena);
    std::string expected;
    for (int i = 0; i < 50'000; ++i) {
        writer.append_number(static_cast<std::uint64_t>(i));
        expected += std::to_string(i);
    }
    EXPECT_TRUE(writer.ok());
    EXPECT_EQ(writer.finish().view(), expected);
    TextWriter next(arena);
    next.append("after");
    EXPECT_EQ(next.finish().view(), "after");
}

// What an abandoned writer wrote must not be part of the next text.
TEST(TextArena, AnAbandonedTextIsOverwritten) {
    BufferPool pool(1 << 20);
    TextArena arena(pool);
    {
        TextWriter writer(arena);
        writer.append("abandoned");
    }
    TextWriter writer(arena);
    writer.append("kept");
    EXPECT_EQ(writer.finish().view(), "kept");
}

TEST(TextArena, FinishedTextsStayAsTheyAre) {
    Rng rng(1);
    BufferPool pool(64 << 20);
    TextArena arena(pool);
    std::vector<std::pair<Slice, std::string>> written;
    for (int i = 0; i < 500; ++i) {
        TextWriter writer(arena);
        std::string text;
        const auto parts = rng.below(6);
        for (std::size_t part = 0; part < parts; ++part) {
            const std::string piece(rng.below(1ULL << rng.between(1, 14)),
                                    static_cast<char>('a' + i % 26));
            writer.append(piece);
            text += piece;
        }
        written.emplace_back(writer.finish(), text);
    }
    for (const auto& [slice, text] : written) ASSERT_EQ(slice.view(), text);
}

TEST(TextArena, AnExhaustedPoolMakesWritersFailAndLaterOnesWork) {
    BufferPool pool(limits::kPageBytes);
    TextArena arena(pool);
    BufferRef hog = pool.allocate_page();
    {
        TextWriter writer(arena);
        EXPECT_FALSE(writer.ok());
        writer.append("lost");
        writer.append_number(1);
        EXPECT_EQ(writer.view(), "");
        EXPECT_TRUE(writer.finish().empty());
    }
    hog.reset();
    TextWriter writer(arena);
    EXPECT_TRUE(writer.ok());
    writer.append("written");
    EXPECT_EQ(writer.finish().view(), "written");
}

TEST(TextArena, ATextThatCannotGrowFailsAsAWhole) {
    BufferPool pool(limits::kPageBytes);
    TextArena arena(pool);
    {
        TextWriter writer(arena);
        writer.append(std::string(10'000, 'x'));
        EXPECT_TRUE(writer.ok());
        writer.append(std::string(10'000, 'y'));
        EXPECT_FALSE(writer.ok());
        EXPECT_TRUE(writer.finish().empty());
    }
    TextWriter writer(arena);
    writer.append("next");
    EXPECT_EQ(writer.finish().view(), "next");
}

}  // namespace
}  // namespace sluice
