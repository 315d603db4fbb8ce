// SPDX-License-Identifier: Apache-2.0
// Every promise of io/stream.h, on a simulated network.
#include "io/stream.h"

#include <gtest/gtest.h>

#include "io/sim/sim_world.h"
#include "recorder.h"

namespace sluice::io {
namespace {

using sim::Faults;
using sim::SimHost;
using sim::SimWorld;
using test::Acceptor;
using test::pattern;
using test::Recorder;
using test::slice_of;

class StreamTest : public ::testing::Test {
protected:
    StreamTest()
        : client_host_(world_.add_host("client")),
          server_host_(world_.add_host("server")),
          client_loop_(client_host_.io()),
          server_loop_(server_host_.io()),
          address_(*Address::from_ip("10.0.0.2", 80)),
          acceptor_(std::make_unique<Acceptor>(server_loop_, address_)),
          client_(std::make_unique<Recorder>(client_loop_)) {
        client_host_.attach(client_loop_);
        server_host_.attach(server_loop_);
    }

    ~StreamTest() override {
        client_->close();
        for (const auto& each : acceptor_->accepted) each->close();
        acceptor_->stop();
        const bool ended = world_.run_until([&] {
            bool idle = client_->stream.idle() && !acceptor_->listening();
            for (const auto& each : acceptor_->accepted) idle = idle && each->stream.idle();
            return idle;
        });
        EXPECT_TRUE(ended);
        EXPECT_EQ(client_->violation, "");
        EXPECT_LE(client_->closes, 1);
        for (const auto& each : acceptor_->accepted) {
            EXPECT_EQ(each->violation, "");
            EXPECT_EQ(each->closes, 1);
        }
        client_.reset();
        acceptor_.reset();
        world_.check_clean();
    }

    // Connects, and returns the server's end.
    Recorder& connect() {
        EXPECT_TRUE(client_->stream.connect(address_).has_value());
        EXPECT_TRUE(world_.run_until(
            [&] { return client_->connected == 1 && acceptor_->accepted.size() == 1; }));
        return *acceptor_->accepted.front();
    }
    bool run_until(const std::function<bool()>& done) { return world_.run_until(done); }
    void settle() { world_.run_for(std::chrono::seconds(1)); }
    std::uint64_t client_sends() { return client_host_.io().counters().sends; }

    SimWorld world_;
    SimHost& client_host_;
    SimHost& server_host_;
    Loop client_loop_;
    Loop server_loop_;
    Address address_;
    std::unique_ptr<Acceptor> acceptor_;
    std::unique_ptr<Recorder> client_;
};

TEST_F(StreamTest, BytesGoBothWays) {
    Recorder& server = connect();
    server.when_bytes = [&](Slice& bytes) { server.stream.send(bytes); };
    server.stream.set_reading(true);
    client_->stream.set_reading(true);
    client_->send("hello");
    EXPECT_TRUE(run_until([&] { return client_->received == "hello"; }));
    EXPECT_EQ(client_->sents, 1);
    EXPECT_EQ(client_->stream.unsent(), 0u);
}

TEST_F(StreamTest, WhatIsQueuedInOneTurnLeavesInOneSend) {
    Recorder& server = connect();
    server.stream.set_reading(true);
    for (int i = 0; i < 20; ++i) client_->send("abc");
    ASSERT_TRUE(run_until([&] { return server.received.size() == 60; }));
    EXPECT_EQ(client_sends(), 1u);
    EXPECT_EQ(server.pieces.size(), 1u);
}

TEST_F(StreamTest, WhatIsQueuedWhileASendIsInFlightLeavesInOneSendAfterIt) {
    world_.faults().window_bytes = 1000;
    Recorder& server = connect();
    client_->send(pattern(5000));
    settle();
    EXPECT_EQ(client_sends(), 0u);  // still in flight
    for (int i = 0; i < 10; ++i) client_->send("abc");
    settle();
    server.stream.set_reading(true);
    ASSERT_TRUE(run_until([&] { return server.received.size() == 5030; }));
    settle();
    EXPECT_EQ(client_sends(), 2u);
}

// The completion of a send and bytes to pass on come in one turn: both still share one send.
TEST_F(StreamTest, WhatArrivesInTheTurnOfASendsCompletionIsSentWithWhatWaited) {
    world_.faults().window_bytes = 1000;
    Recorder& server = connect();
    client_->stream.set_reading(true);
    client_->when_bytes = [&](Slice& bytes) { client_->stream.send(bytes); };
    client_->send(pattern(2000));
    settle();
    client_->send("waited.");
    server.send("reply");
    settle();  // the reply was queued behind what waits
    ASSERT_EQ(client_sends(), 0u);
    client_host_.faults().late_completion = 0;
    world_.freeze(client_host_, std::chrono::seconds(1));
    server.stream.set_reading(true);
    server.send("again");
    ASSERT_TRUE(run_until([&] { return server.received.size() == 2000 + 7 + 5 + 5; }));
    settle();
    EXPECT_EQ(client_sends(), 2u);
    EXPECT_EQ(server.received, pattern(2000) + "waited.replyagain");
}

TEST_F(StreamTest, OneSendCarriesAtMostTheSlicesOfOneVector) {
    Recorder& server = connect();
    server.stream.set_reading(true);
    std::string expected;
    for (int i = 0; i < 150; ++i) {
        const std::string text = pattern(10, static_cast<unsigned>(i));
        client_->send(text);
        expected += text;
    }
    ASSERT_TRUE(run_until([&] { return server.received.size() == expected.size(); }));
    EXPECT_EQ(server.received, expected);
    settle();
    EXPECT_EQ(client_sends(), 3u);
    EXPECT_EQ(client_->sents, 1);
}

TEST_F(StreamTest, AReaderThatPausesStopsTheSender) {
    world_.faults().window_bytes = 64 * 1024;
    Recorder& server = connect();
    const std::string text = pattern(1 << 20);
    client_->send(text);
    EXPECT_TRUE(client_->stream.congested());
    settle();
    EXPECT_EQ(client_->stream.unsent(), text.size());
    EXPECT_EQ(client_->drains, 0);
    EXPECT_EQ(server.received.size(), 0u);
    EXPECT_EQ(server_host_.io().buffers().buffers_in_use(), 0u);
    server.stream.set_reading(true);
    EXPECT_TRUE(run_until([&] { return server.received.size() == text.size(); }));
    EXPECT_EQ(server.received, text);
    settle();
    EXPECT_EQ(client_->drains, 1);
    EXPECT_FALSE(client_->stream.congested());
}

TEST_F(StreamTest, AnArmedReceiveBringsAtMostOnePageAfterReadingWasTurnedOff) {
    Recorder& server = connect();
    server.stream.set_reading(true);
    settle();
    server.stream.set_reading(false);
    client_->send(pattern(100'000));
    settle();
    EXPECT_EQ(server.received.size(), BufferPool::kPageCapacity);
    EXPECT_EQ(server.pieces.size(), 1u);
    server.stream.set_reading(true);
    EXPECT_TRUE(run_until([&] { return server.received.size() == 100'000; }));
}

TEST_F(StreamTest, CongestedAboveTheHighMarkAndDrainedOnceAtTheLowMark) {
    world_.faults().window_bytes = 8 * 1024;
    world_.faults().short_send = 1;
    Recorder& server = connect();
    client_->send(pattern(limits::kSendHighWater));
    EXPECT_FALSE(client_->stream.congested());
    client_->send("x");
    EXPECT_TRUE(client_->stream.congested());
    std::size_t unsent_at_drain = 0;
    client_->when_drained = [&] { unsent_at_drain = client_->stream.unsent(); };
    server.stream.set_reading(true);
    ASSERT_TRUE(run_until([&] { return client_->drains == 1; }));
    EXPECT_LE(unsent_at_drain, limits::kSendLowWater);
    EXPECT_GT(unsent_at_drain, 0u);
    ASSERT_TRUE(run_until([&] { return client_->stream.unsent() == 0; }));
    settle();
    EXPECT_EQ(client_->drains, 1);
    EXPECT_GT(client_host_.io().counters().short_sends, 0u);
}

TEST_F(StreamTest, SendAllTakesTheWholeQueue) {
    Recorder& server = connect();
    server.stream.set_reading(true);
    SliceQueue queue;
    queue.push(slice_of(client_loop_.buffers(), "one "));
    queue.push(slice_of(client_loop_.buffers(), "two"));
    client_->stream.send_all(queue);
    EXPECT_TRUE(queue.empty());
    ASSERT_TRUE(run_until([&] { return server.received == "one two"; }));
    EXPECT_EQ(client_sends(), 1u);
    client_->close();
    queue.push(slice_of(client_loop_.buffers(), "late"));
    client_->stream.send_all(queue);
    EXPECT_TRUE(queue.empty());
}

TEST_F(StreamTest, BytesQueuedBeforeTheConnectionStandsAreSentThen) {
    ASSERT_TRUE(client_->stream.connect(address_).has_value());
    client_->send("early");
    client_->stream.set_reading(true);
    acceptor_->when_accepted = [](Recorder& made) { made.stream.set_reading(true); };
    EXPECT_TRUE(run_until([&] {
        return !acceptor_->accepted.empty() && acceptor_->accepted[0]->received == "early";
    }));
}

TEST_F(StreamTest, FinishSendingEndsOneDirectionAfterWhatWasQueued) {
    Recorder& server = connect();
    server.stream.set_reading(true);
    client_->stream.set_reading(true);
    client_->send("question");
    client_->stream.finish_sending();
    ASSERT_TRUE(run_until([&] { return server.ends == 1; }));
    EXPECT_EQ(server.received, "question");
    server.send("answer");
    ASSERT_TRUE(run_until([&] { return client_->received == "answer"; }));
    EXPECT_EQ(client_->ends, 0);
    EXPECT_EQ(client_->closes, 0);
}

TEST_F(StreamTest, FinishSendingWorksBeforeTheConnectionStands) {
    ASSERT_TRUE(client_->stream.connect(address_).has_value());
    client_->stream.finish_sending();
    acceptor_->when_accepted = [](Recorder& made) { made.stream.set_reading(true); };
    EXPECT_TRUE(run_until(
        [&] { return !acceptor_->accepted.empty() && acceptor_->accepted[0]->ends == 1; }));
}

TEST_F(StreamTest, CloseWhenSentDeliversEverythingAndThenCloses) {
    world_.faults().window_bytes = 4096;
    Recorder& server = connect();
    const std::string text = pattern(100'000);
    client_->send(text);
    client_->stream.close_when_sent();
    settle();
    EXPECT_EQ(client_->closes, 0);
    server.stream.set_reading(true);
    ASSERT_TRUE(run_until([&] { return client_->closes == 1 && server.ends == 1; }));
    EXPECT_EQ(server.received, text);
    EXPECT_EQ(server.breaks, 0);
}

TEST_F(StreamTest, CloseWhenSentWithNothingToSendClosesAtTheEndOfTheTurn) {
    Recorder& server = connect();
    server.stream.set_reading(true);
    client_->stream.close_when_sent();
    EXPECT_EQ(client_->closes, 0);
    EXPECT_TRUE(run_until([&] { return client_->closes == 1 && server.ends == 1; }));
}

TEST_F(StreamTest, CloseWhenSentBeforeTheConnectionStandsClosesThen) {
    ASSERT_TRUE(client_->stream.connect(address_).has_value());
    client_->stream.close_when_sent();
    EXPECT_TRUE(run_until([&] { return client_->closes == 1; }));
    EXPECT_EQ(client_->connected, 1);
}

TEST_F(StreamTest, CloseWhenSentOnABrokenStreamStillCloses) {
    Recorder& server = connect();
    client_->stream.set_reading(true);
    server.close(true);
    ASSERT_TRUE(run_until([&] { return client_->breaks == 1; }));
    client_->send("nobody reads this");
    client_->stream.close_when_sent();
    EXPECT_TRUE(run_until([&] { return client_->closes == 1; }));
}

TEST_F(StreamTest, CloseIsTheLastEventButClosedWhichComesOnceAndLater) {
    Recorder& server = connect();
    client_->stream.set_reading(true);
    server.send("in flight to the client");
    client_->send(pattern(50'000));
    client_->close();
    client_->close();  // harmless
    EXPECT_EQ(client_->closes, 0);
    EXPECT_TRUE(client_->stream.closing());
    EXPECT_EQ(client_->stream.unsent(), 0u);
    ASSERT_TRUE(run_until([&] { return client_->closes == 1; }));
    settle();
    EXPECT_EQ(client_->closes, 1);
    EXPECT_TRUE(client_->stream.idle());
}

TEST_F(StreamTest, CloseFromWithinAnEventIsSafe) {
    Recorder& server = connect();
    server.stream.set_reading(true);
    server.when_bytes = [&](Slice&) { server.close(); };
    client_->stream.set_reading(true);
    client_->send("x");
    EXPECT_TRUE(run_until([&] { return server.closes == 1 && client_->ends == 1; }));
}

TEST_F(StreamTest, CloseWaitsForASendInFlight) {
    world_.faults().window_bytes = 1000;
    Recorder& server = connect();
    client_->send(pattern(5000));
    settle();
    EXPECT_EQ(client_host_.io().operations_in_flight(), 1u);
    client_->close(true);
    ASSERT_TRUE(run_until([&] { return client_->closes == 1; }));
    EXPECT_EQ(client_host_.io().operations_in_flight(), 0u);
    EXPECT_EQ(client_host_.io().buffers().buffers_in_use(), 0u);
    server.stream.set_reading(true);
    EXPECT_TRUE(run_until([&] { return server.breaks == 1; }));
    EXPECT_EQ(server.error.code, Errc::ConnectionReset);
}

TEST_F(StreamTest, CloseWhileConnectingCancelsTheConnect) {
    world_.network().set_blackhole(address_, true);
    ASSERT_TRUE(client_->stream.connect(address_).has_value());
    settle();
    client_->close();
    EXPECT_TRUE(run_until([&] { return client_->closes == 1; }));
    EXPECT_EQ(client_->connected + client_->breaks, 0);
}

TEST_F(StreamTest, AnIdleStreamCanBeOpenedAgain) {
    Recorder& first = connect();
    first.stream.set_reading(true);
    client_->send("1");
    client_->close();
    ASSERT_TRUE(run_until([&] { return client_->closes == 1; }));
    client_->closes = 0;
    client_->reuse();
    ASSERT_TRUE(client_->stream.connect(address_).has_value());
    client_->send("2");
    acceptor_->when_accepted = [](Recorder& made) { made.stream.set_reading(true); };
    EXPECT_TRUE(run_until([&] {
        return acceptor_->accepted.size() == 2 && acceptor_->accepted[1]->received == "2";
    }));
}

TEST_F(StreamTest, ResetIsSeenAsBroken) {
    Recorder& server = connect();
    client_->stream.set_reading(true);
    server.close(true);
    ASSERT_TRUE(run_until([&] { return client_->breaks == 1; }));
    EXPECT_EQ(client_->error.code, Errc::ConnectionReset);
    EXPECT_EQ(client_->ends, 0);
}

TEST_F(StreamTest, SendingToAPeerThatHasGoneBreaksTheStream) {
    Recorder& server = connect();
    server.close();
    settle();
    client_->send("x");
    settle();
    client_->send("y");
    ASSERT_TRUE(run_until([&] { return client_->breaks == 1; }));
    EXPECT_EQ(client_->error.code, Errc::ConnectionReset);
    EXPECT_EQ(client_->stream.unsent(), 0u);
}

// The receive breaks the stream while a send is in flight; the send's own end must find nothing to
// do.
TEST_F(StreamTest, ASendThatEndsAfterTheStreamBrokeIsIgnored) {
    client_host_.faults().late_completion = 1;
    client_host_.faults().late_max = std::chrono::seconds(1);
    Recorder& server = connect();
    client_->stream.set_reading(true);
    settle();
    bool send_was_in_flight = false;
    client_->when_broken = [&] {
        send_was_in_flight = client_host_.io().operations_in_flight() == 1;
    };
    server.close(true);
    // Sends keep ending, up to a second late each, while the reset travels to the receive.
    client_->when_sent = [&] { client_->send(pattern(100)); };
    client_->send(pattern(100));
    ASSERT_TRUE(run_until([&] { return client_->breaks == 1; }));
    world_.run_for(std::chrono::seconds(3));
    EXPECT_TRUE(send_was_in_flight);
    EXPECT_EQ(client_->breaks, 1);
}

// And the other way round: what a receive brings after a send broke the stream is not told either.
TEST_F(StreamTest, AReceiveThatEndsAfterTheStreamBrokeIsIgnored) {
    world_.faults().window_bytes = 1000;
    Recorder& server = connect();
    client_->stream.set_reading(true);
    client_->send(pattern(1000));
    settle();
    client_->send("waits");  // nobody reads
    settle();
    client_host_.faults().reorder = 1;
    world_.freeze(client_host_, std::chrono::seconds(2));
    server.send("in time");
    settle();
    server.close(true);
    ASSERT_TRUE(run_until([&] { return client_->breaks == 1; }));
    settle();
    EXPECT_EQ(client_->received, "");
    EXPECT_EQ(client_->violation, "");
}

TEST_F(StreamTest, ConnectRefusedIsBrokenAndCloseWorksAsForAnyOther) {
    ASSERT_TRUE(client_->stream.connect(*Address::from_ip("10.0.0.9", 1)).has_value());
    client_->send("queued");
    ASSERT_TRUE(run_until([&] { return client_->breaks == 1; }));
    EXPECT_EQ(client_->error, (Error{Errc::ConnectFailed, ECONNREFUSED}));
    EXPECT_EQ(client_->connected, 0);
    client_->close();
    EXPECT_TRUE(run_until([&] { return client_->closes == 1; }));
}

TEST_F(StreamTest, ReceiveNextIntoFillsTheGivenBufferOnce) {
    Recorder& server = connect();
    BufferRef buffer = server_loop_.buffers().allocate(1000);
    std::vector<Buffer*> seen;
    server.when_bytes = [&](Slice& bytes) {
        seen.push_back(bytes.buffer.get());
        if (seen.size() == 1) {
            EXPECT_EQ(bytes.offset, 100u);
        }
    };
    server.stream.receive_next_into(buffer, 100, 50);
    server.stream.set_reading(true);
    const std::string text = pattern(200);
    client_->send(text);
    ASSERT_TRUE(run_until([&] { return server.received.size() == 200; }));
    ASSERT_EQ(server.pieces.size(), 2u);
    EXPECT_EQ(server.pieces[0], 50u);
    EXPECT_EQ(server.received, text);
    EXPECT_EQ(seen[0], buffer.get());
    EXPECT_NE(seen[1], buffer.get());
    EXPECT_EQ(std::string_view(buffer.data() + 100, 50), text.substr(0, 50));
}

TEST_F(StreamTest, ReceiveNextIntoIsForgottenByClose) {
    Recorder& server = connect();
    server.stream.receive_next_into(server_loop_.buffers().allocate(1000), 0, 50);
    server.close();
    ASSERT_TRUE(run_until([&] { return server.closes == 1; }));
    EXPECT_EQ(server_loop_.buffers().buffers_in_use(), 0u);
}

TEST_F(StreamTest, ReadingGoesOnInTheSameBufferFromEvents) {
    // How a body is received contiguously: each event asks for the rest of it.
    Recorder& server = connect();
    constexpr std::uint32_t kBody = 100'000;
    BufferRef body = server_loop_.buffers().allocate(kBody);
    std::uint32_t have = 0;
    server.when_bytes = [&](Slice& bytes) {
        EXPECT_EQ(bytes.buffer.get(), body.get());
        EXPECT_EQ(bytes.offset, have);
        have += bytes.size;
        if (have < kBody) server.stream.receive_next_into(body, have, kBody - have);
    };
    server.stream.receive_next_into(body, 0, kBody);
    server.stream.set_reading(true);
    world_.faults().split_read = 0.5;
    const std::string text = pattern(kBody);
    client_->send(text);
    ASSERT_TRUE(run_until([&] { return have == kBody; }));
    EXPECT_EQ(std::string_view(body.data(), kBody), text);
    server.when_bytes = nullptr;
}

TEST_F(StreamTest, AnIdleConnectionHoldsNoPage) {
    Recorder& server = connect();
    server.stream.set_reading(true);
    client_->stream.set_reading(true);
    settle();
    EXPECT_EQ(server_loop_.buffers().buffers_in_use(), 0u);
    EXPECT_EQ(client_loop_.buffers().buffers_in_use(), 0u);
}

TEST_F(StreamTest, TellsWhetherThePeerAcknowledgedAnythingSinceTheMark) {
    Recorder& server = connect();
    client_->stream.mark_sent_position();
    EXPECT_FALSE(client_->stream.acknowledged_since_mark());
    client_->send("first");
    ASSERT_TRUE(run_until([&] { return client_->stream.acknowledged_since_mark(); }));
    client_->stream.mark_sent_position();
    EXPECT_FALSE(client_->stream.acknowledged_since_mark());
    // A closed peer acknowledges nothing.
    server.close(true);
    ASSERT_TRUE(run_until([&] { return server.closes == 1; }));
    client_->send("second");
    settle();
    client_->send("third");  // nobody reads on this side: the reset is seen by the next send
    ASSERT_TRUE(run_until([&] { return client_->breaks == 1; }));
    EXPECT_FALSE(client_->stream.acknowledged_since_mark());
}

TEST_F(StreamTest, AMarkCountsWhatIsQueued) {
    Recorder& server = connect();
    client_->send("queued before the mark");
    client_->stream.mark_sent_position();
    server.stream.set_reading(true);
    ASSERT_TRUE(run_until([&] { return !server.received.empty(); }));
    settle();
    EXPECT_FALSE(client_->stream.acknowledged_since_mark());
    client_->send("x");
    EXPECT_TRUE(run_until([&] { return client_->stream.acknowledged_since_mark(); }));
}

}  // namespace
}  // namespace sluice::io
