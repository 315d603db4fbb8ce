// SPDX-License-Identifier: Apache-2.0
// The client and its pool on the simulated I/O: reuse, answers in every framing, failures and what
// they say, and what a cancelled or replaced request does. Which answers are HTTP is in
// tests/vectors/http.

#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "support/http_bench.h"

namespace sluice::test {
namespace {

using http::ClientFailure;
using http::UpstreamOptions;
using std::chrono::milliseconds;
using std::chrono::seconds;
using Kind = ClientFailure::Kind;

// One request, answered with `answer`; the connection stays open.
Asker& exchange(ClientBench& bench, std::string_view answer = kOk, std::size_t end = 0) {
    const std::size_t before =
        bench.upstream_ends() > end ? bench.upstream_end(end).received.size() : 0;
    Asker& asker = bench.start(kGet);
    EXPECT_TRUE(bench.run_until_received(end, before + kGet.size()));
    bench.upstream_end(end).send(answer);
    EXPECT_TRUE(bench.run_until_over(asker));
    return asker;
}

void expect_ok(const Asker& asker) {
    EXPECT_EQ(asker.violation, "");
    EXPECT_FALSE(asker.failure) << asker.failure->describe();
    EXPECT_EQ(asker.heads, 1);
    EXPECT_EQ(asker.ends, 1);
    EXPECT_EQ(asker.status, 200);
    EXPECT_EQ(asker.body, "ok");
}

void expect_failure(const Asker& asker, Kind kind, bool delivered, bool answered) {
    EXPECT_EQ(asker.violation, "");
    EXPECT_EQ(asker.ends, 0);
    ASSERT_TRUE(asker.failure);
    EXPECT_EQ(asker.failure->kind, kind) << asker.failure->describe();
    EXPECT_EQ(asker.failure->delivered, delivered);
    EXPECT_EQ(asker.failure->answered, answered);
    EXPECT_FALSE(asker.failure->describe().empty());
}

std::string chunked_answer(std::string_view body, std::size_t chunk) {
    std::string text = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (std::size_t at = 0; at < body.size(); at += chunk) {
        char size[32];
        std::snprintf(size, sizeof size, "%zx\r\n", std::min(chunk, body.size() - at));
        text += size + std::string(body.substr(at, chunk)) + "\r\n";
    }
    return text + "0\r\n\r\n";
}

// ---- reuse

TEST(HttpClient, OneConnectionServesOneRequestAfterAnother) {
    ClientBench bench;
    for (int i = 0; i < 5; ++i) {
        Asker& asker = exchange(bench);
        expect_ok(asker);
        EXPECT_EQ(asker.idle_at_end, 1U);
        EXPECT_EQ(asker.fields, "Content-Length: 2\n");
    }
    EXPECT_EQ(bench.pool->counters().connects, 1U);
    EXPECT_EQ(bench.pool->counters().reuses, 4U);
    EXPECT_EQ(bench.pool->counters().requests, 5U);
    EXPECT_EQ(bench.upstream_end().received.size(), 5 * kGet.size());
}

TEST(HttpClient, ConcurrentRequestsHaveTheirOwnConnections) {
    ClientBench bench;
    Asker& one = bench.start(kGet);
    Asker& two = bench.start(kGet);
    ASSERT_TRUE(bench.run_until_received(1, kGet.size()));
    ASSERT_TRUE(bench.run_until_received(0, kGet.size()));
    bench.upstream_end(0).send(kOk);
    bench.upstream_end(1).send(kOk);
    ASSERT_TRUE(bench.run_until_over(one) && bench.run_until_over(two));
    EXPECT_EQ(bench.pool->idle(), 2U);
    EXPECT_EQ(bench.pool->open(), 2U);
}

TEST(HttpClient, TheNextRequestMayStartWhereTheLastEnded) {
    ClientBench bench;
    Asker& asker = bench.asker();
    int rounds = 0;
    asker.when_end = [&] {
        if (++rounds < 4) asker.start(*bench.pool, kGet);
    };
    asker.start(*bench.pool, kGet);
    for (int i = 1; i <= 4; ++i) {
        ASSERT_TRUE(bench.run_until_received(0, static_cast<std::size_t>(i) * kGet.size()));
        bench.upstream_end().send(kOk);
    }
    ASSERT_TRUE(bench.run([&] { return rounds == 4; }));
    expect_ok(asker);
    EXPECT_EQ(bench.pool->counters().connects, 1U);
}

TEST(HttpClient, IdleConnectionsRetireBeforeTheServerClosesThem) {
    ClientBench bench;
    exchange(bench);
    bench.run_for(milliseconds(2400));
    EXPECT_EQ(bench.pool->idle(), 1U);
    bench.run_for(milliseconds(200));
    EXPECT_EQ(bench.pool->idle(), 0U);
    EXPECT_EQ(bench.pool->open(), 0U);
    EXPECT_EQ(bench.upstream_end().ends, 1);
    expect_ok(exchange(bench, kOk, 1));
}

TEST(HttpClient, IdleTimeBeginsAnewWithEachUse) {
    ClientBench bench;
    for (int i = 0; i < 4; ++i) {
        exchange(bench);
        bench.run_for(seconds(2));
    }
    EXPECT_EQ(bench.pool->counters().connects, 1U);
}

TEST(HttpClient, AnAnswerMayTakeLongerThanTheIdleTime) {
    ClientBench bench;
    exchange(bench);
    Asker& asker = bench.start(kGet);
    ASSERT_TRUE(bench.run_until_received(0, 2 * kGet.size()));
    bench.run_for(seconds(600));
    bench.upstream_end().send(kOk);
    ASSERT_TRUE(bench.run_until_over(asker));
    expect_ok(asker);
}

TEST(HttpClient, TheMostRecentlyUsedConnectionIsTakenFirst) {
    ClientBench bench;
    Asker& one = bench.start(kGet);
    Asker& two = bench.start(kGet);
    ASSERT_TRUE(bench.run_until_received(0, kGet.size()) &&
                bench.run_until_received(1, kGet.size()));
    bench.upstream_end(1).send(kOk);
    ASSERT_TRUE(bench.run([&] { return one.over() || two.over(); }));
    bench.upstream_end(0).send(kOk);
    ASSERT_TRUE(bench.run_until_over(one) && bench.run_until_over(two));
    Asker& three = bench.start(kGet);
    ASSERT_TRUE(bench.run_until_received(0, 2 * kGet.size()));
    bench.upstream_end(0).send(kOk);
    ASSERT_TRUE(bench.run_until_over(three));
}

TEST(HttpClient, AnIdleConnectionThatBecomesReadableIsDropped) {
    for (const int what : {0, 1, 2}) {
        ClientBench bench;
        exchange(bench);
        Recorder& upstream = bench.upstream_end();
        if (what == 0) upstream.send("HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n");
        if (what == 1) upstream.close();
        if (what == 2) upstream.close(true);
        bench.settle();
        EXPECT_EQ(bench.pool->idle(), 0U) << what;
        EXPECT_EQ(bench.pool->open(), 0U) << what;
        expect_ok(exchange(bench, kOk, 1));
    }
}

TEST(HttpClient, WithConnectionCloseThereIsNoReuse) {
    ClientBench bench;
    expect_ok(
        exchange(bench, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"));
    EXPECT_EQ(bench.pool->idle(), 0U);
    bench.settle();
    EXPECT_EQ(bench.pool->open(), 0U);
}

TEST(HttpClient, AnAddressChangeRetiresIdleConnectionsAtOnceAndBusyOnesAfterwards) {
    ClientBench bench;
    exchange(bench);
    Asker& busy = bench.start(kGet);
    Asker& idle = bench.start(kGet);
    ASSERT_TRUE(bench.run_until_received(1, kGet.size()));
    bench.upstream_end(1).send(kOk);
    ASSERT_TRUE(bench.run([&] { return bench.pool->idle() == 1; }));
    const io::Address other = *io::Address::from_ip("127.0.0.2", 8001);
    Acceptor elsewhere(bench.server_loop, other);
    elsewhere.when_accepted = [](Recorder& end) { end.stream.set_reading(true); };
    bench.pool->set_address(other);
    EXPECT_EQ(bench.pool->idle(), 0U);
    bench.upstream_end(0).send(kOk);
    ASSERT_TRUE(bench.run_until_over(busy) && bench.run_until_over(idle));
    bench.settle();
    EXPECT_EQ(bench.pool->open(), 0U);
    Asker& next = bench.start(kGet);
    ASSERT_TRUE(bench.run([&] {
        return elsewhere.accepted.size() == 1 && !elsewhere.accepted[0]->received.empty();
    }));
    elsewhere.accepted[0]->send(kOk);
    ASSERT_TRUE(bench.run_until_over(next));
    expect_ok(next);
    bench.pool->set_address(other);
    EXPECT_EQ(bench.pool->idle(), 1U) << "the same address changes nothing";
    elsewhere.stop();
    bench.pool->drain();
    bench.settle();
    elsewhere.accepted[0]->stream.close();
    bench.settle();
}

TEST(HttpClient, DrainingClosesWhatBecomesIdle) {
    ClientBench bench;
    exchange(bench);
    Asker& asker = bench.start(kGet);
    ASSERT_TRUE(bench.run_until_received(0, 2 * kGet.size()));
    bench.pool->drain();
    bench.upstream_end().send(kOk);
    ASSERT_TRUE(bench.run_until_over(asker));
    expect_ok(asker);
    bench.settle();
    EXPECT_EQ(bench.pool->open(), 0U);
}

// ---- bodies

TEST(HttpClient, BodiesAreExactInEveryFramingAndCut) {
    const std::string body = pattern(200'000);
    for (std::uint64_t seed = 1; seed <= 20; ++seed) {
        io::sim::Faults faults;
        faults.split_read = 0.7;
        faults.short_send = 0.3;
        faults.late_completion = 0.3;
        faults.reorder = 0.3;
        faults.no_buffers = 0.05;
        for (const int how : {0, 1, 2}) {
            ClientBench bench({}, faults, seed);
            Asker& asker = bench.start(kGet);
            ASSERT_TRUE(bench.run_until_received(0, kGet.size()));
            Recorder& upstream = bench.upstream_end();
            upstream.send(how == 0   ? "HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n" + body
                          : how == 1 ? chunked_answer(body, 3 + seed * 997)
                                     : "HTTP/1.1 200 OK\r\n\r\n" + body);
            if (how == 2) upstream.stream.close_when_sent();
            ASSERT_TRUE(bench.run_until_over(asker));
            EXPECT_EQ(asker.violation, "");
            EXPECT_FALSE(asker.failure);
            ASSERT_TRUE(asker.body == body) << seed << " " << how;
        }
    }
}

TEST(HttpClient, InterimAnswersAreSkipped) {
    ClientBench bench;
    Asker& asker = bench.start(kGet);
    ASSERT_TRUE(bench.run_until_received(0, kGet.size()));
    Recorder& upstream = bench.upstream_end();
    upstream.send("HTTP/1.1 100 Continue\r\n\r\n");
    bench.settle();
    EXPECT_EQ(asker.heads, 0);
    upstream.send("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 102 Proc");
    bench.settle();
    upstream.send("essing\r\n\r\n" + std::string(kOk));
    ASSERT_TRUE(bench.run_until_over(asker));
    expect_ok(asker);
    expect_ok(exchange(bench));
    EXPECT_EQ(bench.pool->counters().connects, 1U);
}

TEST(HttpClient, BodilessAnswersKeepTheConnection) {
    ClientBench bench;
    for (const std::string_view answer :
         {"HTTP/1.1 204 No Content\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
          "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n"}) {
        Asker& asker = exchange(bench, answer);
        EXPECT_EQ(asker.ends, 1);
        EXPECT_EQ(asker.body, "");
    }
    EXPECT_EQ(bench.pool->counters().connects, 1U);
}

TEST(HttpClient, AReaderThatPausesStopsTheServer) {
    ClientBench bench;
    Asker& asker = bench.asker();
    asker.when_head = [&] { asker.request.set_reading(false); };
    asker.start(*bench.pool, kGet);
    ASSERT_TRUE(bench.run_until_received(0, kGet.size()));
    Recorder& upstream = bench.upstream_end();
    const std::string body = pattern(3'000'000);
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 3000000\r\n\r\n" + body);
    bench.run_for(seconds(5));
    EXPECT_LT(asker.body.size(), 40'000U);
    EXPECT_GT(upstream.stream.unsent(), 2'000'000U);
    asker.request.set_reading(true);
    ASSERT_TRUE(bench.run_until_over(asker));
    EXPECT_TRUE(asker.body == body);
    EXPECT_EQ(bench.pool->idle(), 1U);
    expect_ok(exchange(bench));  // reading is on again for the next
}

TEST(HttpClient, AnEarlyAnswerIsReadAndTheConnectionNotReused) {
    ClientBench bench;
    const std::string head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3000000\r\n\r\n";
    bench.upstream->when_accepted = nullptr;  // it reads nothing
    Asker& asker = bench.start(head + std::string(3'000'000, 'x'));
    Recorder& upstream = bench.upstream_end();
    bench.settle();
    upstream.send("HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno");
    ASSERT_TRUE(bench.run_until_over(asker));
    EXPECT_FALSE(asker.failure);
    EXPECT_EQ(asker.status, 413);
    EXPECT_EQ(asker.body, "no");
    EXPECT_EQ(bench.pool->idle(), 0U);
    bench.settle();
    EXPECT_EQ(bench.pool->open(), 0U) << "the rest of the request is not sent";
}

// The peer refuses and goes while the body is still being sent: the failing send may be noticed
// before the answer that lies there unread.
TEST(HttpClient, AnEarlyAnswerSurvivesTheFailureToSendTheRest) {
    const std::string head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 600000\r\n\r\n";
    const std::string answer =
        "HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno";
    int cut = 0;
    for (std::uint64_t seed = 1; seed <= 300; ++seed) {
        io::sim::Faults faults;
        faults.late_completion = faults.reorder = faults.split_read = 0.5;
        for (const bool whole : {true, false}) {
            ClientBench bench({}, faults, seed);
            bench.upstream->when_accepted = [&](Recorder& end) {
                end.stream.set_reading(true);
                end.when_bytes = [&](Slice&) {
                    if (end.stream.closing()) return;
                    // In the middle of the head, if not whole.
                    end.send(whole ? answer : answer.substr(0, 20 + seed % 40));
                    end.stream.close_when_sent();
                };
            };
            Asker& asker = bench.start(head + std::string(600'000, 'x'));
            ASSERT_TRUE(bench.run_until_over(asker)) << seed;
            EXPECT_EQ(asker.violation, "");
            EXPECT_EQ(bench.pool->idle(), 0U);
            if (!whole) {
                ASSERT_TRUE(asker.failure) << seed;
                cut += asker.failure->answered;
                continue;
            }
            EXPECT_FALSE(asker.failure) << seed << ": " << asker.failure->describe();
            EXPECT_EQ(asker.status, 413) << seed;
            EXPECT_EQ(asker.body, "no") << seed;
        }
    }
    EXPECT_EQ(cut, 300) << "what had come was read";
}

// ---- failures

TEST(HttpClient, TruncatedAnswersAreFailures) {
    for (const std::string_view answer :
         {"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok",
          "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n",
          "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n",
          "HTTP/1.1 200 OK\r\nConte", "H"})
        for (const bool reset : {false, true}) {
            ClientBench bench;
            Asker& asker = bench.start(kGet);
            ASSERT_TRUE(bench.run_until_received(0, kGet.size()));
            bench.upstream_end().send(answer);
            bench.settle();
            bench.upstream_end().close(reset);
            ASSERT_TRUE(bench.run_until_over(asker));
            expect_failure(asker, reset ? Kind::Broken : Kind::Closed, true, true);
        }
}

TEST(HttpClient, ACloseUntilCloseAnswerThatBreaksIsAFailure) {
    ClientBench bench;
    Asker& asker = bench.start(kGet);
    ASSERT_TRUE(bench.run_until_received(0, kGet.size()));
    bench.upstream_end().send("HTTP/1.1 200 OK\r\n\r\nok");
    bench.settle();
    bench.upstream_end().close(true);
    ASSERT_TRUE(bench.run_until_over(asker));
    expect_failure(asker, Kind::Broken, true, true);
}

TEST(HttpClient, ClosedWithoutAnAnswer) {
    for (const bool reset : {false, true}) {
        ClientBench bench;
        Asker& asker = bench.start(kGet);
        ASSERT_TRUE(bench.run_until_received(0, kGet.size()));
        bench.upstream_end().close(reset);
        ASSERT_TRUE(bench.run_until_over(asker));
        expect_failure(asker, reset ? Kind::Broken : Kind::Closed, true, false);
    }
}

TEST(HttpClient, GarbageIsAProtocolFailure) {
    for (const std::string_view answer :
         {"garbage\r\n\r\n", "HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
          "HTTP/1.1 101 Switching Protocols\r\n\r\n", "\x15\x03\x01\x02\x02\n"}) {
        ClientBench bench;
        Asker& asker = exchange(bench, answer);
        expect_failure(asker, Kind::Protocol, true, true);
        bench.settle();
        EXPECT_EQ(bench.pool->open(), 0U);
    }
}

TEST(HttpClient, GarbageBehindTheHeadEndsTheBody) {
    ClientBench bench;
    Asker& asker =
        exchange(bench, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\nzz\r\n");
    expect_failure(asker, Kind::Protocol, true, true);
    EXPECT_EQ(asker.heads, 1);
    EXPECT_EQ(asker.body, "ok");
}

TEST(HttpClient, RefusedConnections) {
    ClientBench bench;
    bench.stop_listening();
    Asker& asker = bench.start(kGet);
    ASSERT_TRUE(bench.run_until_over(asker));
    expect_failure(asker, Kind::Connect, false, false);
    EXPECT_EQ(asker.failure->error.os, ECONNREFUSED);
    EXPECT_EQ(bench.pool->counters().connect_failures, 1U);
    bench.settle();
    EXPECT_EQ(bench.pool->open(), 0U);
}

TEST(HttpClient, AConnectionAttemptTimesOut) {
    ClientBench bench;
    bench.world.network().set_blackhole(bench.address, true);
    const Instant began = bench.world.now();
    Asker& asker = bench.start(kGet);
    ASSERT_TRUE(bench.run_until_over(asker));
    expect_failure(asker, Kind::ConnectTimeout, false, false);
    EXPECT_NEAR(to_seconds(bench.world.now() - began), 2, 0.1);
    EXPECT_EQ(bench.pool->counters().connect_failures, 1U);
}

TEST(HttpClient, TheConnectionLimitIsAFailureOfItsOwn) {
    UpstreamOptions options;
    options.connections_max = 2;
    ClientBench bench(options);
    Asker& one = bench.start(kGet);
    bench.start(kGet);
    Asker& three = bench.start(kGet);
    ASSERT_TRUE(bench.run_until_over(three));
    expect_failure(three, Kind::Limit, false, false);
    ASSERT_TRUE(bench.run_until_received(0, kGet.size()) &&
                bench.run_until_received(1, kGet.size()));
    EXPECT_EQ(bench.pool->open(), 2U);
    bench.upstream_end(0).send(kOk);
    bench.upstream_end(1).send(kOk);
    ASSERT_TRUE(bench.run_until_over(one));
    expect_ok(one);
}

TEST(HttpClient, WithoutADescriptorTheFailureComesLater) {
    ClientBench bench;
    bench.client_host.io().set_sockets_max(1);
    Asker& one = bench.start(kGet);
    Asker& two = bench.start(kGet);
    EXPECT_FALSE(two.failure);
    ASSERT_TRUE(bench.run_until_over(two));
    expect_failure(two, Kind::Connect, false, false);
    EXPECT_EQ(two.failure->error.os, EMFILE);
    one.cancel();
}

TEST(HttpClient, ARequestMayBeStartedFromItsOwnFailure) {
    ClientBench bench;
    bench.client_host.io().set_sockets_max(1);
    Asker& blocker = bench.start(kGet);
    Asker& asker = bench.asker();
    int failures = 0;
    asker.when_failed = [&] {
        if (++failures < 3) asker.start(*bench.pool, kGet);
    };
    asker.start(*bench.pool, kGet);
    ASSERT_TRUE(bench.run([&] { return failures == 3; }));
    EXPECT_EQ(asker.violation, "");
    blocker.cancel();
}

// ---- stale connections

// The server closes the idle connection; the request is sent before this is known.
TEST(HttpClient, AStaleConnectionIsReplacedWithoutNotice) {
    int replaced = 0;
    for (std::uint64_t seed = 1; seed <= 60; ++seed) {
        ClientBench bench({}, {}, seed);
        exchange(bench);
        bench.upstream_end().close(seed % 2 == 0);
        bench.run_for(std::chrono::microseconds(seed * 3));
        Asker& asker = bench.start(kGet);
        ASSERT_TRUE(bench.run_until_received(1, kGet.size())) << seed;
        EXPECT_EQ(asker.heads, 0);
        bench.upstream_end(1).send(kOk);
        ASSERT_TRUE(bench.run_until_over(asker));
        expect_ok(asker);
        EXPECT_EQ(bench.upstream_end(0).received.size(), kGet.size())
            << "nothing of it was read there";
        EXPECT_EQ(bench.upstream_end(1).received, kGet);
        replaced += static_cast<int>(bench.pool->counters().stale_replaced);
    }
    EXPECT_GT(replaced, 30);
}

TEST(HttpClient, ARequestThatWasReadIsNeverSentTwice) {
    for (const bool reset : {false, true}) {
        ClientBench bench;
        exchange(bench);
        Asker& asker = bench.start(kGet);
        ASSERT_TRUE(bench.run_until_received(0, 2 * kGet.size()));
        bench.upstream_end().close(reset);
        ASSERT_TRUE(bench.run_until_over(asker));
        expect_failure(asker, reset ? Kind::Broken : Kind::Closed, true, false);
        EXPECT_EQ(bench.pool->counters().stale_replaced, 0U);
        EXPECT_EQ(bench.upstream_ends(), 1U);
    }
}

// It arrived at the other machine, whether or not the program had read it.
TEST(HttpClient, AnAcknowledgedRequestIsNeverSentTwice) {
    ClientBench bench;
    exchange(bench);
    bench.upstream_end().stream.set_reading(false);
    Asker& first = bench.start(kGet);  // what the armed receive takes
    ASSERT_TRUE(bench.run_until_received(0, 2 * kGet.size()));
    bench.upstream_end().send(kOk);
    ASSERT_TRUE(bench.run_until_over(first));
    Asker& asker = bench.start(kGet);
    bench.settle();
    EXPECT_EQ(bench.upstream_end().received.size(), 2 * kGet.size()) << "it lies in the kernel";
    bench.upstream_end().close(true);
    ASSERT_TRUE(bench.run_until_over(asker));
    expect_failure(asker, Kind::Broken, true, false);
    EXPECT_EQ(bench.pool->counters().stale_replaced, 0U);
}

TEST(HttpClient, AReplacementThatCannotConnectIsReportedAsUndelivered) {
    for (std::uint64_t seed = 1; seed <= 10; ++seed) {
        ClientBench bench({}, {}, seed);
        exchange(bench);
        bench.stop_listening();
        bench.upstream_end().close(true);
        Asker& asker = bench.start(kGet);
        ASSERT_TRUE(bench.run_until_over(asker));
        expect_failure(asker, Kind::Connect, false, false);
    }
}

TEST(HttpClient, AFreshConnectionIsNotReplaced) {
    ClientBench bench;
    bench.upstream->when_accepted = [](Recorder& end) { end.stream.close(true); };
    Asker& asker = bench.start(kGet);
    ASSERT_TRUE(bench.run_until_over(asker));
    ASSERT_TRUE(asker.failure);
    EXPECT_EQ(bench.pool->counters().connects, 1U);
}

TEST(HttpClient, AStaleUnixConnectionIsReplacedToo) {
    int replaced = 0;
    for (std::uint64_t seed = 1; seed <= 20; ++seed) {
        io::sim::Faults faults;
        faults.late_completion = faults.reorder = 0.5;
        ClientBench bench({}, faults, seed, true);
        exchange(bench);
        bench.world.freeze(bench.client_host,
                           seconds(1));  // it does not see the end before it sends
        Recorder& upstream = bench.upstream_end();
        upstream.close();
        ASSERT_TRUE(bench.run([&] { return upstream.stream.idle(); }));
        Asker& asker = bench.start(kGet);
        ASSERT_TRUE(bench.run([&] { return asker.over() || bench.upstream_ends() > 1; })) << seed;
        ASSERT_FALSE(asker.failure) << seed << ": " << asker.failure->describe();
        ASSERT_TRUE(bench.run_until_received(1, kGet.size())) << seed;
        bench.upstream_end(1).send(kOk);
        ASSERT_TRUE(bench.run_until_over(asker));
        expect_ok(asker);
        // With the end of a send told late, a connection may not look reusable.
        EXPECT_EQ(bench.pool->counters().stale_replaced, bench.pool->counters().reuses);
        replaced += static_cast<int>(bench.pool->counters().stale_replaced);
    }
    EXPECT_GT(replaced, 10);
}

// Its bytes went to a kernel that may have given them to the program.
TEST(HttpClient, AUnixRequestThatWasReadIsNeverSentTwice) {
    ClientBench bench({}, {}, 1, true);
    exchange(bench);
    bench.upstream_end().stream.set_reading(false);
    Asker& asker = bench.start(kGet);
    bench.settle();
    bench.upstream_end().close();
    ASSERT_TRUE(bench.run_until_over(asker));
    ASSERT_TRUE(asker.failure);
    EXPECT_TRUE(asker.failure->delivered);
    EXPECT_EQ(bench.upstream_ends(), 1U);
}

// ---- cancelling

TEST(HttpClient, CancelClosesTheConnectionAtOnce) {
    ClientBench bench;
    Asker& asker = bench.start(kGet);
    ASSERT_TRUE(bench.run_until_received(0, kGet.size()));
    EXPECT_TRUE(asker.request.active());
    asker.cancel();
    EXPECT_FALSE(asker.request.active());
    Recorder& upstream = bench.upstream_end();
    ASSERT_TRUE(bench.run([&] { return upstream.ends + upstream.breaks > 0; }));
    EXPECT_EQ(bench.pool->open(), 0U);
    EXPECT_EQ(asker.heads + asker.ends, 0);
    EXPECT_FALSE(asker.failure);
}

TEST(HttpClient, CancelFromEveryEvent) {
    const std::string answer = chunked_answer("some body of more than one chunk", 7);
    for (const int where : {0, 1, 2, 3}) {
        ClientBench bench;
        Asker& asker = bench.asker();
        const auto cancel = [&] { asker.cancel(); };
        if (where == 0) asker.when_head = cancel;
        if (where == 1) asker.when_body = cancel;
        if (where == 2) asker.when_end = cancel;
        if (where == 3) asker.when_failed = cancel;
        asker.start(*bench.pool, kGet);
        ASSERT_TRUE(bench.run_until_received(0, kGet.size()));
        bench.upstream_end().send(where == 3 ? "garbage\r\n\r\n" : answer);
        bench.settle();
        EXPECT_EQ(asker.violation, "") << where;
        EXPECT_EQ(asker.heads, where == 3 ? 0 : 1);
        EXPECT_EQ(asker.ends, where == 2 ? 1 : 0);
        EXPECT_EQ(bench.pool->open(), where == 2 ? 1U : 0U);
        EXPECT_TRUE(where != 1 || asker.body.size() == 7U);
    }
}

TEST(HttpClient, CancelAndStartAgainFromAnEvent) {
    ClientBench bench;
    Asker& asker = bench.asker();
    int heads = 0;
    asker.when_head = [&] {
        if (++heads > 1) return;
        asker.cancel();
        asker.start(*bench.pool, kGet);
    };
    asker.start(*bench.pool, kGet);
    ASSERT_TRUE(bench.run_until_received(0, kGet.size()));
    bench.upstream_end(0).send(kOk);
    ASSERT_TRUE(bench.run_until_received(1, kGet.size()));
    bench.upstream_end(1).send(kOk);
    ASSERT_TRUE(bench.run_until_over(asker));
    EXPECT_EQ(asker.body, "ok");
    EXPECT_EQ(asker.ends, 1);
}

TEST(HttpClient, CancelBeforeTheFirstTurn) {
    ClientBench bench;
    bench.start(kGet).cancel();
    bench.settle();
    EXPECT_EQ(bench.pool->open(), 0U);
    bench.client_host.io().set_sockets_max(bench.client_host.io().sockets_open() + 1);
    Asker& one = bench.start(kGet);
    Asker& two =
        bench.start(kGet);  // has no descriptor, and would be told so at the end of the turn
    two.cancel();
    one.cancel();
    bench.settle();
    EXPECT_FALSE(two.failure);
    EXPECT_EQ(bench.pool->open(), 0U);
}

TEST(HttpClient, DestroyedRequestsAreCancelled) {
    ClientBench bench;
    bench.start(kGet);
    ASSERT_TRUE(bench.run_until_received(0, kGet.size()));
    bench.askers.clear();
    Recorder& upstream = bench.upstream_end();
    ASSERT_TRUE(bench.run([&] { return upstream.ends + upstream.breaks > 0; }));
}

TEST(HttpClient, CancelAtEveryMoment) {
    const std::string answer =
        "HTTP/1.1 103 Early Hints\r\n\r\n" + chunked_answer(pattern(60'000), 9000);
    for (std::uint64_t seed = 1; seed <= 150; ++seed) {
        io::sim::Faults faults = io::sim::Faults::stormy();
        faults.clock_jump = 0;
        ClientBench bench({}, faults, seed);
        bench.upstream->when_accepted = [&](Recorder& end) {
            end.stream.set_reading(true);
            end.when_bytes = [&, connection = &end](Slice&) {
                if (connection->received.ends_with("\r\n\r\n")) connection->send(answer);
            };
            end.when_broken = [connection = &end] { connection->stream.close(); };
        };
        for (int round = 0; round < 6; ++round) {
            Asker& asker = bench.start(kGet);
            bench.run_for(std::chrono::microseconds(bench.world.rng().below(3000)));
            const bool was_over = asker.over();
            if (!was_over) asker.cancel();
            bench.run_for(milliseconds(bench.world.rng().below(10)));
            EXPECT_EQ(asker.violation, "") << seed;
            EXPECT_EQ(asker.over(), was_over) << seed;
            EXPECT_TRUE(asker.ends == 0 || asker.body == pattern(60'000)) << seed;
        }
    }
}

// Every request ends once, with the whole answer or with a failure; and none is read twice by the
// server.
TEST(HttpClient, InAStormEveryRequestEndsOnce) {
    int whole = 0;
    int failed = 0;
    int stale = 0;
    for (std::uint64_t seed = 1; seed <= 200; ++seed) {
        ClientBench bench({}, io::sim::Faults::stormy(), seed);
        std::vector<int> reads(100);
        bench.upstream->when_accepted = [&](Recorder& end) {
            end.stream.set_reading(true);
            end.when_broken = end.when_end = [connection = &end] { connection->stream.close(); };
            end.when_bytes = [&, connection = &end, done = std::size_t{0}](Slice&) mutable {
                while (true) {
                    const auto head_end = connection->received.find("\r\n\r\n", done);
                    if (head_end == std::string::npos) return;
                    const int id = std::atoi(connection->received.c_str() + done + 5);
                    done = head_end + 4;
                    ++reads[static_cast<std::size_t>(id)];
                    const double dice = bench.world.rng().unit();
                    if (dice < 0.05) return connection->stream.close(dice < 0.02);
                    connection->send(
                        chunked_answer("answer " + std::to_string(id) + pattern(3000), 1000));
                    if (dice > 0.7) {  // as a server that ends its keep-alive
                        connection->stream.close_when_sent();
                        return;
                    }
                }
            };
        };
        for (int id = 0; id < 40; ++id) {
            bench.start("GET /" + std::to_string(id) + " HTTP/1.1\r\nHost: a\r\n\r\n");
            if (bench.world.rng().chance(0.7))
                bench.run_for(milliseconds(bench.world.rng().below(30)));
        }
        ASSERT_TRUE(bench.run([&] {
            return std::ranges::all_of(bench.askers, [](const auto& each) { return each->over(); });
        })) << seed;
        for (std::size_t id = 0; id < bench.askers.size(); ++id) {
            const Asker& asker = *bench.askers[id];
            EXPECT_EQ(asker.violation, "") << seed;
            EXPECT_LE(reads[id], 1) << seed << ": read twice";
            if (asker.failure) {
                ++failed;
                EXPECT_TRUE(asker.failure->delivered || reads[id] == 0) << seed << " " << id;
            } else {
                ++whole;
                EXPECT_TRUE(asker.body == "answer " + std::to_string(id) + pattern(3000)) << seed;
            }
        }
        stale += static_cast<int>(bench.pool->counters().stale_replaced);
    }
    EXPECT_GT(whole, 4000);
    EXPECT_GT(failed, 100);
    EXPECT_GT(stale, 20);
}

}  // namespace
}  // namespace sluice::test
