// SPDX-License-Identifier: Apache-2.0
// Heads: the collector, the parsers' models, and the writer. Which heads are accepted is in
// tests/vectors/http.

#include <gtest/gtest.h>

#include <cstring>
#include <string>

#include "http/error_answer.h"
#include "http/head_collector.h"
#include "http/head_guard.h"
#include "http/head_writer.h"

namespace sluice::http {
namespace {

class HeadTest : public testing::Test {
protected:
    Slice slice(std::string_view text) {
        BufferRef buffer = pool.allocate(text.size());
        std::memcpy(buffer.data(), text.data(), text.size());
        return {std::move(buffer), 0, static_cast<std::uint32_t>(text.size())};
    }

    BufferPool pool{16 << 20};
};

// ---- model

TEST_F(HeadTest, RequestModelHoldsWhatCame) {
    RequestHead head;
    const auto error =
        parse_request_head(slice("POST /v1/x?a=b&c HTTP/1.1\r\nHost: h:1\r\nContent-Length: "
                                 "12\r\nX-Session-ID:  s 1 \r\n\r\n"),
                           head);
    ASSERT_FALSE(error) << error->message;
    EXPECT_EQ(head.method, "POST");
    EXPECT_EQ(head.target, "/v1/x?a=b&c");
    EXPECT_EQ(head.path, "/v1/x");
    EXPECT_EQ(head.query, "a=b&c");
    EXPECT_EQ(head.framing, Framing::Length);
    EXPECT_EQ(head.content_length, 12U);
    EXPECT_EQ(head.fields.size(), 3U);
    EXPECT_EQ(head.fields.find(FieldId::XSessionId), "s 1");
    EXPECT_EQ(head.fields.find("x-session-id"), "s 1");
    EXPECT_EQ(head.fields.find("X-None"), std::nullopt);
    EXPECT_EQ(head.fields[2].name, "X-Session-ID");
}

TEST_F(HeadTest, ModelKeepsItsBytesAlive) {
    RequestHead head;
    ASSERT_FALSE(parse_request_head(slice("GET /alive HTTP/1.1\r\nHost: a\r\n\r\n"), head));
    EXPECT_EQ(pool.buffers_in_use(), 1U);
    EXPECT_EQ(head.path, "/alive");
}

TEST_F(HeadTest, NothingOfAnEarlierRequestStays) {
    RequestHead head;
    ASSERT_FALSE(parse_request_head(slice("POST /?q HTTP/1.0\r\nContent-Length: 5\r\nExpect: "
                                          "100-continue\r\nConnection: close\r\n\r\n"),
                                    head));
    ASSERT_FALSE(parse_request_head(slice("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), head));
    EXPECT_EQ(head.query, "");
    EXPECT_EQ(head.framing, Framing::None);
    EXPECT_EQ(head.content_length, 0U);
    EXPECT_EQ(head.minor_version, 1);
    EXPECT_TRUE(head.keep_alive);
    EXPECT_FALSE(head.expects_continue);
    EXPECT_EQ(head.fields.size(), 1U);
}

TEST_F(HeadTest, ARefusedHeadLeavesNoneOfTheOneBefore) {
    RequestHead head;
    ASSERT_FALSE(parse_request_head(slice("HEAD /x HTTP/1.0\r\n\r\n"), head));
    ASSERT_TRUE(parse_request_head(slice("nonsense\r\n\r\n"), head));
    EXPECT_EQ(head.method, "");
    EXPECT_EQ(head.path, "");
    EXPECT_EQ(head.minor_version, 1);
    EXPECT_EQ(head.fields.size(), 0U);
}

TEST_F(HeadTest, ARefusedHeadSaysWhatMethodItHad) {
    RequestHead head;
    ASSERT_TRUE(parse_request_head(slice("HEAD /x HTTP/1.1\r\n\r\n"), head));  // no Host
    EXPECT_EQ(head.method, "HEAD");
}

TEST_F(HeadTest, ResponseModelHoldsWhatCame) {
    ResponseHead head;
    ASSERT_FALSE(parse_response_head(
        slice("HTTP/1.1 404 Not Found Here\r\nContent-Length: 7\r\n\r\n"), false, head));
    EXPECT_EQ(head.status, 404);
    EXPECT_EQ(head.reason, "Not Found Here");
    EXPECT_EQ(head.framing, Framing::Length);
    EXPECT_EQ(head.content_length, 7U);
    EXPECT_TRUE(head.keep_alive);
    ASSERT_FALSE(parse_response_head(slice("HTTP/1.1 200\r\n\r\n"), false, head));
    EXPECT_EQ(head.reason, "");
    EXPECT_EQ(head.framing, Framing::UntilClose);
    EXPECT_EQ(head.content_length, 0U);
    EXPECT_FALSE(head.keep_alive);
}

TEST_F(HeadTest, LengthOfAHeadAnswerIsKept) {
    ResponseHead head;
    ASSERT_FALSE(
        parse_response_head(slice("HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n"), true, head));
    EXPECT_EQ(head.framing, Framing::None);
    EXPECT_EQ(head.content_length, 7U);
}

TEST_F(HeadTest, FieldsAtTheVeryEndOfTheLargestHead) {
    std::string text = "GET / HTTP/1.1\r\nHost: a\r\nX-Pad: ";
    const std::string end = "\r\nX-Last: here\r\nX-Empty:\r\n\r\n";
    text.append(limits::kHeadBytesMax - text.size() - end.size(), 'x');
    text += end;
    RequestHead head;
    ASSERT_FALSE(parse_request_head(slice(text), head));
    EXPECT_EQ(head.fields.find("X-Last"), "here");
    EXPECT_EQ(head.fields.find("X-Empty"), "");
}

TEST_F(HeadTest, IdentifiesKnownFieldsInAnyCase) {
    EXPECT_EQ(identify("content-length"), FieldId::ContentLength);
    EXPECT_EQ(identify("CONTENT-LENGTH"), FieldId::ContentLength);
    EXPECT_EQ(identify("te"), FieldId::TE);
    EXPECT_EQ(identify("X-data-parallel-rank"), FieldId::XDataParallelRank);
    EXPECT_EQ(identify("Content-Lengths"), FieldId::Other);
    EXPECT_EQ(identify("Content_Length"), FieldId::Other);
    EXPECT_EQ(identify("x"), FieldId::Other);
}

TEST_F(HeadTest, ListElements) {
    const auto elements = [](std::string_view list) {
        std::string joined;
        for_each_list_element(
            list, [&](std::string_view element) { joined += "[" + std::string(element) + "]"; });
        return joined;
    };
    EXPECT_EQ(elements(""), "");
    EXPECT_EQ(elements(" , ,"), "");
    EXPECT_EQ(elements("a"), "[a]");
    EXPECT_EQ(elements("a, b c ,\td\t,,e"), "[a][b c][d][e]");
}

TEST_F(HeadTest, HasTokenLooksAtAllLines) {
    RequestHead head;
    ASSERT_FALSE(parse_request_head(
        slice("GET / HTTP/1.1\r\nHost: a\r\nConnection: x, y\r\nConnection: Z\r\n\r\n"), head));
    EXPECT_TRUE(head.fields.has_token(FieldId::Connection, "Y"));
    EXPECT_TRUE(head.fields.has_token(FieldId::Connection, "z"));
    EXPECT_FALSE(head.fields.has_token(FieldId::Connection, "x, y"));
    EXPECT_EQ(head.fields.count(FieldId::Connection), 2U);
}

TEST_F(HeadTest, Tokens) {
    EXPECT_TRUE(is_token("X-One"));
    EXPECT_FALSE(is_token(""));
    EXPECT_FALSE(is_token("a b"));
    EXPECT_FALSE(is_token("a:"));
    EXPECT_FALSE(is_token("\x80"));
}

// ---- collector

TEST_F(HeadTest, AHeadInOnePieceIsNotCopied) {
    HeadCollector collector;
    Slice piece = slice("GET / HTTP/1.1\r\nHost: a\r\n\r\nbody");
    const char* place = piece.data();
    ASSERT_EQ(collector.feed(std::move(piece), pool), HeadCollector::State::Complete);
    EXPECT_EQ(static_cast<const void*>(collector.take_head().data()), place);
    EXPECT_EQ(collector.take_rest().view(), "body");
    EXPECT_FALSE(collector.started());
}

TEST_F(HeadTest, ADrippedHeadHoldsOneBuffer) {
    HeadCollector collector;
    std::string text = "GET / HTTP/1.1\r\nHost: a\r\nX-Pad: ";
    text.append(10000, 'x');
    for (const char c : text) {
        // Each byte in a page of its own, as receives deliver them.
        ASSERT_EQ(collector.feed(slice(std::string_view(&c, 1)), pool),
                  HeadCollector::State::NeedMore);
        ASSERT_EQ(pool.buffers_in_use(), 1U);
    }
    ASSERT_EQ(collector.feed(slice("\r\n\r\n"), pool), HeadCollector::State::Complete);
    EXPECT_EQ(collector.take_head().view(), text + "\r\n\r\n");
}

TEST_F(HeadTest, PipelinedHeadsComeOutOneByOne) {
    HeadCollector collector;
    Slice bytes =
        slice("GET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\n\r\n\r\nGET /3 HTTP/1.1\r\n\r\n");
    for (const std::string expected : {"GET /1", "GET /2", "GET /3"}) {
        ASSERT_EQ(collector.feed(std::move(bytes), pool), HeadCollector::State::Complete);
        EXPECT_TRUE(collector.take_head().view().starts_with(expected));
        bytes = collector.take_rest();
    }
    EXPECT_TRUE(bytes.empty());
    EXPECT_FALSE(collector.started());
}

TEST_F(HeadTest, AppendingNeverTouchesASharedPage) {
    HeadCollector collector;
    Slice page = slice("0123456789GET / HTTP/1.1\r\nXXXX");
    const Slice before = page.part(0, 10);
    const Slice behind = page.part(26, 4);
    ASSERT_EQ(collector.feed(page.part(10, 16), pool), HeadCollector::State::NeedMore);
    page = Slice();
    ASSERT_EQ(collector.feed(slice("Host: a\r\n\r\n"), pool), HeadCollector::State::Complete);
    EXPECT_EQ(before.view(), "0123456789");
    EXPECT_EQ(behind.view(), "XXXX");
    EXPECT_EQ(collector.take_head().view(), "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
}

TEST_F(HeadTest, WithoutMemoryItIsRefused) {
    BufferPool small(limits::kPageBytes);
    const BufferRef all = small.allocate_page();
    HeadCollector starved;
    Slice page = slice("GET / HT");
    const Slice other_user = page;
    ASSERT_EQ(starved.feed(std::move(page), small), HeadCollector::State::NeedMore);
    ASSERT_EQ(starved.feed(slice("TP/1.1\r\n"), small), HeadCollector::State::Bad);
    EXPECT_EQ(starved.error().status, 503);
    EXPECT_FALSE(starved.started());
}

// ---- writer

std::string copied(BufferPool& pool, const FieldList& fields, FieldSet dropped) {
    TextArena arena(pool);
    TextWriter writer(arena);
    copy_fields(writer, fields, dropped);
    return std::string(writer.view());
}

TEST_F(HeadTest, CopiesAllButTheDropped) {
    RequestHead head;
    ASSERT_FALSE(parse_request_head(slice("GET / HTTP/1.1\r\nHost: a\r\nUser-Agent: u\r\nVia: 1.1 "
                                          "x\r\nAccept-Encoding: gzip\r\n\r\n"),
                                    head));
    EXPECT_EQ(copied(pool, head.fields, kHopByHop),
              "Host: a\r\nUser-Agent: u\r\nVia: 1.1 x\r\nAccept-Encoding: gzip\r\n");
    EXPECT_EQ(
        copied(pool, head.fields, kHopByHop | FieldSet{FieldId::Host, FieldId::AcceptEncoding}),
        "User-Agent: u\r\nVia: 1.1 x\r\n");
    EXPECT_EQ(copied(pool, head.fields, {}).size(),
              head.bytes.size - std::strlen("GET / HTTP/1.1\r\n") - 2);
}

TEST_F(HeadTest, OtherFieldsAreInNoSet) {
    EXPECT_FALSE(FieldSet{FieldId::Other}.contains(FieldId::Other));
    EXPECT_TRUE(kHopByHop.contains(FieldId::Connection));
    EXPECT_TRUE(kHopByHop.contains(FieldId::ContentLength));
    EXPECT_FALSE(kHopByHop.contains(FieldId::Host));
    EXPECT_FALSE(kHopByHop.contains(FieldId::Other));
}

TEST_F(HeadTest, WritesLines) {
    TextArena arena(pool);
    TextWriter writer(arena);
    write_status_line(writer, 429);
    write_field(writer, "Retry-After", std::uint64_t{1});
    write_field(writer, "X-One", "");
    EXPECT_EQ(writer.view(), "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nX-One: \r\n");
}

TEST_F(HeadTest, DateIsAnHttpDate) {
    TextArena arena(pool);
    TextWriter writer(arena);
    write_date(writer);
    const std::string line(writer.view());
    ASSERT_EQ(line.size(), std::strlen("Date: Mon, 23 Nov 2026 10:00:00 GMT\r\n")) << line;
    EXPECT_TRUE(line.ends_with(" GMT\r\n"));
    EXPECT_EQ(line[9], ',');
}

TEST_F(HeadTest, WhatIsWrittenParsesAgain) {
    for (const int status : {100, 200, 204, 304, 400, 404, 417, 431, 499, 500, 599}) {
        TextArena arena(pool);
        TextWriter writer(arena);
        write_status_line(writer, static_cast<std::uint16_t>(status));
        writer.append("\r\n");
        ResponseHead head;
        ASSERT_FALSE(parse_response_head(writer.finish(), false, head)) << status;
        EXPECT_EQ(head.status, status);
        EXPECT_FALSE(head.reason.empty());
    }
}

// ---- errors

TEST_F(HeadTest, ErrorAnswers) {
    TextArena arena(pool);
    TextWriter writer(arena);
    write_error_json(writer, 400, "say \"why\"\n\\ \x01", "max_tokens");
    EXPECT_EQ(writer.view(),
              "{\"error\":{\"message\":\"say \\\"why\\\"\\u000a\\\\ "
              "\\u0001\",\"type\":\"BadRequestError\","
              "\"param\":\"max_tokens\",\"code\":400}}");
}

TEST_F(HeadTest, ErrorAnswerWithoutParameter) {
    TextArena arena(pool);
    TextWriter writer(arena);
    write_error_json(writer, 503, "busy");
    EXPECT_EQ(writer.view(),
              "{\"error\":{\"message\":\"busy\",\"type\":\"ServiceUnavailableError\",\"param\":"
              "null,\"code\":503}}");
}

TEST_F(HeadTest, ErrorTypes) {
    EXPECT_EQ(error_type_of(404), "NotFoundError");
    EXPECT_EQ(error_type_of(400), "BadRequestError");
    EXPECT_EQ(error_type_of(418), "BadRequestError");
    EXPECT_EQ(error_type_of(500), "InternalServerError");
    EXPECT_EQ(error_type_of(599), "InternalServerError");
}

}  // namespace
}  // namespace sluice::http
