// SPDX-License-Identifier: Apache-2.0
#include "http/sse.h"

#include <gtest/gtest.h>

#include <array>
#include <string>
#include <vector>

namespace sluice::http {
namespace {

using Ends = std::vector<std::size_t>;

// Offsets in the whole stream at which events end, when it arrives in pieces of `piece_bytes`.
Ends ends_by_next(std::string_view stream, std::size_t piece_bytes) {
    SseScanner scanner;
    Ends ends;
    for (std::size_t at = 0; at < stream.size(); at += piece_bytes) {
        std::string_view piece = stream.substr(at, piece_bytes);
        std::size_t taken = at;
        while (const auto end = scanner.next_end(piece)) {
            taken += *end;
            ends.push_back(taken);
            piece.remove_prefix(*end);
        }
    }
    return ends;
}

// The last event end known after the stream came in two pieces.
std::size_t last_of_two(std::string_view stream, std::size_t cut) {
    SseScanner scanner;
    std::size_t last = scanner.last_end(stream.substr(0, cut)).value_or(0);
    if (const auto end = scanner.last_end(stream.substr(cut))) {
        last = cut + *end;
    }
    return last;
}

TEST(SseScannerTest, EndsEventsAtBlankLines) {
    EXPECT_EQ(ends_by_next("data: a\n\ndata: b\n\n", 100), (Ends{9, 18}));
    EXPECT_EQ(ends_by_next("data: a\r\n\r\ndata: b\r\n\r\n", 100), (Ends{11, 22}));
    EXPECT_EQ(ends_by_next("data: a\r\rdata: b\r\r", 100), (Ends{9, 18}));
    EXPECT_EQ(ends_by_next("data: a\ndata: b\n", 100), Ends{});
}

TEST(SseScannerTest, ACommentIsAnEventToo) {
    EXPECT_EQ(ends_by_next(": keep-alive\n\n", 3), Ends{14});
}

TEST(SseScannerTest, TheLfOfACrlfIsNotLeftBehind) {
    SseScanner scanner;
    EXPECT_EQ(scanner.last_end("data: a\r\n\r"), std::nullopt);
    EXPECT_EQ(scanner.last_end("\ndata"), 1U);
}

TEST(SseScannerTest, CrStreamsAreNotHeldBack) {
    SseScanner scanner;
    EXPECT_EQ(scanner.last_end("data: a\r\r"), 9U);
    EXPECT_EQ(scanner.last_end("data: b\r"), std::nullopt);
    EXPECT_EQ(scanner.last_end("\r"), 1U);
}

TEST(SseScannerTest, ABlankCrWithoutItsLfEndsTheEventBeforeTheNextByte) {
    SseScanner scanner;
    EXPECT_EQ(scanner.last_end("data: a\r\n\r"), std::nullopt);
    EXPECT_EQ(scanner.last_end("data"), 0U);
    SseScanner by_one;
    EXPECT_EQ(by_one.next_end("data: a\r\n\r"), std::nullopt);
    EXPECT_EQ(by_one.next_end("data"), 0U);
    EXPECT_EQ(by_one.next_end("data"), std::nullopt);
}

TEST(SseScannerTest, FindsTheLastEndInTheMiddleOfAPiece) {
    SseScanner scanner;
    EXPECT_EQ(scanner.last_end("data: a\n\ndata: b\n\ndata: c\nda"), 18U);
    EXPECT_EQ(scanner.open_bytes(), 10U);
    EXPECT_EQ(scanner.last_end("ta: c2"), std::nullopt);
    EXPECT_EQ(scanner.open_bytes(), 16U);
    EXPECT_EQ(scanner.last_end("\n"), std::nullopt);
    EXPECT_EQ(scanner.last_end("\n"), 1U);
    EXPECT_EQ(scanner.open_bytes(), 0U);
    EXPECT_EQ(scanner.last_end(""), std::nullopt);
}

// Every string of these bytes up to a length, cut at every place: same ends, and both ways of
// asking agree.
TEST(SseScannerTest, NoCutChangesTheEnds) {
    constexpr std::string_view kAlphabet = "a\n\r";
    for (std::size_t size = 1; size <= 9; ++size) {
        std::size_t combinations = 1;
        for (std::size_t i = 0; i < size; ++i) combinations *= kAlphabet.size();
        for (std::size_t number = 0; number < combinations; ++number) {
            std::string stream;
            for (std::size_t rest = number; stream.size() < size; rest /= kAlphabet.size()) {
                stream += kAlphabet[rest % kAlphabet.size()];
            }
            const Ends whole = ends_by_next(stream, stream.size());
            for (std::size_t piece = 1; piece < size; ++piece) {
                ASSERT_EQ(ends_by_next(stream, piece), whole) << testing::PrintToString(stream);
            }
            const std::size_t last = whole.empty() ? 0 : whole.back();
            for (std::size_t cut = 0; cut <= size; ++cut) {
                ASSERT_EQ(last_of_two(stream, cut), last) << testing::PrintToString(stream) << cut;
            }
        }
    }
}

class ParseEventTest : public testing::Test {
protected:
    SseEvent parse(std::string_view bytes) {
        const auto event = parse_event(bytes, joined_);
        EXPECT_TRUE(event);
        return event.value_or(SseEvent{});
    }

    std::array<char, 16> joined_;
};

TEST_F(ParseEventTest, OneDataLineIsAView) {
    const std::string_view bytes = "event: ping\ndata: {\"a\":1}\n\n";
    const SseEvent event = parse(bytes);
    EXPECT_EQ(event.name, "ping");
    EXPECT_EQ(event.data, "{\"a\":1}");
    EXPECT_EQ(event.data.data(), bytes.data() + 18);
    EXPECT_TRUE(event.has_data);
    EXPECT_FALSE(event.comment_only);
}

TEST_F(ParseEventTest, SeveralDataLinesAreJoined) {
    EXPECT_EQ(parse("data: a\r\ndata:b\r\ndata\r\ndata:  c\r\n\r\n").data, "a\nb\n\n c");
    EXPECT_EQ(parse("data: a\rdata: b\r\r").data, "a\nb");
}

TEST_F(ParseEventTest, DataThatDoesNotFitIsAnError) {
    EXPECT_EQ(parse("data: 12345678\ndata: 1234567\n\n").data, "12345678\n1234567");
    const auto event = parse_event("data: 12345678\ndata: 12345678\n\n", joined_);
    ASSERT_FALSE(event);
    EXPECT_EQ(event.error(), SseError::DataTooLong);
    EXPECT_TRUE(parse_event("data: longer than the buffer is\n\n", joined_));  // a view
}

TEST_F(ParseEventTest, CommentsAreRecognised) {
    const SseEvent comment = parse(": keep-alive\n\n");
    EXPECT_TRUE(comment.comment_only);
    EXPECT_FALSE(comment.has_data);
    EXPECT_TRUE(parse("\n").comment_only);
    EXPECT_FALSE(parse(": x\ndata: y\n\n").comment_only);
    EXPECT_FALSE(parse("id: 7\n\n").comment_only);
}

TEST_F(ParseEventTest, FieldsFollowTheSpecification) {
    EXPECT_EQ(parse("event: a\nevent: b\ndata: x\n\n").name, "b");
    EXPECT_EQ(parse("data:x\n\n").data, "x");
    EXPECT_EQ(parse("data:  x\n\n").data, " x");
    EXPECT_EQ(parse("data: a:b\n\n").data, "a:b");
    EXPECT_TRUE(parse("data\n\n").has_data);
    EXPECT_FALSE(parse(" data: x\n\n").has_data);
    EXPECT_FALSE(parse("Data: x\n\n").has_data);
    EXPECT_EQ(parse("\xef\xbb\xbf"
                    "data: x\n\n")
                  .data,
              "x");
    EXPECT_EQ(parse("\ndata: x\n\n").data, "x");
    EXPECT_EQ(parse("retry: 5\nid: 3\nunknown: 4\ndata: x\n\n").data, "x");
}

}  // namespace
}  // namespace sluice::http
