// SPDX-License-Identifier: Apache-2.0
#include "mooncake/msgpack.h"

#include <gtest/gtest.h>

#include "base/rng.h"

namespace sluice::mooncake {
namespace {

using Kind = MsgpackReader::Kind;
using namespace std::string_literals;

TEST(Msgpack, ReadsWhatItWrites) {
    for (const std::uint64_t number : {0ULL, 127ULL, 128ULL, 255ULL, 256ULL, 65535ULL, 65536ULL,
                                       0xffffffffULL, 0x100000000ULL, ~0ULL}) {
        std::string out;
        MsgpackWriter(out).number(number);
        MsgpackReader reader(out);
        EXPECT_EQ(reader.unsigned_number(), number);
        EXPECT_TRUE(reader.at_end());
    }
    for (const std::size_t size : {0UL, 15UL, 16UL, 31UL, 32UL, 255UL, 256UL, 65535UL, 65536UL}) {
        std::string out;
        MsgpackWriter(out).string(std::string(size, 'x'));
        MsgpackReader reader(out);
        EXPECT_EQ(reader.string(), std::string(size, 'x'));
        EXPECT_TRUE(reader.at_end());

        out.clear();
        MsgpackWriter array(out);
        array.array(size);
        for (std::size_t i = 0; i < size; ++i) array.number(i);
        array.map(size);
        for (std::size_t i = 0; i < 2 * size; ++i) array.number(7);
        MsgpackReader lists(out);
        ASSERT_EQ(lists.array(), size);
        for (std::size_t i = 0; i < size; ++i) EXPECT_EQ(lists.unsigned_number(), i);
        EXPECT_EQ(lists.map(), size);
    }
}

// The encodings of the specification, one of each, and what msgspec makes of them.
TEST(Msgpack, KnowsEveryKind) {
    const std::pair<std::string, Kind> values[] = {
        {"\xc0"s, Kind::Nil},
        {"\xc2"s, Kind::Bool},
        {"\xc3"s, Kind::Bool},
        {"\xff"s, Kind::Negative},
        {"\xd0\x80"s, Kind::Negative},
        {"\xd0\x05"s, Kind::Unsigned},
        {"\xd1\x80\0"s, Kind::Negative},
        {"\xd2\0\0\0\1"s, Kind::Unsigned},
        {"\xd3\xff\xff\xff\xff\xff\xff\xff\xff"s, Kind::Negative},
        {"\xca\0\0\0\0"s, Kind::Float},
        {"\xcb\0\0\0\0\0\0\0\0"s, Kind::Float},
        {"\xc4\2ab"s, Kind::Binary},
        {"\xc5\0\1a"s, Kind::Binary},
        {"\xc6\0\0\0\1a"s, Kind::Binary},
        {"\xd4\1a"s, Kind::Extension},
        {"\xd8\1"s + std::string(16, 'a'), Kind::Extension},
        {"\xc7\2\1ab"s, Kind::Extension},
        {"\xc8\0\1\1a"s, Kind::Extension},
        {"\xa0"s, Kind::String},
        {"\xd9\1a"s, Kind::String},
        {"\x92\1\x91\2"s, Kind::Array},
        {"\xdc\0\1\1"s, Kind::Array},
        {"\xdd\0\0\0\1\1"s, Kind::Array},
        {"\x81\xa1k\xc0"s, Kind::Map},
        {"\xde\0\1\xa1k\xc0"s, Kind::Map},
        {"\xdf\0\0\0\1\xa1k\xc0"s, Kind::Map},
    };
    for (const auto& [bytes, kind] : values) {
        MsgpackReader reader(bytes);
        EXPECT_EQ(reader.peek(), kind);
        EXPECT_EQ(reader.skip(), bytes);
        EXPECT_TRUE(reader.at_end());
        // Cut anywhere, it is no value.
        for (std::size_t cut = 0; cut < bytes.size(); ++cut) {
            MsgpackReader part(std::string_view(bytes).substr(0, cut));
            EXPECT_FALSE(part.skip());
            EXPECT_TRUE(part.failed());
        }
    }
    EXPECT_FALSE(MsgpackReader("\xc1").skip());
}

TEST(Msgpack, NeitherDepthNorCountsCanHurt) {
    std::string deep(1'000'000, '\x91');
    EXPECT_FALSE(MsgpackReader(deep).skip());
    deep.push_back('\x01');
    EXPECT_TRUE(MsgpackReader(deep).skip());
    EXPECT_FALSE(MsgpackReader("\xdd\xff\xff\xff\xff\1\1\1"s).skip());
    EXPECT_FALSE(MsgpackReader("\xdf\xff\xff\xff\xff\1\1\1"s).map());
    EXPECT_FALSE(MsgpackReader("\xdb\xff\xff\xff\xff\1\1\1"s).string());
    // Arrays that each promise all that is left.
    std::string promises;
    for (int i = 0; i < 1000; ++i) promises += "\xdc\x03\xe8"s;
    EXPECT_FALSE(MsgpackReader(promises).skip());
}

TEST(Msgpack, NoBytesBreakTheReader) {
    Rng rng(1);
    for (int round = 0; round < 20'000; ++round) {
        std::string bytes;
        for (std::uint64_t left = rng.below(40); left > 0; --left)
            bytes.push_back(
                static_cast<char>(rng.chance(0.5) ? 0x80 + rng.below(0x60) : rng.below(256)));
        MsgpackReader reader(bytes);
        while (!reader.at_end() && !reader.failed()) (void)reader.skip();
        EXPECT_TRUE(reader.at_end() || reader.failed());
    }
}

}  // namespace
}  // namespace sluice::mooncake
