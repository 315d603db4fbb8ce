// SPDX-License-Identifier: Apache-2.0
// The server on the simulated I/O: requests in order, answers in every framing, bodies wherever
// they land.

#include <gtest/gtest.h>

#include <string>

#include "support/http_bench.h"

namespace sluice::test {
namespace {

using http::ServerConnection;
using std::chrono::milliseconds;
using std::chrono::seconds;

std::string get(std::string_view path) {
    return "GET " + std::string(path) + " HTTP/1.1\r\nHost: a\r\n\r\n";
}

std::string post(std::string_view path, std::string_view body) {
    return "POST " + std::string(path) +
           " HTTP/1.1\r\nHost: a\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" +
           std::string(body);
}

std::string chunked_post(std::string_view body, std::size_t chunk) {
    std::string text = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (std::size_t at = 0; at < body.size(); at += chunk) {
        char size[32];
        std::snprintf(size, sizeof size, "%zx\r\n", std::min(chunk, body.size() - at));
        text += size + std::string(body.substr(at, chunk)) + "\r\n";
    }
    return text + "0\r\n\r\n";
}

io::sim::Faults cutting() {
    io::sim::Faults faults;
    faults.split_read = 0.7;
    faults.short_send = 0.3;
    faults.late_completion = 0.3;
    faults.reorder = 0.3;
    faults.no_buffers = 0.05;
    return faults;
}

// ---- requests in order

TEST(HttpServer, ServesOneRequestAfterAnother) {
    ServerBench bench;
    Recorder& client = bench.connect();
    for (int i = 0; i < 3; ++i) {
        const auto answers = bench.ask(client, post("/x", "body"));
        ASSERT_EQ(answers.size(), 1U);
        EXPECT_EQ(answers[0].status, 200);
        EXPECT_EQ(answers[0].body, "POST /x\nbody");
        EXPECT_EQ(answers[0].field("Content-Type"), "text/plain");
        EXPECT_EQ(answers[0].field("Content-Length"), "12");
        EXPECT_NE(answers[0].field("Date"), "");
        EXPECT_EQ(answers[0].field("Connection"), "");
    }
    EXPECT_EQ(client.ends, 0);
    EXPECT_EQ(bench.server->connections(), 1U);
}

TEST(HttpServer, ManyPipelinedRequestsInOneSegment) {
    ServerBench bench;
    Recorder& client = bench.connect();
    std::string bytes;
    for (int i = 0; i < 300; ++i)
        bytes += i % 3 == 0 ? post("/" + std::to_string(i), "b") : get("/" + std::to_string(i));
    ASSERT_LT(bytes.size(), 16000U);
    const auto answers = bench.ask(client, bytes, 300);
    ASSERT_EQ(answers.size(), 300U);
    for (int i = 0; i < 300; ++i)
        ASSERT_EQ(answers[i].body, (i % 3 == 0 ? "POST /" : "GET /") + std::to_string(i) +
                                       (i % 3 == 0 ? "\nb" : "\n"));
}

TEST(HttpServer, PipelinedRequestsAreServedOneAtATime) {
    ServerBench bench({}, cutting(), 5);
    int serving = 0;
    int most = 0;
    bench.handler.when_request = [&](ServerConnection& connection) {
        most = std::max(most, ++serving);
        const std::string path(connection.request().path);
        bench.world.after(milliseconds(5), [&serving, &connection, path] {
            --serving;
            connection.respond(200, "text/plain", path);
        });
    };
    Recorder& client = bench.connect();
    std::string bytes;
    for (int i = 0; i < 50; ++i) bytes += get("/" + std::to_string(i));
    const auto answers = bench.ask(client, bytes, 50);
    ASSERT_EQ(answers.size(), 50U);
    for (int i = 0; i < 50; ++i) EXPECT_EQ(answers[i].body, "/" + std::to_string(i));
    EXPECT_EQ(most, 1);
}

TEST(HttpServer, ARequestSplitOverPagesWhileAnotherIsServed) {
    for (std::uint64_t seed = 1; seed <= 20; ++seed) {
        ServerBench bench({}, seed == 1 ? io::sim::Faults() : cutting(), seed);
        bool first = true;
        bench.handler.when_request = [&](ServerConnection& connection) {
            const std::string body(connection.body().view());
            const auto answer = [&connection, body] { connection.respond(200, "", body); };
            if (!std::exchange(first, false)) return answer();
            bench.world.after(milliseconds(100), answer);
        };
        Recorder& client = bench.connect();
        const std::string large = pattern(50000);
        const auto answers = bench.ask(
            client, get("/1") + post("/2", large) + chunked_post(large, 7000) + get("/4"), 4);
        ASSERT_EQ(answers.size(), 4U) << seed;
        EXPECT_EQ(answers[0].body, "");
        EXPECT_TRUE(answers[1].body == large) << seed;
        EXPECT_TRUE(answers[2].body == large) << seed;
        EXPECT_EQ(answers[3].body, "");
    }
}

TEST(HttpServer, InputBehindARequestIsBounded) {
    ServerBench bench;
    ServerConnection* serving = nullptr;
    bench.handler.when_request = [&](ServerConnection& connection) { serving = &connection; };
    Recorder& client = bench.connect();
    client.send(get("/1"));
    client.send(post("/2", std::string(2 << 20, 'x')));
    bench.run_for(seconds(1));
    ASSERT_NE(serving, nullptr);
    EXPECT_EQ(bench.handler.requests.size(), 1U);
    EXPECT_LT(bench.server_loop.buffers().bytes_in_use(), 400U << 10);
    EXPECT_GT(client.stream.unsent(), 1U << 20);
    bench.handler.when_request = nullptr;
    serving->respond(200, "", "one");
    const auto answers = bench.ask(client, "", 2);
    ASSERT_EQ(answers.size(), 2U);
    EXPECT_EQ(answers[1].body.size(), std::string_view("POST /2\n").size() + (2 << 20));
}

TEST(HttpServer, DrippedInputBehindARequestIsBounded) {
    ServerBench bench;
    ServerConnection* serving = nullptr;
    bench.handler.when_request = [&](ServerConnection& connection) { serving = &connection; };
    Recorder& client = bench.connect();
    client.send(get("/1"));
    bench.settle();
    ASSERT_NE(serving, nullptr);
    const std::string next = get("/2" + std::string(2000, 'x'));
    for (const char c : next) {  // each byte lands in a page of its own
        client.send(std::string_view(&c, 1));
        bench.run_for(milliseconds(1));
    }
    EXPECT_LT(bench.server_loop.buffers().bytes_in_use(), 2U << 20);
    bench.handler.when_request = nullptr;
    serving->respond(200, "", "one");
    EXPECT_EQ(bench.ask(client, "", 2).size(), 2U);
}

TEST(HttpServer, AnswersThatNobodyReadsHoldUpTheNextRequests) {
    ServerBench bench;
    bench.handler.when_request = [&](ServerConnection& connection) {
        connection.respond(200, "", std::string(50000, 'a'));
    };
    Recorder& client = bench.connect();
    client.stream.set_reading(false);
    std::string bytes;
    for (int i = 0; i < 1000; ++i) bytes += get("/");
    client.send(bytes);
    bench.run_for(seconds(5));
    EXPECT_LT(bench.handler.requests.size(), 20U);
    EXPECT_LT(bench.server_loop.buffers().bytes_in_use(), 3U << 20);
    client.stream.set_reading(true);
    const auto answers = bench.ask(client, "", 1000);
    EXPECT_EQ(answers.size(), 1000U);
    EXPECT_EQ(bench.handler.requests.size(), 1000U);
}

// ---- bodies

TEST(HttpServer, BodiesOfAllSizesAreExactAndContiguous) {
    std::vector<std::size_t> sizes = {1,     2,     100,    4096,    16000,
                                      20000, 65536, 300000, 1 << 20, 3'000'001};
    for (std::size_t near_page = 16240; near_page <= 16330; near_page += 9)
        sizes.push_back(near_page);
    for (const std::size_t size : sizes)
        for (std::uint64_t seed = 1; seed <= 3; ++seed) {
            ServerBench bench({}, seed == 1 ? io::sim::Faults() : cutting(), seed);
            Recorder& client = bench.connect();
            const std::string body = pattern(size, static_cast<unsigned>(seed));
            const std::string expected = "POST /x\n" + body;
            // Each followed by another request in the same bytes.
            const auto answers = bench.ask(
                client, post("/x", body) + get("/next") + chunked_post(body, 10007) + get("/last"),
                4);
            ASSERT_EQ(answers.size(), 4U) << size << " seed " << seed;
            ASSERT_TRUE(answers[0].body == expected) << size << " seed " << seed;
            ASSERT_EQ(answers[1].body, "GET /next\n");
            ASSERT_TRUE(answers[2].body == "POST /\n" + body) << size << " seed " << seed;
            ASSERT_EQ(answers[3].body, "GET /last\n");
        }
}

TEST(HttpServer, ABodyThatCameWithItsHeadIsNotCopied) {
    ServerBench bench;
    bool in_place = false;
    bench.handler.when_request = [&](ServerConnection& connection) {
        in_place = connection.body().buffer.get() == connection.request().bytes.buffer.get();
        connection.respond(200, "", "");
    };
    Recorder& client = bench.connect();
    ASSERT_EQ(bench.ask(client, post("/", pattern(10000))).size(), 1U);
    EXPECT_TRUE(in_place);
}

TEST(HttpServer, ABodyThatFitsBehindItsHeadIsReceivedThere) {
    ServerBench bench;
    bool in_place = false;
    const std::string body = pattern(10000);
    bench.handler.when_request = [&](ServerConnection& connection) {
        in_place = connection.body().buffer.get() == connection.request().bytes.buffer.get();
        connection.respond(200, "", connection.body().view());
    };
    Recorder& client = bench.connect();
    const std::string bytes = post("/", body);
    client.send(std::string_view(bytes).substr(0, 200));
    bench.settle();
    client.send(std::string_view(bytes).substr(200, 3000));
    bench.settle();
    const auto answers = bench.ask(client, std::string_view(bytes).substr(3200));
    ASSERT_EQ(answers.size(), 1U);
    EXPECT_TRUE(answers[0].body == body);
    EXPECT_TRUE(in_place);
}

// Its head waited behind another request, so that a receive into a page is already under way when
// its buffer is chosen.
TEST(HttpServer, ABodyThatComesInAPageAfterAllIsLeftAloneByWhatFollows) {
    for (const std::size_t size : {10'000U, 16'000U}) {
        ServerBench bench;
        std::vector<ServerConnection*> serving;
        bench.handler.when_request = [&](ServerConnection& connection) {
            serving.push_back(&connection);
        };
        const std::string body = pattern(size);
        const std::string bytes = post("/2", body);
        Recorder& client = bench.connect();
        client.send(get("/1"));
        bench.settle();
        client.send(std::string_view(bytes).substr(0, bytes.size() - size));
        bench.settle();
        serving.at(0)->respond(200, "", "");
        client.send(body);
        bench.settle();
        client.send(get("/3" + std::string(5000, 'x')));
        bench.settle();
        ASSERT_EQ(serving.size(), 2U);
        EXPECT_TRUE(serving[1]->body().view() == body);
        serving[1]->respond(200, "", "");
        bench.settle();
        ASSERT_EQ(serving.size(), 3U);
        serving[2]->respond(200, "", "");
        EXPECT_EQ(bench.ask(client, "", 3).size(), 3U);
    }
}

TEST(HttpServer, ALargeBodyTakesOneBufferOfItsSize) {
    ServerBench bench;
    const std::string body = pattern(900000);
    std::uint32_t offset = 1;
    std::uint64_t receives = 0;
    bench.handler.when_request = [&](ServerConnection& connection) {
        offset = connection.body().offset;
        receives = bench.server_loop.io().counters().receives;
        connection.respond(200, "", "");
    };
    Recorder& client = bench.connect();
    ASSERT_EQ(bench.ask(client, post("/", body)).size(), 1U);
    EXPECT_EQ(offset, 0U);
    EXPECT_LT(receives, 60U);
}

TEST(HttpServer, ReleasedRequestsHoldNoBytes) {
    ServerBench bench;
    ServerConnection* serving = nullptr;
    bench.handler.when_request = [&](ServerConnection& connection) {
        connection.release_request();
        serving = &connection;
    };
    Recorder& client = bench.connect();
    client.send(post("/", pattern(3 << 20)));
    ASSERT_TRUE(bench.run([&] { return serving != nullptr; }));
    EXPECT_LE(bench.server_loop.buffers().buffers_in_use(), 2U);
    serving->respond(200, "", "ok");
    EXPECT_EQ(bench.ask(client, "").size(), 1U);
}

TEST(HttpServer, ABodyWithoutMemoryIsRefused) {
    ServerBench bench({}, {}, 1, 10, 2 << 20);
    Recorder& client = bench.connect();
    const auto answers =
        bench.ask(client, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8000000\r\n\r\nxyz");
    ASSERT_EQ(answers.size(), 1U);
    EXPECT_EQ(answers[0].status, 503);
    EXPECT_EQ(bench.handler.refused, std::vector<int>{503});
    EXPECT_TRUE(bench.run_until_closed(client));
}

TEST(HttpServer, AChunkedBodyMayGrowToTheLimit) {
    http::ServerOptions options;
    options.body_bytes_max = 3 << 20;
    // Doubling beyond the limit would not fit here.
    ServerBench bench(options, {}, 1, 10, 9 << 20);
    bench.handler.when_request = [](ServerConnection& connection) {
        connection.respond(200, "", std::to_string(connection.body().size));
    };
    Recorder& client = bench.connect();
    const auto answers = bench.ask(client, chunked_post(std::string(3 << 20, 'x'), 1 << 20));
    ASSERT_EQ(answers.size(), 1U);
    EXPECT_EQ(answers[0].status, 200);
    EXPECT_EQ(answers[0].body, std::to_string(3 << 20));
}

// ---- Expect

TEST(HttpServer, ContinueIsSentWhenTheBodyIsWaitedFor) {
    ServerBench bench;
    Recorder& client = bench.connect();
    for (const bool chunked : {false, true}) {
        const std::size_t before = client.received.size();
        client.send(std::string("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n") +
                    (chunked ? "Transfer-Encoding: chunked\r\n\r\n" : "Content-Length: 2\r\n\r\n"));
        bench.settle();
        EXPECT_EQ(client.received.substr(before), "HTTP/1.1 100 Continue\r\n\r\n");
        const auto answers = bench.ask(client, chunked ? "2\r\nhi\r\n0\r\n\r\n" : "hi");
        ASSERT_EQ(answers.size(), 1U);
        EXPECT_EQ(answers[0].body, "POST /\nhi");
    }
}

TEST(HttpServer, ContinueIsNotSentWhenTheBodyIsThere) {
    ServerBench bench;
    ServerConnection* serving = nullptr;
    bench.handler.when_request = [&](ServerConnection& connection) { serving = &connection; };
    Recorder& client = bench.connect();
    client.send(get("/"));
    bench.settle();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
    bench.settle();
    client.send("hi");  // in a page of its own, before the head is looked at
    bench.settle();
    ASSERT_NE(serving, nullptr);
    bench.handler.when_request = nullptr;
    serving->respond(200, "", "one");
    bench.settle();
    const auto answers = parse_answers(client.received);
    ASSERT_EQ(answers.size(), 2U);
    EXPECT_EQ(answers[1].status, 200);
    EXPECT_EQ(answers[1].body, "POST /\nhi");
}

TEST(HttpServer, ContinueIsNotSentWhenTheHeadIsRefused) {
    ServerBench bench;
    bench.handler.when_head = [](ServerConnection& connection) {
        connection.respond_error(404, "no");
    };
    Recorder& client = bench.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
    ASSERT_TRUE(bench.run_until_closed(client));
    const auto answers = parse_answers(client.received);
    ASSERT_EQ(answers.size(), 1U);
    EXPECT_EQ(answers[0].status, 404);
    EXPECT_EQ(answers[0].field("Connection"), "close");
    EXPECT_TRUE(bench.handler.requests.empty());
}

// ---- answers

// Starts an answer, and writes two pieces in this turn and two in a later one.
void write_in_two_turns(ServerBench& bench, ServerConnection& connection,
                        std::optional<std::uint64_t> length) {
    connection.start_response(200, "X-One: 1\r\n", length);
    connection.write(slice_of(bench.server_loop.buffers(), "one "));
    connection.write(slice_of(bench.server_loop.buffers(), "two "));
    bench.world.after(milliseconds(5), [&] {
        connection.write(slice_of(bench.server_loop.buffers(), "three "));
        connection.write(Slice());
        connection.write(slice_of(bench.server_loop.buffers(), "four"));
        connection.end_response();
    });
}

TEST(HttpServer, WhatIsWrittenInATurnIsOneChunk) {
    ServerBench bench;
    bench.handler.when_request = [&](ServerConnection& c) { write_in_two_turns(bench, c, {}); };
    Recorder& client = bench.connect();
    const auto answers = bench.ask(client, get("/"));
    ASSERT_EQ(answers.size(), 1U);
    EXPECT_TRUE(answers[0].chunked);
    EXPECT_EQ(answers[0].body, "one two three four");
    EXPECT_EQ(answers[0].field("X-One"), "1");
    EXPECT_EQ(client.received.substr(client.received.find("\r\n\r\n") + 4),
              "8\r\none two \r\na\r\nthree four\r\n0\r\n\r\n");
    EXPECT_EQ(bench.ask(client, get("/")).size(), 1U) << "the connection is kept";
}

TEST(HttpServer, AnAnswerOfKnownLength) {
    ServerBench bench;
    bench.handler.when_request = [&](ServerConnection& c) { write_in_two_turns(bench, c, 18); };
    Recorder& client = bench.connect();
    for (int i = 0; i < 2; ++i) {
        const auto answers = bench.ask(client, get("/"));
        ASSERT_EQ(answers.size(), 1U);
        EXPECT_FALSE(answers[0].chunked);
        EXPECT_EQ(answers[0].body, "one two three four");
    }
}

TEST(HttpServer, AnAnswerShorterOrLongerThanItsLengthBreaks) {
    for (const std::uint64_t length : {17U, 19U}) {
        ServerBench bench;
        bench.handler.when_request = [&](ServerConnection& c) {
            write_in_two_turns(bench, c, length);
        };
        Recorder& client = bench.connect();
        client.send(get("/") + get("/"));
        ASSERT_TRUE(bench.run_until_closed(client));
        EXPECT_EQ(bench.handler.requests.size(), 1U);
        EXPECT_EQ(bench.handler.gone, 0);
    }
}

TEST(HttpServer, AnAnswerToHeadHasNoBody) {
    for (const int how : {0, 1, 2}) {
        ServerBench bench;
        bench.handler.when_request = [&](ServerConnection& c) {
            if (c.request().path == "/next") return c.respond(200, "", "next");
            EXPECT_TRUE(c.is_head_method());
            if (how == 0) return c.respond(200, "text/plain", "hello");
            write_in_two_turns(bench, c,
                               how == 1 ? std::optional<std::uint64_t>(18) : std::nullopt);
        };
        Recorder& client = bench.connect();
        client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n" + get("/next"));
        bench.settle();
        const auto answers = parse_answers(client.received, false, {true, false});
        ASSERT_EQ(answers.size(), 2U) << client.received;
        EXPECT_EQ(answers[0].field("Content-Length"), how == 0 ? "5" : how == 1 ? "18" : "");
        EXPECT_EQ(answers[0].field("Transfer-Encoding"), how == 2 ? "chunked" : "");
        EXPECT_EQ(answers[1].body, "next");
    }
}

TEST(HttpServer, AnswersWithoutBodyByStatus) {
    for (const int status : {204, 304}) {
        ServerBench bench;
        bench.handler.when_request = [&](ServerConnection& c) {
            if (c.request().path == "/next") return c.respond(200, "", "next");
            c.start_response(static_cast<std::uint16_t>(status), "", 5);
            c.write(slice_of(bench.server_loop.buffers(), "hello"));
            c.end_response();
        };
        Recorder& client = bench.connect();
        const auto answers = bench.ask(client, get("/") + get("/next"), 2);
        ASSERT_EQ(answers.size(), 2U);
        EXPECT_EQ(answers[0].status, status);
        EXPECT_EQ(answers[0].field("Content-Length"), "");
        EXPECT_EQ(answers[0].field("Transfer-Encoding"), "");
        EXPECT_EQ(answers[1].body, "next");
    }
}

TEST(HttpServer, ToHttp10AnAnswerOfUnknownLengthEndsWithTheConnection) {
    ServerBench bench;
    bench.handler.when_request = [&](ServerConnection& c) { write_in_two_turns(bench, c, {}); };
    Recorder& client = bench.connect();
    client.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    ASSERT_TRUE(bench.run_until_closed(client));
    EXPECT_EQ(client.breaks, 0);
    const auto answers = parse_answers(client.received, true);
    ASSERT_EQ(answers.size(), 1U);
    EXPECT_EQ(answers[0].field("Connection"), "close");
    EXPECT_EQ(answers[0].field("Transfer-Encoding"), "");
    EXPECT_EQ(answers[0].body, "one two three four");
}

TEST(HttpServer, Http10KeepAliveIsConfirmed) {
    ServerBench bench;
    Recorder& client = bench.connect();
    for (int i = 0; i < 2; ++i) {
        const auto answers = bench.ask(client, "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
        ASSERT_EQ(answers.size(), 1U);
        EXPECT_EQ(answers[0].field("Connection"), "keep-alive");
    }
}

TEST(HttpServer, ARefusalAfterAChunkedAnswerIsNotChunked) {
    ServerBench bench;
    bench.handler.when_request = [&](ServerConnection& c) { write_in_two_turns(bench, c, {}); };
    Recorder& client = bench.connect();
    ASSERT_EQ(bench.ask(client, get("/")).size(), 1U);
    const std::size_t before = client.received.size();
    client.send("GET / HTTP/1.1\nHost: a\n\n");  // refused by the collector, before there is a head
    ASSERT_TRUE(bench.run_until_closed(client));
    const auto answers = parse_answers(std::string_view(client.received).substr(before), true);
    ASSERT_EQ(answers.size(), 1U);
    EXPECT_EQ(answers[0].status, 400);
    EXPECT_TRUE(answers[0].whole);
    EXPECT_FALSE(answers[0].chunked);
    EXPECT_TRUE(answers[0].body.starts_with("{\"error\"") && answers[0].body.ends_with("}}"))
        << answers[0].body;
}

TEST(HttpServer, ARefusalAfterHeadHasItsBody) {
    ServerBench bench;
    Recorder& client = bench.connect();
    client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    bench.settle();
    const std::size_t before = client.received.size();
    client.send("GET / HTTP/1.1\nHost: a\n\n");
    ASSERT_TRUE(bench.run_until_closed(client));
    const auto answers = parse_answers(std::string_view(client.received).substr(before), true);
    ASSERT_EQ(answers.size(), 1U);
    EXPECT_TRUE(answers[0].whole) << answers[0].head;
    EXPECT_NE(answers[0].body, "");
}

TEST(HttpServer, ARefusedHeadRequestGetsNoBody) {
    ServerBench bench;
    Recorder& client = bench.connect();
    client.send("HEAD / HTTP/1.1\r\n\r\n");  // no Host
    ASSERT_TRUE(bench.run_until_closed(client));
    const auto answers = parse_answers(client.received, true, {true});
    ASSERT_EQ(answers.size(), 1U);
    EXPECT_EQ(answers[0].status, 400);
}

TEST(HttpServer, AnsweredAtItsHeadABodilessRequestKeepsTheConnection) {
    ServerBench bench;
    bench.handler.when_head = [](ServerConnection& c) {
        if (c.request().path == "/no") c.respond_error(404, "no");
    };
    Recorder& client = bench.connect();
    const auto answers = bench.ask(client, get("/no") + get("/yes") + get("/no"), 3);
    ASSERT_EQ(answers.size(), 3U);
    EXPECT_EQ(answers[0].status, 404);
    EXPECT_EQ(answers[1].status, 200);
    EXPECT_EQ(answers[2].status, 404);
    EXPECT_EQ(bench.handler.requests.size(), 1U);
    EXPECT_EQ(bench.handler.heads.size(), 3U);
}

TEST(HttpServer, ContextLastsAsLongAsItsRequest) {
    ServerBench bench;
    int mark = 0;
    bench.handler.when_head = [](ServerConnection& c) { EXPECT_EQ(c.context(), nullptr); };
    bench.handler.when_request = [&](ServerConnection& c) {
        EXPECT_EQ(c.context(), nullptr);
        c.set_context(&mark);
        c.respond(200, "", "");
    };
    Recorder& client = bench.connect();
    EXPECT_EQ(bench.ask(client, get("/") + get("/"), 2).size(), 2U);
}

TEST(HttpServer, ASlowReaderIsToldWhenItDrains) {
    ServerBench bench;
    ServerConnection* serving = nullptr;
    const std::string piece = pattern(100000);
    std::size_t written = 0;
    const std::size_t total = 50;
    const auto write_on = [&] {
        while (written < total && !serving->congested()) {
            serving->write(slice_of(bench.server_loop.buffers(), piece));
            // The chunks of a turn leave together, so that this much is queued at most.
            if (++written % 5 == 0) break;
        }
        if (written == total) serving->end_response();
    };
    bench.handler.when_request = [&](ServerConnection& c) {
        serving = &c;
        c.start_response(200, "", {});
        write_on();
    };
    bench.handler.when_drained = [&](ServerConnection&) {
        if (written < total) write_on();
    };
    Recorder& client = bench.connect();
    client.stream.set_reading(false);
    client.send(get("/"));
    bench.run_for(seconds(1));
    EXPECT_LE(written, 10U);
    client.stream.set_reading(true);
    const auto answers = bench.ask(client, "");
    ASSERT_EQ(answers.size(), 1U);
    EXPECT_EQ(answers[0].body.size(), total * piece.size());
    EXPECT_GT(bench.handler.drains, 3);
    EXPECT_EQ(client.ends, 0);
}

// ---- answers that cannot be finished

TEST(HttpServer, ACutAnswerIsVisiblyBroken) {
    struct Case {
        const char* request;
        std::optional<std::uint64_t> length;
        bool breaks;  // only a reset shows it
    };
    for (const Case& c :
         {Case{"GET / HTTP/1.1\r\nHost: a\r\n\r\n", {}, false},
          Case{"GET / HTTP/1.1\r\nHost: a\r\n\r\n", 100, false},
          Case{"GET / HTTP/1.0\r\n\r\n", {}, true}, Case{"GET / HTTP/1.0\r\n\r\n", 100, false}}) {
        ServerBench bench;
        ServerConnection* serving = nullptr;
        bench.handler.when_request = [&](ServerConnection& connection) {
            serving = &connection;
            connection.start_response(200, "", c.length);
            connection.write(slice_of(bench.server_loop.buffers(), "some "));
        };
        Recorder& client = bench.connect();
        client.send(c.request);
        bench.settle();
        ASSERT_NE(serving, nullptr);
        serving->write(slice_of(bench.server_loop.buffers(), "bytes"));
        serving->cut_response();
        ASSERT_TRUE(bench.run_until_closed(client));
        const auto answers = parse_answers(client.received, client.ends > 0);
        ASSERT_EQ(answers.size(), 1U);
        EXPECT_FALSE(answers[0].whole);
        EXPECT_EQ(client.breaks > 0, c.breaks);
        EXPECT_TRUE(c.breaks || answers[0].body == "some bytes");
        EXPECT_EQ(bench.handler.gone, 0) << "the handler ended it itself";
    }
}

TEST(HttpServer, ACutBeforeTheAnswerIsAClosedConnection) {
    ServerBench bench;
    bench.handler.when_request = [](ServerConnection& connection) { connection.cut_response(); };
    Recorder& client = bench.connect();
    client.send(get("/") + get("/"));
    ASSERT_TRUE(bench.run_until_closed(client));
    EXPECT_EQ(client.received, "");
    EXPECT_EQ(bench.handler.requests.size(), 1U);
}

// Takes all memory that there is, the open text page included.
std::vector<Slice> take_all_memory(ServerBench& bench, ServerConnection& connection) {
    std::vector<Slice> held;
    while (BufferRef page = bench.server_loop.buffers().allocate_page())
        held.push_back({page, 0, 1});
    while (true) {
        TextWriter writer(connection.texts());
        writer.append(std::string(300, 'x'));
        if (!writer.ok()) return held;
        held.push_back(writer.finish());
    }
}

TEST(HttpServer, WithoutMemoryForAnAnswerTheConnectionBreaks) {
    ServerBench bench({}, {}, 1, 10, 2 << 20);
    std::vector<Slice> held;
    bench.handler.when_request = [&](ServerConnection& connection) {
        held = take_all_memory(bench, connection);
        connection.respond(200, "text/plain", std::string(600, 'x'),
                           "X-Long: " + std::string(600, 'y') + "\r\n");
    };
    Recorder& client = bench.connect();
    client.send(get("/"));
    ASSERT_TRUE(bench.run_until_closed(client));
    const auto answers = parse_answers(client.received, false);
    EXPECT_TRUE(answers.empty() || !answers[0].whole);
    EXPECT_EQ(bench.handler.gone, 0) << "the handler had ended the answer";
    held.clear();
}

TEST(HttpServer, WithoutMemoryForAChunkTheHandlerIsToldOnce) {
    ServerBench bench({}, {}, 1, 10, 2 << 20);
    std::vector<Slice> held;
    ServerConnection* serving = nullptr;
    int mark = 0;
    bench.handler.when_request = [&](ServerConnection& connection) {
        serving = &connection;
        connection.set_context(&mark);
        connection.start_response(200, "", {});
    };
    bench.handler.when_gone = [&](ServerConnection& connection) {
        EXPECT_EQ(connection.context(), &mark);
    };
    Recorder& client = bench.connect();
    client.send(get("/"));
    bench.settle();
    ASSERT_NE(serving, nullptr);
    const Slice piece = slice_of(bench.server_loop.buffers(), "piece");
    held = take_all_memory(bench, *serving);
    serving->write(piece);
    EXPECT_EQ(bench.handler.gone, 0) << "not from within the call";
    ASSERT_TRUE(bench.run([&] { return bench.handler.gone > 0; }));
    ASSERT_TRUE(bench.run_until_closed(client));
    EXPECT_EQ(bench.handler.gone, 1);
    held.clear();
}

TEST(HttpServer, WithoutMemoryForAChunkACutIsACut) {
    for (const bool end : {true, false}) {
        ServerBench bench({}, {}, 1, 10, 2 << 20);
        std::vector<Slice> held;
        bench.handler.when_request = [&](ServerConnection& connection) {
            connection.start_response(200, "", {});
            connection.write(slice_of(bench.server_loop.buffers(), "piece"));
            held = take_all_memory(bench, connection);
            if (end)
                connection.end_response();
            else
                connection.cut_response();
        };
        Recorder& client = bench.connect();
        client.send(get("/"));
        ASSERT_TRUE(bench.run_until_closed(client));
        const auto answers = parse_answers(client.received, true);
        EXPECT_TRUE(answers.empty() || !answers[0].whole);
        EXPECT_EQ(bench.handler.gone, 0);
        held.clear();
    }
}

}  // namespace
}  // namespace sluice::test
