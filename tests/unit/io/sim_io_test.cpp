// SPDX-License-Identifier: Apache-2.0
// The simulation itself: that one seed gives one history, that each fault happens when it is asked
// for, and that misuse of an Io is caught. A simulation that is silently gentle would make every
// test above it worthless.
#include <gtest/gtest.h>

#include <set>

#include "io/sim/sim_world.h"
#include "recorder.h"

namespace sluice::io {
namespace {

using sim::Faults;
using sim::SimHost;
using sim::SimIo;
using sim::SimWorld;
using test::Acceptor;
using test::pattern;
using test::Recorder;
using test::slice_of;

// A client host and a server host with one listener.
class Pair {
public:
    explicit Pair(std::uint64_t seed = 1, const Faults& faults = {},
                  std::size_t pool_bytes = 64 << 20)
        : world({.seed = seed, .faults = faults, .pool_bytes = pool_bytes}),
          client_host(world.add_host("client")),
          server_host(world.add_host("server")),
          client_loop(client_host.io()),
          server_loop(server_host.io()),
          address(*Address::from_ip("10.0.0.2", 80)),
          acceptor(std::make_unique<Acceptor>(server_loop, address)) {
        client_host.attach(client_loop);
        server_host.attach(server_loop);
    }
    ~Pair() {
        finish();
        clients.clear();
        acceptor.reset();
        world.check_clean();
    }

    Recorder& start() {
        clients.push_back(std::make_unique<Recorder>(client_loop));
        EXPECT_TRUE(clients.back()->stream.connect(address).has_value());
        return *clients.back();
    }
    // The server's end of the connection.
    Recorder& connect() {
        Recorder& client = start();
        const std::size_t before = acceptor->accepted.size();
        EXPECT_TRUE(world.run_until(
            [&] { return client.connected == 1 && acceptor->accepted.size() == before + 1; }));
        return *acceptor->accepted.back();
    }
    Recorder& client() { return *clients.back(); }

    void finish() {
        acceptor->stop();
        const sim::RunLimits limits{.time = std::chrono::hours(2)};
        EXPECT_TRUE(world.run_until([&] { return !acceptor->listening(); }, limits));
        for (const auto& each : clients) each->close();
        for (const auto& each : acceptor->accepted) each->close();
        EXPECT_TRUE(world.run_until(
            [&] {
                bool idle = true;
                for (const auto& each : clients) idle = idle && each->stream.idle();
                for (const auto& each : acceptor->accepted) idle = idle && each->stream.idle();
                return idle;
            },
            limits));
        for (const auto& each : clients) EXPECT_EQ(each->violation, "");
        for (const auto& each : acceptor->accepted) EXPECT_EQ(each->violation, "");
    }

    SimWorld world;
    SimHost& client_host;
    SimHost& server_host;
    Loop client_loop;
    Loop server_loop;
    Address address;
    std::unique_ptr<Acceptor> acceptor;
    std::vector<std::unique_ptr<Recorder>> clients;
};

void echo_everything(Pair& pair) {
    pair.acceptor->when_accepted = [](Recorder& server) {
        server.when_bytes = [&server](Slice& bytes) { server.stream.send(bytes); };
        server.when_end = [&server] { server.stream.close_when_sent(); };
        server.when_broken = [&server] { server.close(); };
        server.stream.set_reading(true);
    };
}

std::uint64_t history_of(std::uint64_t seed) {
    Pair pair(seed, Faults::stormy());
    echo_everything(pair);
    for (int i = 0; i < 5; ++i) {
        Recorder& client = pair.start();
        client.stream.set_reading(true);
        client.send(pattern(40'000));
        client.stream.finish_sending();
        client.when_end = [&client] { client.close(); };
        client.when_broken = [&client] { client.close(); };
    }
    EXPECT_TRUE(pair.world.run_until([&] {
        return std::ranges::all_of(pair.clients,
                                   [](const auto& each) { return each->closes == 1; });
    }));
    return pair.world.trace().hash() ^ pair.world.trace().count();
}

TEST(SimWorld, OneSeedGivesOneHistoryAndAnotherSeedAnother) {
    std::set<std::uint64_t> hashes;
    for (std::uint64_t seed = 1; seed <= 30; ++seed) {
        const std::uint64_t hash = history_of(seed);
        EXPECT_EQ(hash, history_of(seed)) << "seed " << seed;
        hashes.insert(hash);
    }
    EXPECT_EQ(hashes.size(), 30u);
}

TEST(SimWorld, SaysWhyItGaveUp) {
    Pair pair;
    ::testing::internal::CaptureStderr();
    EXPECT_FALSE(pair.world.run_until([] { return false; }));
    EXPECT_FALSE(pair.world.run_until([] { return false; }, {.steps = 1}));
    const std::string text = ::testing::internal::GetCapturedStderr();
    EXPECT_NE(text.find("nothing is left to happen\nseed 1, "), std::string::npos) << text;
    EXPECT_NE(text.find("host  1  listen"), std::string::npos) << text;
    EXPECT_NE(text.find("too many steps"), std::string::npos) << text;
}

TEST(SimWorld, VirtualTimeIsLimited) {
    Pair pair;
    struct Clock {
        void tick() { loop.arm(timer, std::chrono::seconds(1)); }
        Loop& loop;
        Timer timer{Delegate<void()>::to<&Clock::tick>(*this)};
    } clock{pair.client_loop};
    clock.tick();
    EXPECT_FALSE(pair.world.run_until([] { return false; },
                                      {.time = std::chrono::minutes(1), .quiet = true}));
    EXPECT_FALSE(pair.world.run_until_idle({.steps = 1000, .quiet = true}));
    clock.timer.cancel();
    EXPECT_TRUE(pair.world.run_until_idle());
}

// ---- faults of operations

TEST(SimFaults, SplitReads) {
    Pair pair;
    pair.world.faults().split_read = 1;
    Recorder& server = pair.connect();
    server.stream.set_reading(true);
    pair.client().send(pattern(1000));
    ASSERT_TRUE(pair.world.run_until([&] { return server.received.size() == 1000; }));
    EXPECT_GT(server.pieces.size(), 2u);
    EXPECT_EQ(server.received, pattern(1000));
}

TEST(SimFaults, ShortSends) {
    Pair pair;
    pair.world.faults().short_send = 1;
    Recorder& server = pair.connect();
    server.stream.set_reading(true);
    pair.client().send(pattern(10'000));
    ASSERT_TRUE(pair.world.run_until([&] { return server.received.size() == 10'000; }));
    EXPECT_GT(pair.client_host.io().counters().short_sends, 1u);
    EXPECT_EQ(server.received, pattern(10'000));
}

TEST(SimFaults, ReceivesThatFindNoPageComeLater) {
    Pair pair;
    Recorder& server = pair.connect();
    pair.server_host.faults().no_buffers = 1;
    server.stream.set_reading(true);
    pair.client().send("x");
    pair.world.run_for(std::chrono::seconds(1));
    EXPECT_EQ(server.received, "");
    EXPECT_GT(pair.server_host.io().counters().no_buffers, 10u);
    EXPECT_EQ(pair.client_host.io().counters().no_buffers, 0u);
    pair.server_host.clear_faults();
    EXPECT_TRUE(pair.world.run_until([&] { return server.received == "x"; }));
}

TEST(SimFaults, AnExhaustedPoolDelaysReceivesUntilAPageIsFree) {
    Pair pair(1, {}, 2 * limits::kPageBytes);
    Recorder& server = pair.connect();
    BufferRef first = pair.server_loop.buffers().allocate_page();
    BufferRef second = pair.server_loop.buffers().allocate_page();
    server.stream.set_reading(true);
    pair.client().send("x");
    pair.world.run_for(std::chrono::seconds(1));
    EXPECT_EQ(server.received, "");
    first.reset();
    EXPECT_TRUE(pair.world.run_until([&] { return server.received == "x"; }));
}

TEST(SimFaults, LateCompletionsAreLate) {
    Pair pair;
    Recorder& server = pair.connect();
    pair.server_host.faults().late_completion = 1;
    pair.server_host.faults().late_max = std::chrono::seconds(1);
    server.stream.set_reading(true);
    const Instant start = pair.world.now();
    pair.client().send("x");
    ASSERT_TRUE(pair.world.run_until([&] { return server.received == "x"; }));
    EXPECT_GT(pair.world.now() - start, std::chrono::milliseconds(2));
}

// A receive that is cancelled while bytes arrive ends in either way, and both ways happen.
TEST(SimFaults, ACancelMayWinOrLose) {
    struct Target final : OpTarget {
        void on_completion(Completion& completion) override {
            result = completion.result;
            ended = true;
        }
        bool ended = false;
        int result = 0;
    };
    int won = 0;
    int lost = 0;
    for (std::uint64_t seed = 1; seed <= 200; ++seed) {
        Faults faults;
        faults.late_cancel = 0.5;
        faults.late_max = std::chrono::microseconds(300);
        Pair pair(seed, faults);
        Target accepted;
        Target received;
        pair.acceptor->stop();
        ASSERT_TRUE(pair.world.run_until([&] { return !pair.acceptor->listening(); }));
        const Socket listener = *pair.server_host.io().listen(pair.address, false);
        const OpId accepting = pair.server_host.io().accept(listener, accepted);
        Recorder& client = pair.start();
        ASSERT_TRUE(pair.world.run_until([&] { return accepted.ended && client.connected == 1; }));
        const Socket socket = accepted.result;
        const OpId receiving = pair.server_host.io().receive(socket, received);
        client.send("x");
        pair.world.run_for(std::chrono::microseconds(100));
        pair.server_host.io().cancel(receiving);
        ASSERT_TRUE(pair.world.run_until([&] { return received.ended; }));
        if (received.result == -ECANCELED)
            ++won;
        else if (received.result == 1)
            ++lost;
        else
            FAIL() << received.result;
        accepted.ended = false;
        pair.server_host.io().cancel(accepting);
        ASSERT_TRUE(pair.world.run_until([&] { return accepted.ended; }));
        pair.server_host.io().close(listener, false);
        pair.server_host.io().close(socket, false);
    }
    EXPECT_GT(won, 20);
    EXPECT_GT(lost, 20);
}

TEST(SimFaults, AcceptEndsAndGoesOn) {
    Pair pair;
    pair.world.faults().accept_ends = 1;
    pair.connect();
    pair.connect();
    EXPECT_EQ(pair.acceptor->ends, 2);
    EXPECT_EQ(pair.acceptor->failures, 0);
}

TEST(SimFaults, OutOfDescriptorsLeavesTheConnectionInTheBacklog) {
    Pair pair;
    pair.server_host.io().set_sockets_max(1);  // the listener
    Recorder& client = pair.start();
    // The acceptor asks again at once, for ever: that is a livelock, and is seen as one.
    EXPECT_FALSE(pair.world.run_until([] { return false; }, {.steps = 2000, .quiet = true}));
    EXPECT_GT(pair.acceptor->failures, 100);
    EXPECT_TRUE(pair.acceptor->accepted.empty());
    pair.server_host.io().set_sockets_max(0);
    EXPECT_TRUE(pair.world.run_until([&] { return pair.acceptor->accepted.size() == 1; }));
    EXPECT_TRUE(pair.world.run_until([&] { return client.connected == 1; }));
    pair.client_host.io().set_sockets_max(1);
    EXPECT_EQ(pair.client_host.io().open(pair.address).error(), (Error{Errc::System, EMFILE}));
}

// ---- faults of the network

TEST(SimFaults, AResetIsSeenByBothEnds) {
    Pair pair;
    Recorder& server = pair.connect();
    pair.world.faults().reset = 1;
    server.stream.set_reading(true);
    pair.client().stream.set_reading(true);
    pair.client().send("x");
    EXPECT_TRUE(
        pair.world.run_until([&] { return server.breaks == 1 && pair.client().breaks == 1; }));
}

TEST(SimFaults, ARefusedConnect) {
    Pair pair;
    pair.world.faults().refuse = 1;
    Recorder& client = pair.start();
    ASSERT_TRUE(pair.world.run_until([&] { return client.breaks == 1; }));
    EXPECT_EQ(client.error, (Error{Errc::ConnectFailed, ECONNREFUSED}));
}

TEST(SimFaults, ABlackholeTimesOutAfterTwoMinutesUnlessItOpens) {
    Pair pair;
    pair.world.network().set_blackhole(pair.address, true);
    const Instant start = pair.world.now();
    Recorder& lost = pair.start();
    ASSERT_TRUE(pair.world.run_until([&] { return lost.breaks == 1; }));
    EXPECT_EQ(lost.error, (Error{Errc::ConnectFailed, ETIMEDOUT}));
    EXPECT_GT(pair.world.now() - start, std::chrono::seconds(120));
    Recorder& patient = pair.start();
    pair.world.run_for(std::chrono::seconds(10));
    pair.world.network().set_blackhole(pair.address, false);
    EXPECT_TRUE(pair.world.run_until([&] { return patient.connected == 1; }));
}

TEST(SimFaults, AFullBacklogDelaysConnects) {
    Pair pair;
    pair.world.network().set_backlog_max(2);
    pair.world.freeze(pair.server_host, std::chrono::seconds(10));
    for (int i = 0; i < 4; ++i) pair.start();
    pair.world.run_for(std::chrono::seconds(5));
    int connected = 0;
    for (const auto& each : pair.clients) connected += each->connected;
    EXPECT_EQ(connected, 2);
    EXPECT_TRUE(pair.world.run_until([&] { return pair.acceptor->accepted.size() == 4; }));
}

TEST(SimFaults, ACutLinkIsSilentAndALinkThatHealsDeliversInOrder) {
    Pair pair;
    Recorder& server = pair.connect();
    server.stream.set_reading(true);
    pair.world.network().cut(0, 1);
    pair.client().send("one ");
    pair.world.run_for(std::chrono::seconds(20));
    pair.client().send("two");
    pair.world.run_for(std::chrono::seconds(20));
    EXPECT_EQ(server.received, "");
    EXPECT_EQ(server.breaks + pair.client().breaks, 0);
    pair.world.network().heal(0, 1);
    EXPECT_TRUE(pair.world.run_until([&] { return server.received == "one two"; }));
    pair.world.run_for(std::chrono::minutes(2));
    EXPECT_EQ(server.breaks + pair.client().breaks, 0);
}

TEST(SimFaults, ALinkThatStaysCutBreaksItsConnections) {
    Pair pair;
    Recorder& server = pair.connect();
    server.stream.set_reading(true);
    pair.client().stream.set_reading(true);
    pair.world.network().cut(0, 1);
    pair.world.run_for(std::chrono::seconds(70));
    EXPECT_EQ(server.error, (Error{Errc::System, ETIMEDOUT}));
    EXPECT_EQ(pair.client().error, (Error{Errc::System, ETIMEDOUT}));
    pair.world.network().heal(0, 1);
}

TEST(SimFaults, ALinkHasItsOwnFaults) {
    Pair pair;
    Faults slow;
    slow.latency_min = slow.latency_max = std::chrono::seconds(2);
    pair.world.network().set_link_faults(1, 0, slow);
    const Instant start = pair.world.now();
    Recorder& server = pair.connect();
    EXPECT_GE(pair.world.now() - start, std::chrono::seconds(4));
    pair.world.network().clear_link_faults(0, 1);
    server.stream.set_reading(true);
    pair.client().send("x");
    const Instant sent = pair.world.now();
    EXPECT_TRUE(pair.world.run_until([&] { return server.received == "x"; }));
    EXPECT_LT(pair.world.now() - sent, std::chrono::seconds(1));
}

TEST(SimFaults, AFrozenHostsKernelGoesOn) {
    Pair pair;
    Recorder& server = pair.connect();
    server.stream.set_reading(true);
    pair.world.run_for(std::chrono::seconds(1));
    pair.world.freeze(pair.server_host, std::chrono::seconds(30));
    pair.client().stream.mark_sent_position();
    pair.client().send("x");
    pair.world.run_for(std::chrono::seconds(20));
    EXPECT_TRUE(pair.client().stream.acknowledged_since_mark());
    EXPECT_EQ(server.received, "");
    pair.world.run_for(std::chrono::seconds(20));
    EXPECT_EQ(server.received, "x");
}

TEST(SimFaults, TheClockJumps) {
    Pair pair;
    pair.world.faults().clock_jump = 1;
    pair.world.faults().jump_max = std::chrono::hours(1);
    const Instant start = pair.world.now();
    pair.connect();
    EXPECT_GT(pair.world.now() - start, std::chrono::minutes(1));
}

// ---- hosts that die

struct Death {
    SimWorld::Death how;
    int ends;
    int breaks;
};

class SimDeath : public ::testing::TestWithParam<Death> {};

TEST_P(SimDeath, IsSeenByThePeerAsItsKindSays) {
    Pair pair;
    Recorder& server = pair.connect();
    Recorder& client = pair.client();
    client.stream.set_reading(true);
    server.stream.set_reading(true);
    server.send(pattern(1000));
    ASSERT_TRUE(pair.world.run_until([&] { return client.received.size() == 1000; }));
    pair.world.kill(pair.server_host, GetParam().how);
    pair.world.run_for(std::chrono::minutes(5));
    EXPECT_EQ(client.ends, GetParam().ends);
    EXPECT_EQ(client.breaks, GetParam().breaks);
    EXPECT_EQ(server.breaks, 0);  // its host gets no turns

    // A new connection is refused, or gets no answer.
    Recorder& late = pair.start();
    pair.world.run_for(std::chrono::minutes(5));
    const bool silent = GetParam().how == SimWorld::Death::PowerCut;
    EXPECT_EQ(late.error, (Error{Errc::ConnectFailed, silent ? ETIMEDOUT : ECONNREFUSED}));

    pair.world.bury(pair.server_host);
    EXPECT_TRUE(pair.world.run_until([&] { return server.breaks == 1; }));
    EXPECT_FALSE(pair.server_host.io().listen(pair.address, false).has_value());
    pair.finish();
    for (const auto& each : pair.acceptor->accepted) EXPECT_EQ(each->closes, 1);

    // The machine starts again, with new objects.
    pair.acceptor = std::make_unique<Acceptor>(pair.server_loop, Address());
    pair.world.revive(pair.server_host);
    pair.acceptor = std::make_unique<Acceptor>(pair.server_loop, pair.address);
    ASSERT_TRUE(pair.acceptor->listening());
    pair.connect();
}

INSTANTIATE_TEST_SUITE_P(Sim, SimDeath,
                         ::testing::Values(Death{SimWorld::Death::Crash, 1, 0},
                                           Death{SimWorld::Death::Reset, 0, 1},
                                           Death{SimWorld::Death::PowerCut, 0, 1}));

TEST(SimFaults, BytesForAMachineThatStartedAgainAreAnsweredWithAReset) {
    Pair pair;
    pair.connect();
    pair.world.kill(pair.server_host, SimWorld::Death::PowerCut);
    pair.client().stream.set_reading(true);
    pair.client().send("into the dark");
    pair.world.run_for(std::chrono::seconds(10));
    EXPECT_EQ(pair.client().breaks, 0);
    pair.world.bury(pair.server_host);
    pair.world.revive(pair.server_host);
    pair.client().send("hello again");
    EXPECT_TRUE(pair.world.run_until([&] { return pair.client().breaks == 1; }));
}

// ---- misuse

struct Ignore final : OpTarget {
    void on_completion(Completion&) override {}
};

class SimMisuse : public ::testing::Test {
protected:
    static void two_receives() {
        Raw raw;
        raw.io().receive(raw.socket, raw.target);
        raw.io().receive(raw.socket, raw.target);
    }
    static void two_sends() {
        Raw raw;
        SliceQueue queue;
        queue.push(slice_of(raw.io().buffers(), "x"));
        raw.io().send(raw.socket, queue, raw.target);
        raw.io().send(raw.socket, queue, raw.target);
    }
    static void close_in_flight() {
        Raw raw;
        raw.io().receive(raw.socket, raw.target);
        raw.io().close(raw.socket, false);
    }
    static void use_after_close() {
        Raw raw;
        raw.io().close(raw.socket, false);
        raw.io().receive(raw.socket, raw.target);
    }
    static void send_empty() {
        Raw raw;
        raw.io().send(raw.socket, SliceQueue(), raw.target);
    }
    static void send_unconnected() {
        Raw raw;
        SliceQueue queue;
        queue.push(slice_of(raw.io().buffers(), "x"));
        raw.io().send(*raw.io().open(raw.pair.address), queue, raw.target);
    }
    static void change_bytes_in_flight() {
        Raw raw;
        SliceQueue queue;
        queue.push(slice_of(raw.io().buffers(), "x"));
        raw.io().send(raw.socket, queue, raw.target);
        queue[0].buffer.data()[0] = 'y';
        raw.pair.world.run_for(std::chrono::seconds(1));
    }
    static void leave_things() {
        Pair pair;
        const BufferRef page = pair.client_loop.buffers().allocate_page();
        (void)*pair.client_host.io().open(pair.address);
        pair.world.check_clean();
    }

private:
    // A connected socket without a stream.
    struct Raw {
        Raw() {
            struct Connected final : OpTarget {
                void on_completion(Completion&) override { done = true; }
                bool done = false;
            } connected;
            socket = *io().open(pair.address);
            io().connect(socket, pair.address, connected);
            EXPECT_TRUE(pair.world.run_until([&] { return connected.done; }));
        }
        SimIo& io() { return pair.client_host.io(); }
        Pair pair;
        Ignore target;
        Socket socket = kNoSocket;
    };
};

TEST_F(SimMisuse, IsCaught) {
    GTEST_FLAG_SET(death_test_style, "threadsafe");
    EXPECT_DEATH(two_receives(), "valid");
    EXPECT_DEATH(two_sends(), "valid");
    EXPECT_DEATH(close_in_flight(), "busy");
    EXPECT_DEATH(use_after_close(), "Free");
    EXPECT_DEATH(send_empty(), "empty");
    EXPECT_DEATH(send_unconnected(), "Connected");
    EXPECT_DEATH(change_bytes_in_flight(), "checksum");
    EXPECT_DEATH(leave_things(), "1 sockets open");
    EXPECT_DEATH(leave_things(), "1 buffers in use");
}

}  // namespace
}  // namespace sluice::io
