// SPDX-License-Identifier: Apache-2.0
// The HTTP vectors over connections: requests to a real Server, answers to a real UpstreamPool, on
// the simulated I/O, and requests on the kernel's. What must come: the answers in order, and the
// connection kept or closed.

#include <algorithm>
#include <gtest/gtest.h>

#include "io/uring/uring_io.h"
#include "support/http_bench.h"
#include "support/http_vectors.h"
#include "travel.h"

namespace sluice::test {
namespace {

using Kind = Verdict::Kind;

std::vector<Travel> travels() {
    return {{"whole", {}},
            cut_up("cut, seed 2", 2),
            cut_up("cut, seed 3", 3),
            {"dripping", {}, 4, true}};
}

constexpr std::size_t kDripMax = 1500;

void send(Bench& bench, Recorder& from, const HttpVector& vector, bool drip) {
    if (!drip) return from.send(vector.bytes);
    for (const char c : vector.bytes) {
        if (from.ends + from.breaks > 0) return;
        from.send(std::string_view(&c, 1));
        bench.run_for(std::chrono::milliseconds(1));
    }
}

struct Expected {
    explicit Expected(const HttpVector& vector) {
        for (const Verdict& verdict : vector.verdicts) {
            heads.push_back(verdict.kind == Kind::Accept && verdict.method == "HEAD");
            answers += verdict.kind != Kind::More;
            may_continue |= verdict.expect;
        }
        const Verdict& last = vector.verdicts.back();
        closes = last.kind == Kind::Reject || (last.kind == Kind::Accept && !last.keep);
    }

    std::vector<bool> heads;
    std::size_t answers = 0;
    bool may_continue = false;
    bool closes = false;
};

http::ServerOptions server_options() {
    http::ServerOptions options;
    options.body_bytes_max = kVectorBodyMax;
    return options;
}

void verify(const HttpVector& vector, const Expected& expected, const Recorder& client,
            const ScriptedHandler& handler, bool in_pieces) {
    EXPECT_EQ(client.breaks, 0) << "the answer has to be readable";
    EXPECT_EQ(client.ends, expected.closes ? 1 : 0);
    auto answers = parse_answers(client.received, client.ends > 0, expected.heads);
    const auto interim =
        std::erase_if(answers, [](const Answer& answer) { return answer.status == 100; });
    EXPECT_TRUE(interim == 0 || (expected.may_continue && in_pieces)) << interim;
    ASSERT_EQ(answers.size(), expected.answers) << client.received.substr(0, 2000);
    std::size_t accepted = 0;
    for (std::size_t i = 0; i < expected.answers; ++i) {
        const Verdict& verdict = vector.verdicts[i];
        const bool ok = verdict.kind == Kind::Accept;
        accepted += ok;
        EXPECT_EQ(answers[i].status, ok ? 200 : verdict.status)
            << answers[i].head << answers[i].body;
        EXPECT_TRUE(answers[i].whole);
        if (expected.heads[i]) {
            EXPECT_EQ(answers[i].body, "");
        } else if (ok) {
            EXPECT_EQ(answers[i].body,
                      ScriptedHandler::echo_of(verdict.method, verdict.path, verdict.body));
        } else {
            EXPECT_TRUE(answers[i].body.starts_with("{\"error\":{\"message\":")) << answers[i].body;
        }
        const bool said_close = answers[i].field("Connection") == "close";
        EXPECT_EQ(said_close, expected.closes && i + 1 == expected.answers);
    }
    EXPECT_EQ(handler.requests.size(), accepted);
    EXPECT_EQ(handler.refused.size(), expected.answers - accepted);
    EXPECT_EQ(handler.gone, 0);
}

void check_request(const HttpVector& vector, const Travel& travel) {
    ServerBench bench(server_options(), travel.faults, travel.seed);
    Recorder& client = bench.connect();
    send(bench, client, vector, travel.drip);
    bench.run_for(std::chrono::milliseconds(200));
    verify(vector, Expected(vector), client, bench.handler,
           travel.drip || travel.faults.split_read > 0);
}

bool has_whole_answers(const Recorder& client, const Expected& expected) {
    const auto answers = parse_answers(client.received, client.ends > 0, expected.heads);
    return std::ranges::count_if(answers, [](const Answer& answer) {
               return answer.whole && answer.status != 100;
           }) >= static_cast<std::ptrdiff_t>(expected.answers);
}

// Server and client on one loop of the kernel's I/O.
void check_request_on(io::Loop& loop, const HttpVector& vector) {
    ScriptedHandler handler;
    http::Server server(loop, handler, server_options(), 10);
    const io::Socket listener = *loop.io().listen(*io::Address::from_ip("127.0.0.1", 0), false);
    const io::Address address = *loop.io().local_address(listener);
    server.add_listener(listener);
    Recorder client(loop);
    ASSERT_TRUE(client.stream.connect(address));
    client.stream.set_reading(true);
    client.send(vector.bytes);

    const Expected expected(vector);
    const auto run = [&](std::chrono::milliseconds most, const std::function<bool()>& done) {
        const Instant end = MonotonicClock::now() + most;
        while (!done() && MonotonicClock::now() < end) loop.run_turn(std::chrono::milliseconds(1));
    };
    run(std::chrono::seconds(5), [&] {
        return client.ends + client.breaks > 0 ||
               (!expected.closes && handler.requests.size() >= expected.answers &&
                client.stream.unsent() == 0);
    });
    if (!expected.closes) {
        run(std::chrono::seconds(5), [&] { return has_whole_answers(client, expected); });
        // Nothing may come behind them.
        run(std::chrono::milliseconds(3), [] { return false; });
    }
    verify(vector, expected, client, handler, true);
    client.close();
    server.shut_down();
    run(std::chrono::seconds(5), [&] { return client.stream.idle() && server.finished(); });
    ASSERT_TRUE(server.finished());
}

void check_answer(const HttpVector& vector, const Travel& travel) {
    ClientBench bench({}, travel.faults, travel.seed);
    Asker& asker =
        bench.start(vector.to_head ? "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n" : kGet, vector.to_head);
    ASSERT_TRUE(bench.run_until_received(0, kGet.size()));
    Recorder& upstream = bench.upstream_end();
    send(bench, upstream, vector, travel.drip);
    bench.run_for(std::chrono::milliseconds(200));
    const Verdict& last = vector.verdicts.back();
    EXPECT_EQ(bench.pool->idle(), last.kind == Kind::Accept && last.reuse ? 1U : 0U);
    // What has been read to its end cannot be told from this by closing now.
    upstream.close();
    ASSERT_TRUE(bench.run_until_over(asker));
    EXPECT_EQ(asker.violation, "");
    if (last.kind == Kind::Accept) {
        EXPECT_FALSE(asker.failure);
        EXPECT_EQ(asker.heads, 1);
        EXPECT_EQ(asker.status, last.status);
        EXPECT_EQ(asker.body, last.body);
        return;
    }
    ASSERT_TRUE(asker.failure);
    EXPECT_EQ(asker.failure->kind, last.kind == Kind::Cut ? http::ClientFailure::Kind::Closed
                                                          : http::ClientFailure::Kind::Protocol);
    EXPECT_EQ(asker.failure->answered, !vector.bytes.empty());
    EXPECT_TRUE(asker.failure->delivered);
}

TEST(HttpPeersVectors, Requests) {
    for (const Travel& travel : travels())
        for (const HttpVector& vector : load_http_vectors()) {
            if (vector.is_copy || !vector.is_request ||
                (travel.drip && vector.bytes.size() > kDripMax))
                continue;
            SCOPED_TRACE(vector.place + " " + vector.name + ", " + travel.name);
            check_request(vector, travel);
        }
}

TEST(HttpPeersVectors, RequestsThroughTheKernel) {
    io::UringOptions options;
    options.capabilities = io::probe_uring();
    auto made = io::UringIo::create(options);
    if (!made) GTEST_SKIP() << "no usable io_uring here";
    io::Loop loop(**made);
    for (const HttpVector& vector : load_http_vectors()) {
        if (vector.is_copy || !vector.is_request) continue;
        SCOPED_TRACE(vector.place + " " + vector.name);
        check_request_on(loop, vector);
    }
    EXPECT_EQ((*made)->buffers().buffers_in_use(), limits::kProvidedPages);
}

TEST(HttpPeersVectors, Answers) {
    for (const Travel& travel : travels())
        for (const HttpVector& vector : load_http_vectors()) {
            if (vector.is_copy || vector.is_request ||
                (travel.drip && vector.bytes.size() > kDripMax))
                continue;
            SCOPED_TRACE(vector.place + " " + vector.name + ", " + travel.name);
            check_answer(vector, travel);
        }
}

}  // namespace
}  // namespace sluice::test
