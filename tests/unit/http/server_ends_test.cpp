// SPDX-License-Identifier: Apache-2.0
// How connections to the server end: slow clients, clients that leave, refusals, draining, and too
// many of them.

#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <string>

#include "support/http_bench.h"

namespace sluice::test {
namespace {

using http::ServerConnection;
using http::ServerOptions;
using std::chrono::milliseconds;
using std::chrono::seconds;

const std::string kRequest(kGet);

std::string post(std::size_t size) {
    return "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: " + std::to_string(size) + "\r\n\r\n";
}

int status_of(const Recorder& client) {
    const auto answers = parse_answers(client.received, client.ends > 0);
    return answers.size() == 1 && answers[0].whole ? answers[0].status : 0;
}

// Sends one piece after another with pauses, until all is sent or the connection ends.
void drip(ServerBench& bench, Recorder& client, std::string_view bytes, std::size_t piece,
          Duration pause) {
    while (!bytes.empty() && client.ends + client.breaks == 0) {
        const std::size_t size = std::min(piece, bytes.size());
        client.send(bytes.substr(0, size));
        bytes.remove_prefix(size);
        bench.run_for(pause);
    }
}

// ---- slow clients

TEST(HttpServerTimes, AnIdleConnectionIsClosedWithoutAWord) {
    ServerBench bench;
    Recorder& client = bench.connect();
    bench.run_for(seconds(74));
    EXPECT_EQ(client.ends, 0);
    bench.run_for(seconds(2));
    EXPECT_EQ(client.ends, 1);
    EXPECT_EQ(client.received, "");
}

TEST(HttpServerTimes, IdleTimeBeginsAnewAfterARequest) {
    ServerBench bench;
    Recorder& client = bench.connect();
    for (int i = 0; i < 3; ++i) {
        bench.run_for(seconds(50));
        ASSERT_EQ(bench.ask(client, kGet).size(), 1U);
    }
}

TEST(HttpServerTimes, ASlowHeadIsRefusedCountedFromItsFirstByte) {
    ServerBench bench;
    Recorder& client = bench.connect();
    bench.run_for(seconds(30));
    const Instant began = bench.world.now();
    drip(bench, client, "GET / HTTP/1.1\r\nHost: a\r\nX-Slow: " + std::string(1000, 'x'), 1,
         milliseconds(500));
    EXPECT_EQ(status_of(client), 408);
    EXPECT_EQ(client.ends, 1);
    EXPECT_EQ(bench.handler.refused, std::vector<int>{408});
    EXPECT_NEAR(to_seconds(bench.world.now() - began), 10, 1);
}

TEST(HttpServerTimes, EmptyLinesDoNotKeepAConnection) {
    ServerBench bench;
    Recorder& client = bench.connect();
    drip(bench, client, "\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n", 2, seconds(60));
    EXPECT_EQ(status_of(client), 400);
}

TEST(HttpServerTimes, ASlowBodyIsRefused) {
    for (const bool chunked : {false, true}) {
        ServerBench bench;
        Recorder& client = bench.connect();
        client.send(chunked ? "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
                            : post(1000));
        const Instant began = bench.world.now();
        drip(bench, client, chunked ? "3e8\r\n" + std::string(1000, 'x') : std::string(1000, 'x'),
             1, seconds(1));
        EXPECT_EQ(status_of(client), 408);
        EXPECT_NEAR(to_seconds(bench.world.now() - began), 30, 2);
        EXPECT_TRUE(bench.handler.requests.empty());
    }
}

TEST(HttpServerTimes, ALongBodyAtADecentRateIsAccepted) {
    ServerBench bench;
    Recorder& client = bench.connect();
    client.send(post(2'000'000));
    drip(bench, client, std::string(2'000'000, 'x'), 20'000, seconds(1));  // 100 s
    EXPECT_EQ(bench.ask(client, "").size(), 1U);
}

TEST(HttpServerTimes, ALongBodyBelowTheRateIsRefused) {
    ServerBench bench;
    Recorder& client = bench.connect();
    client.send(post(2'000'000));
    const Instant began = bench.world.now();
    drip(bench, client, std::string(2'000'000, 'x'), 10'000, seconds(1));
    EXPECT_EQ(status_of(client), 408);
    EXPECT_NEAR(to_seconds(bench.world.now() - began), 77, 3);  // 30 + 10'000 t / 16'384 = t
}

TEST(HttpServerTimes, AReaderThatStopsIsGivenUp) {
    ServerBench bench;
    ServerConnection* serving = nullptr;
    bench.handler.when_request = [&](ServerConnection& c) {
        serving = &c;
        c.start_response(200, "", {});
        c.write(slice_of(bench.server_loop.buffers(), std::string(2 << 20, 'x')));
    };
    Recorder& client = bench.connect();
    client.stream.set_reading(false);
    client.send(kGet);
    bench.run_for(seconds(59));
    EXPECT_EQ(bench.handler.gone, 0);
    bench.run_for(seconds(62));
    EXPECT_EQ(bench.handler.gone, 1);
    EXPECT_EQ(bench.server->connections(), 0U);
}

TEST(HttpServerTimes, AReaderThatStopsBehindAWholeAnswerIsGivenUp) {
    ServerBench bench;
    bench.handler.when_request = [](ServerConnection& c) {
        c.respond(200, "", std::string(2 << 20, 'x'));
    };
    for (const std::string_view connection : {"", "Connection: close\r\n"}) {
        Recorder& client = bench.connect();
        client.stream.set_reading(false);
        client.send("GET / HTTP/1.1\r\nHost: a\r\n" + std::string(connection) + "\r\n");
        bench.run_for(seconds(150));
        EXPECT_EQ(bench.server->connections(), 0U) << connection;
    }
    EXPECT_EQ(bench.handler.gone, 0) << "it had answered";
}

// Longer than any time-out, but reading all the time. Progress is seen send by send, and one send
// takes up to 64 slices.
TEST(HttpServerTimes, ASlowReaderGetsAllOfALargeAnswer) {
    for (const std::string_view connection : {"", "Connection: close\r\n"})
        for (const std::string_view behind : {"", "junk"}) {
            ServerBench bench;
            const std::string body = pattern(6'000'000);
            bench.handler.when_request = [&](ServerConnection& c) {
                c.start_response(200, "", body.size());
                for (std::size_t at = 0; at < body.size(); at += 16'000)
                    c.write(slice_of(bench.server_loop.buffers(),
                                     std::string_view(body).substr(at, 16'000)));
                c.end_response();
            };
            Recorder& client = bench.connect();
            client.send("GET / HTTP/1.1\r\nHost: a\r\n" + std::string(connection) + "\r\n" +
                        std::string(behind));
            const Instant began = bench.world.now();
            while (client.ends + client.breaks == 0 && client.received.size() < body.size()) {
                client.stream.set_reading(false);
                bench.run_for(milliseconds(500));
                client.stream.set_reading(true);
                const std::size_t before = client.received.size();
                ASSERT_TRUE(
                    bench.run([&] { return client.received.size() > before || client.ends > 0; }));
            }
            EXPECT_GT(bench.world.now() - began, seconds(80));
            bench.settle();
            const auto answers = parse_answers(client.received, true);
            ASSERT_GE(answers.size(), 1U);
            EXPECT_TRUE(answers[0].whole && answers[0].body == body) << connection << "," << behind;
        }
}

// ---- refusals that the client can read

TEST(HttpServerRefusals, ATooLargeBodyIsRefusedBeforeItIsRead) {
    ServerOptions options;
    options.body_bytes_max = 1000;
    for (const std::size_t sent : {0U, 1U, 5000U, 900'000U}) {
        ServerBench bench(options);
        Recorder& client = bench.connect();
        client.send(post(10'000'000) + std::string(sent, 'x'));
        bench.run_for(milliseconds(500));
        EXPECT_EQ(status_of(client), 413) << sent;
        EXPECT_EQ(client.breaks, 0);
        EXPECT_EQ(client.ends, 1) << "the client is told that nothing more comes";
        EXPECT_EQ(bench.server->connections(), 1U) << "lingering, for what is still on its way";
        client.close();
        bench.settle();
        EXPECT_EQ(bench.server->connections(), 0U);
        EXPECT_TRUE(bench.handler.heads.empty());
    }
}

TEST(HttpServerRefusals, LingeringIsBoundedInTimeAndBytes) {
    ServerOptions options;
    options.body_bytes_max = 1000;
    ServerBench bench(options);
    Recorder& quiet = bench.connect();
    quiet.send(post(10'000'000));
    bench.run_for(milliseconds(1900));
    EXPECT_EQ(bench.server->connections(), 1U);
    bench.run_for(milliseconds(300));
    EXPECT_EQ(bench.server->connections(), 0U);
    Recorder& busy = bench.connect();
    busy.send(post(10'000'000) + std::string(10'000'000, 'x'));
    bench.run_for(milliseconds(500));
    EXPECT_EQ(status_of(busy), 413) << "it had come before the break";
    EXPECT_EQ(bench.server->connections(), 0U);
}

TEST(HttpServerRefusals, AnAnswerBeforeTheBodyIsReadable) {
    ServerBench bench;
    bench.handler.when_head = [](ServerConnection& c) { c.respond_error(401, "no key"); };
    Recorder& client = bench.connect();
    client.send(post(500'000) + std::string(500'000, 'x'));
    bench.run_for(milliseconds(500));
    EXPECT_EQ(status_of(client), 401);
    EXPECT_EQ(client.breaks, 0);
    EXPECT_TRUE(bench.handler.requests.empty());
    EXPECT_TRUE(bench.handler.refused.empty()) << "the handler did it";
}

TEST(HttpServerRefusals, AChunkedBodyThatGrowsTooLarge) {
    ServerOptions options;
    options.body_bytes_max = 100'000;
    ServerBench bench(options);
    Recorder& client = bench.connect();
    std::string bytes = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (int i = 0; i < 30; ++i) bytes += "2710\r\n" + std::string(10'000, 'x') + "\r\n";
    client.send(bytes);
    bench.run_for(milliseconds(500));
    EXPECT_EQ(status_of(client), 413);
    EXPECT_EQ(client.breaks, 0);
}

// ---- half-closed connections

TEST(HttpServerHalfClose, CountsAsGoneByDefault) {
    ServerBench bench;
    bench.handler.when_request = [](ServerConnection&) {};
    Recorder& client = bench.connect();
    client.send(kGet);
    bench.settle();
    client.stream.finish_sending();
    ASSERT_TRUE(bench.run([&] { return bench.handler.gone == 1; }));
    bench.settle();
    EXPECT_EQ(bench.server->connections(), 0U);
}

TEST(HttpServerHalfClose, AnAnswerGivenAtOnceStillArrives) {
    for (std::uint64_t seed = 1; seed < 30; ++seed) {
        ServerBench bench({}, {}, seed);
        Recorder& client = bench.connect();
        client.send(kGet);
        client.stream.finish_sending();
        ASSERT_TRUE(bench.run_until_closed(client));
        EXPECT_EQ(status_of(client), 200);
        EXPECT_EQ(bench.handler.gone, 0);
    }
}

TEST(HttpServerHalfClose, IsServedIfAllowed) {
    ServerOptions options;
    options.allow_half_close = true;
    for (const bool streamed : {false, true}) {
        ServerBench bench(options);
        ServerConnection* serving = nullptr;
        bench.handler.when_request = [&](ServerConnection& c) {
            serving = &c;
            if (streamed) c.start_response(200, "", {});
        };
        Recorder& client = bench.connect();
        client.send(kGet);
        client.stream.finish_sending();
        bench.settle();
        ASSERT_NE(serving, nullptr);
        if (streamed) {
            serving->write(slice_of(bench.server_loop.buffers(), "ok"));
            serving->end_response();
        } else {
            serving->respond(200, "", "ok");
        }
        ASSERT_TRUE(bench.run_until_closed(client));
        EXPECT_EQ(client.breaks, 0);
        EXPECT_EQ(status_of(client), 200);
        bench.settle();
        EXPECT_EQ(bench.server->connections(), 0U);
        EXPECT_EQ(bench.handler.gone, 0);
    }
}

TEST(HttpServerHalfClose, PipelinedRequestsBeforeItAreAllServedIfAllowed) {
    ServerOptions options;
    options.allow_half_close = true;
    for (const std::string_view behind : {"", "GET /unfinished HT"}) {
        ServerBench bench(options);
        bench.handler.when_request = [&](ServerConnection& c) {
            bench.world.after(milliseconds(10), [&c] { c.respond(200, "", "ok"); });
        };
        Recorder& client = bench.connect();
        client.send(kRequest + kRequest + kRequest + std::string(behind));
        client.stream.finish_sending();
        ASSERT_TRUE(bench.run_until_closed(client));
        const auto answers = parse_answers(client.received, true);
        ASSERT_EQ(answers.size(), 3U);
        EXPECT_EQ(answers[1].field("Connection"), "");
        EXPECT_EQ(answers[2].field("Connection"), behind.empty() ? "close" : "");
        EXPECT_EQ(client.breaks, 0);
    }
}

// ---- clients that leave

struct Leaving {
    const char* name;
    std::string sent;
    bool answer_started;
    int gone;
};

TEST(HttpServerGone, IsToldOnceWhileARequestIsServedAndNeverElse) {
    const std::vector<Leaving> states = {
        {"connected", "", false, 0},
        {"in the head", "GET / HTTP/1.1\r\nHo", false, 0},
        {"in a sized body", post(10) + "abc", false, 0},
        {"in a large body", post(1 << 20) + std::string(100'000, 'x'), false, 0},
        {"in a chunked body",
         "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", false, 0},
        {"served", kRequest, false, 1},
        {"served, and another request waits", kRequest + kRequest, false, 1},
        {"being answered", kRequest, true, 1},
        {"refused", "nonsense\r\n\r\n", false, 0},
    };
    enum class How { Close, Reset, HalfClose };
    for (const Leaving& state : states)
        for (const How how : {How::Close, How::Reset, How::HalfClose}) {
            SCOPED_TRACE(state.name + std::string(", ") + std::to_string(static_cast<int>(how)));
            ServerBench bench;
            ServerConnection* serving = nullptr;
            bench.handler.when_request = [&](ServerConnection& c) {
                serving = &c;
                if (!state.answer_started) return;
                c.start_response(200, "", {});
                c.write(slice_of(bench.server_loop.buffers(), "part"));
            };
            bench.handler.when_gone = [&](ServerConnection& c) {
                EXPECT_EQ(&c, serving);
                // A handler that has not noticed yet does no harm.
                c.write(slice_of(bench.server_loop.buffers(), "more"));
                c.end_response();
                c.cut_response();
            };
            Recorder& client = bench.connect();
            if (!state.sent.empty()) client.send(state.sent);
            bench.settle();
            if (how == How::HalfClose)
                client.stream.finish_sending();
            else
                client.close(how == How::Reset);
            bench.run_for(seconds(3));
            EXPECT_EQ(bench.handler.gone, state.gone);
            EXPECT_EQ(bench.server->connections(), 0U);
            EXPECT_EQ(bench.server_loop.io().operations_in_flight(), 1U) << "the accept";
        }
}

TEST(HttpServerGone, ALeavingClientIsNoticedWhileItsAnswerIsQueued) {
    ServerBench bench;
    bench.handler.when_request = [&](ServerConnection& c) {
        c.start_response(200, "", {});
        c.write(slice_of(bench.server_loop.buffers(), std::string(5 << 20, 'x')));
    };
    Recorder& client = bench.connect();
    client.send(kGet);
    bench.run_for(milliseconds(1));
    client.close(true);
    ASSERT_TRUE(bench.run([&] { return bench.handler.gone > 0; }));
    bench.settle();
    EXPECT_EQ(bench.server->connections(), 0U);
    EXPECT_LT(bench.server_loop.buffers().bytes_in_use(), 100'000U);
}

// Everything at once: each request is either answered by the handler or reported gone, and nothing
// is left.
TEST(HttpServerGone, InAStormEveryRequestEndsOnce) {
    for (std::uint64_t seed = 1; seed <= 150; ++seed) {
        ServerOptions options;
        options.allow_half_close = seed % 2 == 0;
        ServerBench bench(options, io::sim::Faults::stormy(), seed);
        bench.server_host.faults() = io::sim::Faults::stormy();
        std::set<ServerConnection*> open;
        std::size_t answered = 0;
        bench.handler.when_request = [&](ServerConnection& c) {
            ASSERT_TRUE(open.insert(&c).second) << seed;
            const auto when = milliseconds(bench.world.rng().below(20));
            const bool cut = bench.world.rng().chance(0.1);
            const bool streamed = bench.world.rng().chance(0.5);
            bench.world.after(when, [&, cut, streamed, connection = &c] {
                if (open.erase(connection) == 0) return;  // gone meanwhile
                ++answered;
                if (streamed) {
                    connection->start_response(200, "", {});
                    connection->write(slice_of(bench.server_loop.buffers(), pattern(30'000)));
                } else if (!cut) {
                    return connection->respond(200, "", connection->body().view());
                }
                if (cut)
                    connection->cut_response();
                else
                    connection->end_response();
            });
        };
        std::size_t gone = 0;
        const auto note_gone = [&](ServerConnection& c) {
            ASSERT_EQ(open.erase(&c), 1U) << seed;
            ++gone;
        };
        bench.handler.when_gone = note_gone;
        for (int i = 0; i < 12; ++i) {
            bench.clients.push_back(std::make_unique<Recorder>(bench.client_loop));
            Recorder& client = *bench.clients.back();
            ASSERT_TRUE(client.stream.connect(bench.address));
            client.stream.set_reading(true);
            client.send(kRequest + post(20'000) + pattern(20'000) + kRequest +
                        "POST / HTTP/1.1\r\nHost: a\r\n" +
                        "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n" +
                        kRequest.substr(0, seed % 30));
            bench.world.after(milliseconds(bench.world.rng().below(120)), [&bench, &client] {
                if (bench.world.rng().chance(0.3))
                    client.stream.finish_sending();
                else if (bench.world.rng().chance(0.7))
                    client.stream.close(bench.world.rng().chance(0.5));
            });
        }
        bench.run_for(milliseconds(bench.world.rng().below(300)));
        bench.server->shut_down();
        ASSERT_TRUE(bench.run([&] { return bench.server->finished(); })) << seed;
        EXPECT_TRUE(open.empty()) << seed;
        EXPECT_EQ(answered + gone, bench.handler.requests.size()) << seed;
        bench.run_for(milliseconds(50));  // the handler's timers
    }
}

// ---- draining

TEST(HttpServerDrain, IdleConnectionsCloseAndServedOnesFinish) {
    ServerBench bench;
    ServerConnection* serving = nullptr;
    bench.handler.when_request = [&](ServerConnection& c) {
        if (c.request().path == "/long")
            serving = &c;
        else
            c.respond(200, "", "ok");
    };
    Recorder& idle = bench.connect();
    ASSERT_EQ(bench.ask(idle, kGet).size(), 1U);
    Recorder& fresh = bench.connect();
    Recorder& busy = bench.connect();
    busy.send("GET /long HTTP/1.1\r\nHost: a\r\n\r\n" + kRequest);
    Recorder& in_head = bench.connect();
    in_head.send("GET / HTTP/1.1\r\n");
    bench.settle();
    bench.server->drain();
    bench.settle();
    EXPECT_EQ(idle.ends, 1);
    EXPECT_EQ(fresh.ends, 1);
    EXPECT_EQ(bench.server->connections(), 2U);
    in_head.send("Host: a\r\n\r\n");
    bench.settle();
    EXPECT_EQ(status_of(in_head), 200);
    EXPECT_EQ(in_head.ends, 1);
    EXPECT_FALSE(bench.server->finished());
    ASSERT_NE(serving, nullptr);
    serving->respond(200, "", "long");
    bench.settle();
    const auto answers = parse_answers(busy.received, true);
    ASSERT_EQ(answers.size(), 1U) << "the request behind it was not begun";
    EXPECT_EQ(answers[0].field("Connection"), "close");
    EXPECT_EQ(busy.breaks, 0);
    busy.close();
    in_head.close();
    ASSERT_TRUE(bench.run([&] { return bench.server->finished(); }));
}

TEST(HttpServerDrain, AStreamThatSaidKeepAliveEndsWhole) {
    ServerBench bench;
    ServerConnection* serving = nullptr;
    bench.handler.when_request = [&](ServerConnection& c) {
        serving = &c;
        c.start_response(200, "", {});
    };
    Recorder& client = bench.connect();
    client.send(kGet);
    bench.settle();
    bench.server->drain();
    serving->write(slice_of(bench.server_loop.buffers(), "all of it"));
    serving->end_response();
    ASSERT_TRUE(bench.run_until_closed(client));
    const auto answers = parse_answers(client.received, true);
    ASSERT_EQ(answers.size(), 1U);
    EXPECT_TRUE(answers[0].whole);
    EXPECT_EQ(answers[0].body, "all of it");
}

TEST(HttpServerDrain, NobodyIsAcceptedAnyMore) {
    ServerBench bench;
    bench.server->drain();
    ASSERT_TRUE(bench.run([&] { return bench.server->finished(); }));
    Recorder client(bench.client_loop);
    ASSERT_TRUE(client.stream.connect(bench.address));
    ASSERT_TRUE(bench.run([&] { return client.breaks > 0; }));
    client.close();
    ASSERT_TRUE(bench.run([&] { return client.stream.idle(); }));
}

TEST(HttpServerDrain, ShutDownTellsTheHandler) {
    ServerBench bench;
    bench.handler.when_request = [](ServerConnection&) {};
    Recorder& client = bench.connect();
    client.send(kGet);
    Recorder& other = bench.connect();
    bench.settle();
    bench.server->shut_down();
    EXPECT_EQ(bench.handler.gone, 1);
    ASSERT_TRUE(bench.run([&] { return bench.server->finished() && other.ends == 1; }));
}

// ---- too many

TEST(HttpServerAccept, BeyondTheLimitClientsWaitAndAreNotTurnedAway) {
    ServerBench bench({}, {}, 1, 2);
    Recorder& one = bench.connect();
    Recorder& two = bench.connect();
    ASSERT_EQ(bench.ask(one, kGet).size(), 1U);
    ASSERT_EQ(bench.ask(two, kGet).size(), 1U);
    Recorder& three = bench.connect();
    three.send(kGet);
    bench.run_for(milliseconds(2040));
    EXPECT_EQ(three.received, "");
    EXPECT_EQ(three.ends + three.breaks, 0);
    EXPECT_EQ(bench.server->connections(), 2U);
    EXPECT_EQ(bench.server->counters().accept_pauses, 1U);
    const Instant freed = bench.world.now();
    one.close();
    ASSERT_EQ(bench.ask(three, "").size(), 1U);
    EXPECT_LT(bench.world.now() - freed, milliseconds(10)) << "at once, not when the pause is over";
    two.close();
    bench.settle();
    EXPECT_EQ(bench.ask(bench.connect(), kGet).size(), 1U);
    EXPECT_EQ(bench.server->counters().accept_failures, 0U);
}

TEST(HttpServerAccept, OutOfDescriptorsItPausesAndRecovers) {
    ServerBench bench;
    Recorder& one = bench.connect();
    ASSERT_EQ(bench.ask(one, kGet).size(), 1U);
    bench.server_host.io().set_sockets_max(bench.server_host.io().sockets_open());
    Recorder& two = bench.connect();
    two.send(kGet);
    const std::uint64_t turns = bench.server_loop.io().counters().turns;
    bench.run_for(seconds(2));
    EXPECT_EQ(two.received, "");
    const auto& counters = bench.server->counters();
    EXPECT_GE(counters.accept_failures, 10U);
    EXPECT_LE(counters.accept_failures, 30U) << "it must not spin";
    EXPECT_LE(bench.server_loop.io().counters().turns - turns, 300U);
    ASSERT_EQ(bench.ask(one, kGet).size(), 1U) << "the others are served meanwhile";
    bench.server_host.io().set_sockets_max(0);
    EXPECT_EQ(bench.ask(two, "").size(), 1U);
}

TEST(HttpServerAccept, AClosingConnectionFreesADescriptor) {
    ServerBench bench;
    Recorder& one = bench.connect();
    ASSERT_EQ(bench.ask(one, kGet).size(), 1U);
    bench.server_host.io().set_sockets_max(bench.server_host.io().sockets_open());
    Recorder& two = bench.connect();
    two.send(kGet);
    bench.run_for(seconds(1));
    one.close();
    EXPECT_EQ(bench.ask(two, "").size(), 1U);
}

TEST(HttpServerAccept, DrainingWhilePausedEnds) {
    ServerBench bench({}, {}, 1, 1);
    Recorder& one = bench.connect();
    ASSERT_EQ(bench.ask(one, kGet).size(), 1U);
    Recorder& two = bench.connect();
    bench.settle();
    bench.server->drain();
    ASSERT_TRUE(bench.run([&] { return bench.server->finished(); }));
    ASSERT_TRUE(bench.run_until_closed(two));
}

TEST(HttpServerAccept, TwoListeners) {
    ServerBench bench;
    const io::Address other = *io::Address::from_unix_path("/run/sluice");
    bench.server->add_listener(*bench.server_loop.io().listen(other, false));
    EXPECT_EQ(bench.ask(bench.connect(), kGet).size(), 1U);
    bench.clients.push_back(std::make_unique<Recorder>(bench.client_loop));
    Recorder& client = *bench.clients.back();
    ASSERT_TRUE(client.stream.connect(other));
    client.stream.set_reading(true);
    EXPECT_EQ(bench.ask(client, kGet).size(), 1U);
}

}  // namespace
}  // namespace sluice::test
