// SPDX-License-Identifier: Apache-2.0
// One list of scenarios on both implementations of Io and every kind of address: what the
// simulation says must be what Linux does. A scenario asserts only what both promise, never timing.
// Each kind of address has another of the ring's modes, so that those of older kernels are run too.
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "bench.h"

namespace sluice::io {
namespace {

using test::Acceptor;
using test::Bench;
using test::pattern;
using test::Recorder;
using test::SimBench;
using test::slice_of;
using test::UringBench;

enum class Kind { Sim, Uring };
enum class Family { V4, V6, Unix };

struct Case {
    Kind kind;
    Family family;
    TaskRun task_run = TaskRun::Defer;  // Uring
};

std::string name_of(const ::testing::TestParamInfo<Case>& info) {
    const char* families[] = {"V4", "V6", "Unix"};
    const char* modes[] = {"", "Cooperative", "Plain"};
    return std::string(info.param.kind == Kind::Sim ? "Sim" : "Uring") +
           families[static_cast<int>(info.param.family)] +
           modes[static_cast<int>(info.param.task_run)];
}

class ParityTest : public ::testing::TestWithParam<Case> {
protected:
    void SetUp() override {
        if (GetParam().kind == Kind::Sim)
            bench_ = std::make_unique<SimBench>();
        else
            bench_ = UringBench::create(GetParam().task_run);
        if (bench_ == nullptr) GTEST_SKIP() << "no usable io_uring here";
        bench_->settle();
        buffers_at_start_ = bench_->io().buffers().buffers_in_use();
        path_ =
            "/tmp/sluice-parity-" + std::to_string(getpid()) + "-" + std::to_string(next_path_++);
        acceptor_ = std::make_unique<Acceptor>(bench_->loop(), some_address());
        if (!acceptor_->listening()) {
            acceptor_.reset();
            GTEST_SKIP() << "this address family is not available here";
        }
        client_ = std::make_unique<Recorder>(bench_->loop());
    }

    void TearDown() override {
        if (client_ == nullptr) return;
        client_->close();
        acceptor_->stop();
        EXPECT_TRUE(run_until([&] { return !acceptor_->listening(); }));
        for (const auto& each : acceptor_->accepted) each->close();
        EXPECT_TRUE(run_until([&] {
            bool idle = client_->stream.idle();
            for (const auto& each : acceptor_->accepted) idle = idle && each->stream.idle();
            return idle;
        }));
        EXPECT_EQ(client_->violation, "");
        for (const auto& each : acceptor_->accepted) {
            EXPECT_EQ(each->violation, "");
            EXPECT_EQ(each->closes, 1);
        }
        bench_->settle();
        EXPECT_EQ(bench_->io().operations_in_flight(), 0u);
        EXPECT_EQ(bench_->io().buffers().buffers_in_use(), buffers_at_start_);
        client_.reset();
        acceptor_.reset();
        bench_.reset();
        ::unlink(path_.c_str());
    }

    bool is_unix() const { return GetParam().family == Family::Unix; }
    Address some_address() const {
        switch (GetParam().family) {
            case Family::V4:
                return *Address::from_ip("127.0.0.1", 0);
            case Family::V6:
                return *Address::from_ip("::1", 0);
            default:
                return *Address::from_unix_path(path_);
        }
    }
    // Connects, and returns the server's end.
    Recorder& connect() {
        EXPECT_TRUE(client_->stream.connect(acceptor_->address()).has_value());
        EXPECT_TRUE(
            run_until([&] { return client_->connected == 1 && acceptor_->accepted.size() == 1; }));
        return *acceptor_->accepted.front();
    }
    bool run_until(const std::function<bool()>& done) { return bench_->run_until(done); }
    // Far more than socket buffers hold. The simulation's are small, and it checks at every step
    // that bytes being sent have not changed, which is quadratic.
    std::size_t more_than_buffers() const {
        return GetParam().kind == Kind::Sim ? std::size_t{2} << 20 : std::size_t{24} << 20;
    }
    std::uint64_t sends() { return bench_->io().counters().sends; }

    static inline int next_path_ = 0;
    std::unique_ptr<Bench> bench_;
    std::size_t buffers_at_start_ = 0;
    std::string path_;
    std::unique_ptr<Acceptor> acceptor_;
    std::unique_ptr<Recorder> client_;
};

TEST_P(ParityTest, Echo) {
    Recorder& server = connect();
    server.when_bytes = [&](Slice& bytes) { server.stream.send(bytes); };
    server.stream.set_reading(true);
    client_->stream.set_reading(true);
    client_->send("hello");
    EXPECT_TRUE(run_until([&] { return client_->received == "hello"; }));
    EXPECT_EQ(sends(), 2u);
}

TEST_P(ParityTest, MegabytesBothWaysAtOnce) {
    Recorder& server = connect();
    const std::string up = pattern(3'000'000, 1);
    const std::string down = pattern(2'500'000, 2);
    server.stream.set_reading(true);
    client_->stream.set_reading(true);
    client_->send(up);
    server.send(down);
    EXPECT_TRUE(run_until([&] {
        return client_->received.size() == down.size() && server.received.size() == up.size();
    }));
    EXPECT_TRUE(client_->received == down);
    EXPECT_TRUE(server.received == up);
    EXPECT_TRUE(run_until([&] { return client_->sents == 1 && server.sents == 1; }));
}

TEST_P(ParityTest, ManySlicesTakeFewSends) {
    Recorder& server = connect();
    server.stream.set_reading(true);
    std::string expected;
    for (int i = 0; i < 150; ++i) {
        const std::string text = pattern(10, static_cast<unsigned>(i));
        client_->send(text);
        expected += text;
    }
    EXPECT_TRUE(run_until([&] { return server.received == expected && client_->sents == 1; }));
    EXPECT_EQ(sends(), 3u);
}

TEST_P(ParityTest, AReaderThatPausesStopsTheSender) {
    Recorder& server = connect();
    const std::string text = pattern(more_than_buffers());
    client_->send(text);
    bench_->settle();
    EXPECT_EQ(client_->sents, 0);
    EXPECT_TRUE(client_->stream.congested());
    EXPECT_EQ(bench_->io().operations_in_flight(), 2u);  // the send and the accept
    server.stream.set_reading(true);
    EXPECT_TRUE(run_until([&] { return server.received.size() == text.size(); }));
    EXPECT_TRUE(server.received == text);
    EXPECT_TRUE(run_until([&] { return client_->sents == 1; }));
    EXPECT_EQ(client_->drains, 1);
}

TEST_P(ParityTest, CloseCancelsASendThatWaits) {
    Recorder& server = connect();
    client_->send(pattern(more_than_buffers()));
    bench_->settle();
    client_->close(true);
    EXPECT_TRUE(run_until([&] { return client_->closes == 1; }));
    server.stream.set_reading(true);
    EXPECT_TRUE(run_until([&] { return server.ends + server.breaks == 1; }));
    EXPECT_LT(server.received.size(), more_than_buffers());
}

TEST_P(ParityTest, CloseCancelsAReceive) {
    Recorder& server = connect();
    server.stream.set_reading(true);
    client_->stream.set_reading(true);
    bench_->settle();
    client_->close();
    EXPECT_TRUE(run_until([&] { return client_->closes == 1 && server.ends == 1; }));
    EXPECT_EQ(server.breaks, 0);
}

TEST_P(ParityTest, HalfClose) {
    Recorder& server = connect();
    server.stream.set_reading(true);
    client_->stream.set_reading(true);
    client_->send("question");
    client_->stream.finish_sending();
    ASSERT_TRUE(run_until([&] { return server.ends == 1; }));
    EXPECT_EQ(server.received, "question");
    server.send("answer");
    server.stream.close_when_sent();
    EXPECT_TRUE(run_until([&] { return client_->ends == 1; }));
    EXPECT_EQ(client_->received, "answer");
}

TEST_P(ParityTest, CloseWhenSentDeliversEverything) {
    Recorder& server = connect();
    const std::string text = pattern(5 << 20);
    client_->send(text);
    client_->stream.close_when_sent();
    server.stream.set_reading(true);
    EXPECT_TRUE(run_until([&] { return client_->closes == 1 && server.ends == 1; }));
    EXPECT_TRUE(server.received == text);
    EXPECT_EQ(server.breaks, 0);
}

// A unix socket cannot send a reset: its peer sees an end. Truncation must be told by the bytes
// themselves.
TEST_P(ParityTest, ResetBreaksTcpAndEndsUnix) {
    Recorder& server = connect();
    client_->stream.set_reading(true);
    server.close(true);
    EXPECT_TRUE(run_until([&] { return client_->breaks + client_->ends == 1; }));
    EXPECT_EQ(client_->breaks, is_unix() ? 0 : 1);
}

TEST_P(ParityTest, WhatArrivedBeforeAResetIsRead) {
    Recorder& server = connect();
    server.send("last words");
    ASSERT_TRUE(run_until([&] { return server.sents == 1; }));
    bench_->settle();
    server.close(true);
    ASSERT_TRUE(run_until([&] { return server.closes == 1; }));
    bench_->settle();
    client_->stream.set_reading(true);
    EXPECT_TRUE(run_until([&] { return client_->breaks + client_->ends == 1; }));
    EXPECT_EQ(client_->received, "last words");
    EXPECT_EQ(client_->breaks, is_unix() ? 0 : 1);
}

TEST_P(ParityTest, CloseWithUnreadBytesBreaksThePeer) {
    Recorder& server = connect();
    client_->send("never read");
    ASSERT_TRUE(run_until([&] { return client_->sents == 1; }));
    bench_->settle();
    server.close();
    client_->stream.set_reading(true);
    EXPECT_TRUE(run_until([&] { return client_->breaks == 1; }));
    EXPECT_EQ(client_->error.code, Errc::ConnectionReset);
}

TEST_P(ParityTest, SendingToAClosedPeerBreaks) {
    Recorder& server = connect();
    client_->stream.set_reading(true);
    server.close();
    ASSERT_TRUE(run_until([&] { return client_->ends == 1; }));
    client_->send("1");
    bench_->settle();
    client_->send("2");
    EXPECT_TRUE(run_until([&] { return client_->breaks == 1; }));
    EXPECT_EQ(client_->error, (Error{Errc::ConnectionReset, EPIPE}));
}

TEST_P(ParityTest, ConnectWhereNobodyListens) {
    const Address address = acceptor_->address();
    acceptor_->stop();
    ASSERT_TRUE(run_until([&] { return !acceptor_->listening(); }));
    ASSERT_TRUE(client_->stream.connect(address).has_value());
    EXPECT_TRUE(run_until([&] { return client_->breaks == 1; }));
    EXPECT_EQ(client_->error, (Error{Errc::ConnectFailed, ECONNREFUSED}));
}

TEST_P(ParityTest, ConnectToAPathThatDoesNotExist) {
    if (!is_unix()) GTEST_SKIP() << "paths only";
    ASSERT_TRUE(
        client_->stream.connect(*Address::from_unix_path("/tmp/sluice-no-such")).has_value());
    EXPECT_TRUE(run_until([&] { return client_->breaks == 1; }));
    EXPECT_EQ(client_->error, (Error{Errc::ConnectFailed, ENOENT}));
}

TEST_P(ParityTest, AListenersAddressIsTakenUnlessItsPortIsShared) {
    Acceptor second(bench_->loop(), acceptor_->address());
    EXPECT_FALSE(second.listening());
    EXPECT_EQ(second.error, (Error{Errc::System, EADDRINUSE}));
    if (is_unix()) return;
    Acceptor shared(bench_->loop(), some_address(), true);
    ASSERT_TRUE(shared.listening());
    EXPECT_NE(shared.address().port(), 0);
    Acceptor sharing(bench_->loop(), shared.address(), true);
    EXPECT_TRUE(sharing.listening());
    shared.stop();
    sharing.stop();
    EXPECT_TRUE(run_until([&] { return !shared.listening() && !sharing.listening(); }));
}

TEST_P(ParityTest, AcknowledgedBytesAreExactOrUnknown) {
    Recorder& server = connect();
    client_->stream.mark_sent_position();
    server.stream.mark_sent_position();
    bench_->settle();
    EXPECT_EQ(client_->stream.acknowledged_since_mark(), is_unix());
    EXPECT_EQ(server.stream.acknowledged_since_mark(), is_unix());
    client_->send("x");  // one byte is the hardest: kernels count the SYN as one
    // The acknowledgement may be delayed by 40 ms.
    EXPECT_TRUE(run_until(
        [&] { return client_->sents == 1 && client_->stream.acknowledged_since_mark(); }));
    client_->stream.mark_sent_position();
    EXPECT_EQ(client_->stream.acknowledged_since_mark(), is_unix());
}

// The same on the side that accepted, whose SYN is not counted.
TEST_P(ParityTest, AcknowledgedBytesOfAnAcceptedConnection) {
    Recorder& server = connect();
    server.stream.mark_sent_position();
    client_->stream.set_reading(true);
    server.send("xy");
    ASSERT_TRUE(run_until([&] { return client_->received == "xy"; }));
    EXPECT_TRUE(run_until([&] { return server.stream.acknowledged_since_mark(); }));
}

TEST_P(ParityTest, ReceiveNextIntoAGivenBuffer) {
    Recorder& server = connect();
    const BufferRef buffer = bench_->loop().buffers().allocate(1000);
    server.stream.receive_next_into(buffer, 100, 50);
    server.stream.set_reading(true);
    const std::string text = pattern(200);
    client_->send(text);
    ASSERT_TRUE(run_until([&] { return server.received.size() == 200; }));
    EXPECT_EQ(server.received, text);
    EXPECT_EQ(server.pieces, (std::vector<std::size_t>{50, 150}));
    EXPECT_EQ(std::string_view(buffer.data() + 100, 50), text.substr(0, 50));
}

TEST_P(ParityTest, AnIdleConnectionHoldsNoPage) {
    Recorder& server = connect();
    server.stream.set_reading(true);
    client_->stream.set_reading(true);
    bench_->settle();
    EXPECT_EQ(bench_->io().buffers().buffers_in_use(), buffers_at_start_);
}

TEST_P(ParityTest, ManyConnectionsAtOnce) {
    constexpr std::size_t kCount = 200;
    acceptor_->when_accepted = [](Recorder& server) {
        server.when_bytes = [&server](Slice& bytes) { server.stream.send(bytes); };
        server.when_end = [&server] { server.stream.close_when_sent(); };
        server.stream.set_reading(true);
    };
    std::vector<std::unique_ptr<Recorder>> clients;
    for (std::size_t i = 0; i < kCount; ++i) {
        clients.push_back(std::make_unique<Recorder>(bench_->loop()));
        Recorder& each = *clients.back();
        ASSERT_TRUE(each.stream.connect(acceptor_->address()).has_value());
        each.stream.set_reading(true);
        each.send(pattern(1000 + i, static_cast<unsigned>(i)));
        each.stream.finish_sending();
        each.when_end = [&each] { each.close(); };
    }
    EXPECT_TRUE(run_until([&] {
        return std::ranges::all_of(clients, [](const auto& each) { return each->closes == 1; });
    }));
    for (std::size_t i = 0; i < kCount; ++i) {
        EXPECT_EQ(clients[i]->received, pattern(1000 + i, static_cast<unsigned>(i)));
        EXPECT_EQ(clients[i]->violation, "");
    }
    EXPECT_EQ(bench_->io().counters().accepts, kCount);
    EXPECT_EQ(bench_->io().counters().connects, kCount);
}

TEST_P(ParityTest, AcceptingStopsWithOneLastCompletion) {
    acceptor_->stop();
    EXPECT_TRUE(run_until([&] { return !acceptor_->listening(); }));
    EXPECT_EQ(acceptor_->ends, 1);
    EXPECT_EQ(acceptor_->failures, 0);
}

TEST_P(ParityTest, CancellingWhatHasEndedIsHarmless) {
    Recorder& server = connect();
    server.stream.set_reading(true);
    bench_->io().cancel(OpId());
    bench_->io().cancel({0, 12345});
    bench_->io().cancel({1'000'000'000, 1});
    client_->send("x");
    EXPECT_TRUE(run_until([&] { return server.received == "x"; }));
}

INSTANTIATE_TEST_SUITE_P(Io, ParityTest,
                         ::testing::Values(Case{Kind::Sim, Family::V4}, Case{Kind::Sim, Family::V6},
                                           Case{Kind::Sim, Family::Unix},
                                           Case{Kind::Uring, Family::V4},
                                           Case{Kind::Uring, Family::V6, TaskRun::Cooperative},
                                           Case{Kind::Uring, Family::Unix, TaskRun::Plain}),
                         name_of);

// What only a real ring has: waiting, and being woken from another thread.
TEST(UringIo, WakeEndsAWaitingTurn) {
    const auto bench = UringBench::create();
    if (bench == nullptr) GTEST_SKIP() << "no usable io_uring here";
    std::atomic<bool> stop{false};
    std::atomic<int> turns{0};
    std::thread waker([&] {
        while (!stop) {
            bench->io().wake();
            std::this_thread::yield();
        }
    });
    const Instant start = MonotonicClock::now();
    for (; turns < 1000; ++turns) bench->loop().run_turn(std::chrono::seconds(20));
    stop = true;
    waker.join();
    EXPECT_LT(MonotonicClock::now() - start, std::chrono::seconds(15));
}

TEST(UringIo, ATurnWaitsAsLongAsItMay) {
    const auto bench = UringBench::create();
    if (bench == nullptr) GTEST_SKIP() << "no usable io_uring here";
    const Instant start = MonotonicClock::now();
    bench->loop().run_turn(std::chrono::milliseconds(20));
    EXPECT_GE(MonotonicClock::now() - start, std::chrono::milliseconds(19));
}

}  // namespace
}  // namespace sluice::io
