// SPDX-License-Identifier: Apache-2.0
// The body reader: exact bytes where they lie, for every framing and every cut.

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <string>

#include "base/rng.h"
#include "http/body_reader.h"

namespace sluice::http {
namespace {

using State = BodyReader::State;

class BodyReaderTest : public testing::Test {
protected:
    Slice slice(std::string_view text) {
        BufferRef buffer = pool.allocate(text.size());
        std::memcpy(buffer.data(), text.data(), text.size());
        return {std::move(buffer), 0, static_cast<std::uint32_t>(text.size())};
    }
    State feed(std::string_view text) { return feed(slice(text)); }
    State feed(Slice bytes) {
        return reader.feed(std::move(bytes),
                           Delegate<void(Slice)>::to<&BodyReaderTest::take>(*this));
    }
    void take(Slice bytes) {
        EXPECT_FALSE(bytes.empty());
        body += bytes.view();
        last = bytes.data();
    }

    BufferPool pool{16 << 20};
    BodyReader reader;
    std::string body;
    const char* last = nullptr;
};

TEST_F(BodyReaderTest, NoBody) {
    reader.start(Framing::None, 0);
    EXPECT_EQ(feed("GET"), State::Complete);
    EXPECT_EQ(reader.take_rest().view(), "GET");
    EXPECT_EQ(body, "");
}

TEST_F(BodyReaderTest, SizedBody) {
    reader.start(Framing::Length, 5);
    EXPECT_EQ(feed("he"), State::NeedMore);
    EXPECT_EQ(reader.remaining(), 3U);
    EXPECT_EQ(feed("lloGET"), State::Complete);
    EXPECT_EQ(reader.take_rest().view(), "GET");
    EXPECT_EQ(body, "hello");
    EXPECT_EQ(reader.end_of_stream(), State::Bad);
}

TEST_F(BodyReaderTest, SizedBodyWithoutBytes) {
    reader.start(Framing::Length, 0);
    EXPECT_EQ(feed("x"), State::Complete);
    EXPECT_EQ(reader.take_rest().view(), "x");
}

TEST_F(BodyReaderTest, SizedBodyBeyondFourGigabytes) {
    reader.start(Framing::Length, (5ULL << 30) + 3);
    const Slice page = slice(std::string(1 << 20, 'x'));
    std::uint64_t fed = 0;
    struct Nothing {
        void take(Slice) {}
    } nothing;
    for (; fed < 5ULL << 30; fed += page.size)
        ASSERT_EQ(reader.feed(page, Delegate<void(Slice)>::to<&Nothing::take>(nothing)),
                  State::NeedMore);
    EXPECT_EQ(reader.remaining(), 3U);
    EXPECT_EQ(feed("abcd"), State::Complete);
    EXPECT_EQ(reader.take_rest().view(), "d");
}

TEST_F(BodyReaderTest, UntilClose) {
    reader.start(Framing::UntilClose, 0);
    EXPECT_EQ(feed("abc"), State::NeedMore);
    EXPECT_EQ(feed(Slice()), State::NeedMore);
    EXPECT_EQ(feed("d"), State::NeedMore);
    EXPECT_EQ(reader.end_of_stream(), State::Complete);
    EXPECT_EQ(body, "abcd");
}

TEST_F(BodyReaderTest, ChunksAreHandedOutWhereTheyLie) {
    reader.start(Framing::Chunked, 0);
    const Slice bytes = slice("5\r\nhello\r\n");
    EXPECT_EQ(feed(bytes), State::NeedMore);
    EXPECT_EQ(last, bytes.data() + 3);
    EXPECT_EQ(body, "hello");
}

TEST_F(BodyReaderTest, ChunkedEndsOnlyWithItsLastLine) {
    reader.start(Framing::Chunked, 0);
    EXPECT_EQ(feed("3\r\nabc\r\n0\r\n\r"), State::NeedMore);
    EXPECT_EQ(reader.end_of_stream(), State::Bad);
    EXPECT_NE(reader.fault(), nullptr);
    EXPECT_EQ(feed("\nnext"), State::Complete);
    EXPECT_EQ(reader.take_rest().view(), "next");
}

TEST_F(BodyReaderTest, OneReaderForManyBodies) {
    for (int i = 0; i < 3; ++i) {
        body.clear();
        reader.start(Framing::Chunked, 0);
        EXPECT_EQ(feed("2\r\nab\r\n0\r\nX: 1\r\n\r\n"), State::Complete);
        EXPECT_EQ(body, "ab");
        EXPECT_TRUE(reader.take_rest().empty());
        reader.start(Framing::Chunked, 0);
        EXPECT_EQ(feed("zz"), State::Bad);
        reader.start(Framing::Length, 1);
        EXPECT_EQ(feed("x"), State::Complete);
    }
}

// Chunks of all sizes, extensions and trailers, cut anywhere.
TEST_F(BodyReaderTest, RandomChunksRandomCuts) {
    Rng rng(7);
    for (int round = 0; round < 2000; ++round) {
        std::string wire;
        std::string expected;
        const std::size_t chunks = rng.below(6);
        for (std::size_t i = 0; i < chunks; ++i) {
            std::string data(rng.between(1, rng.chance(0.1) ? 5000 : 40), 0);
            for (char& c : data) c = static_cast<char>(rng.below(256));
            char size[32];
            std::snprintf(size, sizeof size, rng.chance(0.5) ? "%zx" : "%zX", data.size());
            if (rng.chance(0.2)) wire += "000";
            wire += size;
            if (rng.chance(0.2)) wire += ";a=b;c=\"d e\"";
            wire += "\r\n" + data + "\r\n";
            expected += data;
        }
        wire += rng.chance(0.5) ? "0\r\n" : "00;x\r\n";
        if (rng.chance(0.3)) wire += "X-Sum: 1\r\nX-More:\r\n";
        wire += "\r\n";
        const std::string next = rng.chance(0.5) ? "" : "GET / HT";
        wire += next;

        body.clear();
        reader.start(Framing::Chunked, 0);
        std::size_t at = 0;
        State state = State::NeedMore;
        while (state == State::NeedMore && at < wire.size()) {
            const std::size_t size =
                std::min<std::size_t>(rng.between(1, rng.chance(0.5) ? 3 : 3000), wire.size() - at);
            state = feed(std::string_view(wire).substr(at, size));
            at += size;
        }
        ASSERT_EQ(state, State::Complete) << round;
        ASSERT_EQ(body, expected) << round;
        const Slice rest = reader.take_rest();
        ASSERT_TRUE(std::string(rest.view()) + wire.substr(at) == next) << round;
    }
}

TEST_F(BodyReaderTest, ChunkLinesAreBoundedOneByOne) {
    reader.start(Framing::Chunked, 0);
    // Many lines below the limit are no fault, however much they are together.
    for (int i = 0; i < 1000; ++i)
        ASSERT_EQ(feed("1;" + std::string(200, 'e') + "\r\nx\r\n"), State::NeedMore);
    EXPECT_EQ(feed("1;" + std::string(300, 'e')), State::Bad);
}

TEST_F(BodyReaderTest, TrailersAreBounded) {
    reader.start(Framing::Chunked, 0);
    EXPECT_EQ(feed("0;" + std::string(200, 'e') + "\r\n"), State::NeedMore);
    const std::string line = "X: " + std::string(95, 'x') + "\r\n";  // 100 bytes
    for (int i = 0; i < 80; ++i) ASSERT_EQ(feed(line), State::NeedMore);
    EXPECT_EQ(feed(line + line), State::Bad);
}

}  // namespace
}  // namespace sluice::http
