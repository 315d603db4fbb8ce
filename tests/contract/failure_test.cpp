// SPDX-License-Identifier: Apache-2.0
// The contract of every transport: whatever breaks, the report is true.
#include <gtest/gtest.h>

#include <thread>

#include "base/rng.h"
#include "contract/peer_process.h"

namespace sluice::transport {
namespace {

using std::chrono::milliseconds;

class Failure : public testing::TestWithParam<std::string_view> {
protected:
    explicit Failure(TransportOptions options = patient())
        : memory(kPoolBytes),
          node(GetParam(), options, {.threads = 2, .pin = false}),
          region(*node->register_memory(memory.region())) {}

    void start(const TransportOptions& options = patient()) {
        sender = std::make_unique<PeerProcess>(GetParam(), options);
        const auto asked = node->connect(sender->listen());
        ASSERT_TRUE(asked);
        const auto up = node.wait(Event::PeerUp);
        ASSERT_TRUE(up);
        peer = up->peer;
    }
    Result<Ticket> open(const Shape& shape, const LandingOptions& options = {}) {
        const Range range = shape.range(region);
        const auto ids = shape.ids();
        return node->open(peer, {{&range, 1}, ids}, options);
    }
    Command post_of(const Shape& shape, const Ticket& ticket, std::uint64_t pattern) {
        Command command;
        command.ask = Ask::Post;
        command.shape = shape;
        command.ticket = ticket;
        command.pattern = pattern;
        return command;
    }
    // Each block that is said to have landed has exactly the sender's bytes. Answers how many.
    std::uint32_t check_landed_blocks(const Shape& shape, const Ticket& ticket,
                                      std::uint64_t pattern) {
        const auto ids = shape.ids();
        std::uint32_t landed = 0;
        for (std::uint32_t i = 0; i < shape.blocks; ++i) {
            if (!node->block_landed(ticket, i)) continue;
            ++landed;
            EXPECT_EQ(wrong_in_block(memory, shape, i, ids[i], pattern), 0u) << "block " << i;
        }
        return landed;
    }
    void expect_a_whole_transfer(std::uint64_t pattern) {
        const Shape shape{20, 32768, pattern};
        const auto ticket = open(shape);
        ASSERT_TRUE(ticket);
        ASSERT_TRUE(sender->ask(post_of(shape, *ticket, pattern)).ok);
        const auto landed = node.wait(Event::Landing);
        ASSERT_TRUE(landed);
        EXPECT_EQ(landed->status, Status::Landed);
        EXPECT_EQ(wrong_bytes(memory, shape, pattern), 0u);
        node->release(*ticket);
        ASSERT_TRUE(sender->wait_completion());
    }

    Memory memory;
    Node node;
    RegionId region;
    std::unique_ptr<PeerProcess> sender;
    PeerId peer;
};

TEST_P(Failure, ARevokedLandingReportsTrulyWhatCame) {
    start();
    const Shape shape{300, 65536, 3};
    for (int i = 0; i < 40; ++i) {
        std::memset(memory.at(0), 0, kPoolBytes);
        const auto ticket = open(shape);
        ASSERT_TRUE(ticket);
        sender->tell(post_of(shape, *ticket, 50 + i));
        std::this_thread::sleep_for(std::chrono::microseconds(200 * i));
        node->revoke(*ticket);
        const auto ended = node.wait(Event::Landing);
        ASSERT_TRUE(ended);
        EXPECT_EQ(ended->status, Status::Revoked);
        check_landed_blocks(shape, *ticket, 50 + i);
        node->release(*ticket);
        const auto post = sender->wait_completion();
        ASSERT_TRUE(post);
        EXPECT_TRUE(post->status == Status::PeerRevoked || post->status == Status::Delivered);
    }
    expect_a_whole_transfer(99);
}

TEST_P(Failure, ARevokedPostEndsAndTheLaneGoesOn) {
    start();
    const Shape shape{300, 65536, 3};
    for (int i = 0; i < 20; ++i) {
        const auto ticket = open(shape);
        ASSERT_TRUE(ticket);
        sender->ask(post_of(shape, *ticket, i));
        Command revoke;
        revoke.ask = Ask::RevokePost;
        sender->ask(revoke);
        // What the sender does to its blocks behind the completion must not be taken for landed.
        ASSERT_TRUE(sender->wait_completion());
        Command overwrite;
        overwrite.ask = Ask::Fill;
        overwrite.shape = shape;
        overwrite.pattern = 0xBAD;
        sender->ask(overwrite);
        std::this_thread::sleep_for(milliseconds(5));
        node->revoke(*ticket);
        ASSERT_TRUE(node.wait(Event::Landing));
        check_landed_blocks(shape, *ticket, i);
        node->release(*ticket);
    }
    expect_a_whole_transfer(99);
}

TEST_P(Failure, AKilledPeerIsNoticedAndReportedTruly) {
    for (const int delay_us : {0, 1000, 3000, 8000}) {
        std::memset(memory.at(0), 0, kPoolBytes);
        start();
        if (HasFatalFailure()) return;
        const Shape shape{400, 65536, 5};
        const auto ticket = open(shape);
        ASSERT_TRUE(ticket);
        sender->tell(post_of(shape, *ticket, 8));
        std::this_thread::sleep_for(std::chrono::microseconds(delay_us));
        sender->kill();
        const auto down = node.wait(Event::PeerDown);
        ASSERT_TRUE(down);
        EXPECT_EQ(down->status, Status::PeerLost);
        const auto ended = node.wait(Event::Landing);
        ASSERT_TRUE(ended);
        EXPECT_TRUE(ended->status == Status::PeerLost || ended->status == Status::Landed);
        const auto landed = check_landed_blocks(shape, *ticket, 8);
        EXPECT_EQ(landed == shape.blocks, ended->status == Status::Landed);
        node->release(*ticket);
        EXPECT_FALSE(open(shape));  // not to that peer any more
    }
}

TEST_P(Failure, AStoppedPeerBlocksNobodyAndGoesOnWhenItResumes) {
    start();
    const Shape shape{200, 65536, 5};
    const auto ticket = open(shape);
    ASSERT_TRUE(ticket);
    sender->stop();
    sender->tell(post_of(shape, *ticket, 8));
    EXPECT_FALSE(node.wait(Event::Landing, milliseconds(30)));
    node->revoke(*ticket);
    const auto ended = node.wait(Event::Landing);
    ASSERT_TRUE(ended);
    EXPECT_EQ(ended->status, Status::Revoked);
    EXPECT_EQ(check_landed_blocks(shape, *ticket, 8), 0u);
    node->release(*ticket);
    sender->resume();
    const auto post = sender->wait_completion();
    ASSERT_TRUE(post);
    EXPECT_EQ(post->status, Status::PeerRevoked);
    expect_a_whole_transfer(9);
}

class Silence : public Failure {
protected:
    Silence() : Failure({.token = token(1), .silence_max = milliseconds(600)}) {}
};

TEST_P(Silence, AHungPeerIsLost) {
    start();
    const Shape shape{200, 65536, 5};
    const auto ticket = open(shape);
    ASSERT_TRUE(ticket);
    sender->stop();
    const auto down = node.wait(Event::PeerDown);
    ASSERT_TRUE(down);
    EXPECT_EQ(down->status, Status::PeerLost);
    EXPECT_EQ(down->error.os, ETIMEDOUT);
    const auto ended = node.wait(Event::Landing);
    ASSERT_TRUE(ended);
    EXPECT_EQ(ended->status, Status::PeerLost);
    node->release(*ticket);
    sender->resume();
}

TEST_P(Failure, APeerThatClosesEndsEverythingWithIt) {
    start();
    const Shape shape{10, 65536, 5};
    const auto first = open(shape), second = open(shape);
    ASSERT_TRUE(first && second);
    ASSERT_TRUE(sender->ask(post_of(shape, *first, 4)).ok);
    ASSERT_TRUE(node.wait(Event::Landing));
    Command close;
    close.ask = Ask::ClosePeer;
    ASSERT_TRUE(sender->ask(close).ok);
    const auto down = node.wait(Event::PeerDown);
    ASSERT_TRUE(down);
    const auto ended = node.wait(Event::Landing);
    ASSERT_TRUE(ended);
    EXPECT_EQ(ended->ticket, *second);
    EXPECT_EQ(ended->status, Status::PeerLost);
    EXPECT_EQ(wrong_bytes(memory, shape, 4), 0u);
}

TEST_P(Failure, AConnectionCanBeMadeAgain) {
    start();
    expect_a_whole_transfer(3);
    const Endpoint endpoint = sender->listen();  // listens already: answers nothing new
    node->close(peer);
    start();
    expect_a_whole_transfer(4);
}

TEST_P(Failure, ADeadlineEndsALandingThatNobodyFills) {
    start();
    const Shape shape{10, 65536, 5};
    const auto ticket =
        open(shape, {.deadline = MonotonicClock::now() + milliseconds(30), .user = 77});
    ASSERT_TRUE(ticket);
    const auto ended = node.wait(Event::Landing);
    ASSERT_TRUE(ended);
    EXPECT_EQ(ended->status, Status::TimedOut);
    EXPECT_EQ(ended->user, 77u);
    node->release(*ticket);
    // Too late: refused, and the sender is told.
    ASSERT_TRUE(sender->ask(post_of(shape, *ticket, 4)).ok);
    const auto post = sender->wait_completion();
    ASSERT_TRUE(post);
    EXPECT_EQ(post->status, Status::PeerRevoked);
}

TEST_P(Failure, MemoryInUseIsNotDeregistered) {
    start();
    const Shape shape{10, 65536, 5};
    const auto ticket = open(shape);
    ASSERT_TRUE(ticket);
    const auto refused = node->deregister_memory(region);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, Errc::LimitReached);
    node->revoke(*ticket);
    ASSERT_TRUE(node.wait(Event::Landing));
    EXPECT_TRUE(node->deregister_memory(region));
    EXPECT_FALSE(node->deregister_memory(region));
}

class Strangers : public Failure {};  // of transports that have a token

TEST_P(Strangers, AWrongTokenIsRefusedAndCounted) {
    Memory other_memory(1 << 20);
    TransportOptions wrong = patient();
    wrong.token = token(1);
    wrong.token[31] ^= std::byte{1};
    Node listener(GetParam(), patient(), {.threads = 1, .pin = false});
    Node stranger(GetParam(), wrong, {.threads = 1, .pin = false});
    const auto endpoint = listener->listen(listen_endpoint(GetParam()));
    ASSERT_TRUE(endpoint);
    ASSERT_TRUE(stranger->connect(*endpoint));
    std::optional<Completion> down;
    for (int i = 0; i < 2000 && !down; ++i) {
        listener.poll();
        down = stranger.wait(Event::PeerDown, milliseconds(5));
    }
    ASSERT_TRUE(down);
    EXPECT_EQ(down->status, Status::Refused);
    for (int i = 0; i < 2000 && listener->counters().tokens_refused == 0; ++i) listener.poll();
    EXPECT_EQ(listener->counters().tokens_refused, 1u);
    EXPECT_FALSE(listener.wait(Event::PeerUp, Duration::zero()));
}

TEST_P(Failure, TheTableOfLandingsIsBounded) {
    start();
    const Shape shape{1, 4096, 1};
    std::vector<Ticket> tickets;
    for (;;) {
        const auto ticket = open(shape);
        if (!ticket) {
            EXPECT_EQ(ticket.error().code, Errc::LimitReached);
            break;
        }
        tickets.push_back(*ticket);
    }
    EXPECT_EQ(tickets.size(), kLandingsMax);
    node->revoke(tickets[5]);
    ASSERT_TRUE(node.wait(Event::Landing));
    node->release(tickets[5]);
    EXPECT_TRUE(open(shape));
}

INSTANTIATE_TEST_SUITE_P(All, Failure, testing::Values("tcp", "shm", "mooncake"));
INSTANTIATE_TEST_SUITE_P(All, Strangers, testing::Values("tcp", "shm"));
INSTANTIATE_TEST_SUITE_P(All, Silence, testing::Values("tcp", "shm", "mooncake"));

}  // namespace
}  // namespace sluice::transport
