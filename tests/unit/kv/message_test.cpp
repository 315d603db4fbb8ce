// SPDX-License-Identifier: Apache-2.0
// Control messages: both ways, cut anywhere, and bytes that are none.
#include "kv/message.h"

#include <gtest/gtest.h>

#include "kv/bytes.h"
#include "unit/kv/model.h"

namespace sluice::kv::test {
namespace {

using namespace std::literals;

Hello hello() {
    Hello made;
    made.token.fill(std::byte{7});
    made.node = 0x1122334455667788;
    made.role = Role::Producer;
    made.engine_id = "engine_dp0";
    made.host = "host";
    made.offers = {{"tcp", "10.0.0.1:7000", ""}, {"shm", "", "private memory"}};
    made.shape = RankMemory({.layers = 3, .joint = false}, {}).shape();
    return made;
}

std::vector<Message> samples() {
    Pull pull{3, "transfer", 1, {7, 1ULL << 40}, transport::Priority::Urgent, 480000, {5, 0}};
    Hello probe = hello();
    probe.probe = true;
    probe.shape = {};
    return {hello(),
            probe,
            Refusal{{Code::WrongToken, "no"}},
            Ping{},
            pull,
            Pull{4, "t", 0, {}, {}, 0, {}},
            Known{9},
            Landed{10},
            Failed{11, {Code::Expired, "gone"}},
            Abort{12},
            RevokeAck{~0ULL}};
}

TEST(Bytes, NumbersHaveOneSpelling) {
    for (const std::uint64_t value : {0ULL, 1ULL, 127ULL, 128ULL, 300ULL, 1ULL << 62, ~0ULL}) {
        ByteWriter writer;
        writer.varint(value);
        ByteReader reader(writer.bytes);
        EXPECT_EQ(reader.varint(), value);
        EXPECT_TRUE(reader.at_end());
        ByteReader cut(std::string_view(writer.bytes).substr(0, writer.bytes.size() - 1));
        cut.varint();
        EXPECT_FALSE(cut.ok());
    }
    for (const std::string_view bad : {"\x80\x00"sv, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02"sv,
                                       "\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01"sv, ""sv}) {
        ByteReader reader(bad);
        reader.varint();
        EXPECT_FALSE(reader.ok());
    }
    ByteReader text(
        "\x05"
        "abcd"sv);
    EXPECT_EQ(text.text(100), "");
    EXPECT_FALSE(text.ok());
}

TEST(Messages, ComeBackFromAStreamCutAnywhere) {
    std::string stream;
    for (const Message& message : samples()) stream += write_message(message);
    for (std::size_t step : {std::size_t{1}, std::size_t{3}, std::size_t{64}, stream.size()}) {
        MessageReader reader;
        std::string again;
        std::size_t count = 0;
        for (std::size_t at = 0; at < stream.size(); at += step) {
            ASSERT_TRUE(reader.feed(std::string_view(stream).substr(at, step)));
            while (const auto bytes = reader.next()) {
                const auto message = read_message(*bytes);
                ASSERT_TRUE(message.has_value()) << count;
                EXPECT_EQ(message->index(), samples()[count].index());
                again += write_message(*message);
                ++count;
            }
        }
        EXPECT_EQ(count, samples().size());
        EXPECT_EQ(again, stream);
    }
    const std::string bytes = write_message(hello());
    EXPECT_EQ(std::get<Hello>(*read_message(std::string_view(bytes).substr(4))), hello());
}

TEST(Messages, ShorterOrLongerOnesAreNone) {
    for (const Message& message : samples()) {
        const std::string bytes = write_message(message).substr(4);
        for (std::size_t cut = 0; cut < bytes.size(); ++cut)
            EXPECT_FALSE(read_message(std::string_view(bytes).substr(0, cut)).has_value());
        EXPECT_FALSE(read_message(bytes + "x").has_value());
    }
    EXPECT_FALSE(read_message("\x00"sv).has_value());
    EXPECT_FALSE(read_message("\x0a"sv).has_value());
}

TEST(Messages, ALengthBeyondTheLimitIsNotWaitedFor) {
    MessageReader zero, large, allowed;
    EXPECT_FALSE(zero.feed("\0\0\0\0"sv));
    EXPECT_FALSE(large.feed("\xff\xff\xff\x7f"sv));
    EXPECT_TRUE(allowed.feed("\x00\x00\x10\x00"sv));  // 1 MiB, the limit
    EXPECT_FALSE(allowed.next().has_value());
}

TEST(Messages, AnotherVersionIsSaidAndNotRead) {
    std::string bytes = write_message(hello()).substr(4);
    bytes[5] = 9;
    const auto message = read_message(bytes);
    ASSERT_TRUE(message.has_value());
    const Status status = check_version(std::get<Hello>(*message));
    EXPECT_EQ(status.code, Code::VersionMismatch);
    EXPECT_EQ(status.sentence,
              "the peer speaks version 9 of the KV protocol, this node version 1: run the same "
              "release of Sluice on both sides");
    EXPECT_TRUE(check_version(hello()).ok());
    bytes[1] = 'X';  // not our magic
    EXPECT_FALSE(read_message(bytes).has_value());
}

TEST(Messages, AHelloOfTheLargestNodeFits) {
    Hello large = hello();
    large.shape.regions.clear();
    for (std::uint32_t i = 0; i < limits::kRegionsMax; ++i) {
        Geometry one = hello().shape.regions[0];
        one.part = Part::KeyValue;
        one.layer = i;
        one.layer_name = std::to_string(i) + std::string(limits::kLayerNameBytesMax - 4, 'n');
        large.shape.regions.push_back(one);
    }
    const std::string bytes = write_message(large);
    EXPECT_LT(bytes.size(), limits::kMessageBytesMax);
    EXPECT_TRUE(read_message(std::string_view(bytes).substr(4)).has_value());
}

TEST(Token, IsComparedWhole) {
    Token a{}, b{};
    EXPECT_TRUE(same_token(a, b));
    for (std::size_t i = 0; i < a.size(); ++i) {
        b = a;
        b[i] = std::byte{1};
        EXPECT_FALSE(same_token(a, b));
    }
}

}  // namespace
}  // namespace sluice::kv::test
