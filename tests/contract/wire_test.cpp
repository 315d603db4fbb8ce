// SPDX-License-Identifier: Apache-2.0
// Bytes that no peer of ours sends: nothing of them is written, and the connection that they came
// over is closed and counted.
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <thread>

#include "base/crc32c.h"
#include "contract/node.h"
#include "support/process.h"
#include "transport/stream/frame.h"

namespace sluice::transport {
namespace {

constexpr std::size_t kPool = 1 << 20;
constexpr std::uint32_t kBlock = 4096;

// A node, and a raw connection to it that has said a good hello.
class Wire : public testing::Test {
protected:
    Wire() : memory(kPool), node("tcp", patient(), {.threads = 1, .pin = false}) {
        region = *node->register_memory(memory.region());
        endpoint = *node->listen("127.0.0.1:0");
    }
    ~Wire() override {
        if (fd >= 0) ::close(fd);
    }

    void dial() {
        if (fd >= 0) ::close(fd);
        fd = test::connect_to(port_of(endpoint), 10);
        ASSERT_GE(fd, 0);
    }
    void greet() {
        dial();
        Hello hello;
        hello.node = 4711;
        hello.group = ++group;
        hello.token = token(1);
        put(write_hello(hello));
        const auto up = node.wait(Event::PeerUp);
        ASSERT_TRUE(up);
        EXPECT_EQ(up->peer_node, 4711u);
        peer = up->peer;
        HelloBytes answer;
        ASSERT_EQ(::recv(fd, answer.data(), answer.size(), MSG_WAITALL), 128);
        ASSERT_TRUE(read_hello(answer));
    }
    template <class T>
    void put(const T& value) {
        ASSERT_EQ(::send(fd, &value, sizeof value, MSG_NOSIGNAL),
                  static_cast<ssize_t>(sizeof value));
    }
    void put_bytes(std::span<const std::byte> bytes) {
        ASSERT_EQ(::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL),
                  static_cast<ssize_t>(bytes.size()));
    }

    Ticket open(std::uint32_t blocks) {
        const Range range{.region = region,
                          .piece_bytes = kBlock,
                          .offset = 64 * 1024,
                          .block_stride = kBlock,
                          .block_count = blocks};
        std::vector<std::uint32_t> ids;
        for (std::uint32_t i = 0; i < blocks; ++i) ids.push_back(i);
        return *node->open(peer, {{&range, 1}, ids}, {});
    }
    FrameHeader data(const Ticket& ticket, std::uint64_t offset, std::uint32_t length) {
        FrameHeader header;
        header.type = FrameType::Data;
        header.slot = ticket.slot;
        header.epoch = ticket.epoch;
        header.offset = offset;
        header.length = length;
        header.part = {1, 1};
        header.flags = kLastOfPart;
        return header;
    }
    void put_frame(FrameHeader header, std::uint32_t crc_change = 0) {
        const std::vector<std::byte> payload(header.length, std::byte{0x5A});
        seal(header);
        put(header);
        put_bytes(payload);
        put(FrameTrailer{crc32c(0, payload) ^ crc_change, FrameVerdict::Good});
    }
    // What the node says about the part that was sent.
    Status acknowledged() {
        FrameHeader ack;
        do {
            if (::recv(fd, &ack, sizeof ack, MSG_WAITALL) != static_cast<ssize_t>(sizeof ack) ||
                !check(ack))
                return Status::PeerLost;
        } while (ack.type == FrameType::Ping);
        EXPECT_EQ(ack.type, FrameType::Ack);
        EXPECT_EQ(ack.part, (Handle{1, 1}));
        return static_cast<Status>(ack.offset);
    }
    bool untouched() const {
        return std::all_of(memory.bytes().begin(), memory.bytes().end(),
                           [](std::byte b) { return b == std::byte{0}; });
    }
    void expect_violation(std::uint64_t before) {
        const auto down = node.wait(Event::PeerDown);
        ASSERT_TRUE(down);
        EXPECT_EQ(down->status, Status::Violation);
        const auto ended = node.wait(Event::Landing);
        ASSERT_TRUE(ended);
        EXPECT_EQ(ended->status, Status::PeerLost);
        node->release(ended->ticket);
        EXPECT_EQ(node->counters().violations, before + 1);
        EXPECT_TRUE(untouched());
    }

    Memory memory;
    Node node;
    RegionId region = 0;
    Endpoint endpoint;
    PeerId peer;
    std::uint64_t group = 0;
    int fd = -1;
};

TEST_F(Wire, AGoodFrameLandsAndIsAcknowledged) {
    greet();
    const Ticket ticket = open(4);
    put_frame(data(ticket, 0, 4 * kBlock));
    const auto landed = node.wait(Event::Landing);
    ASSERT_TRUE(landed);
    EXPECT_EQ(landed->status, Status::Landed);
    EXPECT_EQ(*memory.at(64 * 1024), std::byte{0x5A});
    EXPECT_EQ(*memory.at(64 * 1024 + 4 * kBlock), std::byte{0});
    EXPECT_EQ(acknowledged(), Status::Delivered);
}

TEST_F(Wire, FramesOutsideTheirRegionAreRefused) {
    const auto cases = [&](const Ticket& ticket) {
        std::vector<FrameHeader> bad;
        bad.push_back(data(ticket, 0, 5 * kBlock));             // beyond the end
        bad.push_back(data(ticket, 4 * kBlock, kBlock));        // begins there
        bad.push_back(data(ticket, UINT64_MAX - 100, kBlock));  // wraps
        bad.push_back(data(ticket, 100, kBlock));               // not a unit's border
        bad.push_back(data(ticket, 0, kBlock - 1));             // ends within one
        bad.push_back(data(ticket, 0, 0));
        bad.push_back(data(ticket, 0, kFrameBytesMax + 1));
        bad.push_back(data(ticket, 0, kBlock));
        bad.back().range = 1;
        bad.push_back(data(ticket, 0, kBlock));
        bad.back().slot = kLandingsMax;
        bad.push_back(data(ticket, 0, kBlock));
        bad.back().type = FrameType::Grant;
        bad.push_back(data(ticket, 0, kBlock));
        bad.back().type = static_cast<FrameType>(77);
        return bad;
    };
    std::uint64_t violations = 0;
    for (std::size_t i = 0; i < 11; ++i) {
        greet();
        if (HasFatalFailure()) return;
        FrameHeader header = cases(open(4))[i];
        seal(header);
        put(header);
        std::vector<std::byte> payload(kBlock, std::byte{0x5A});
        ::send(fd, payload.data(), payload.size(), MSG_NOSIGNAL);
        SCOPED_TRACE(i);
        expect_violation(violations++);
        if (HasFatalFailure()) return;
    }
}

TEST_F(Wire, ACorruptedHeaderIsRefused) {
    greet();
    FrameHeader header = data(open(4), 0, kBlock);
    seal(header);
    header.offset ^= 1ULL << 13;
    put(header);
    expect_violation(0);
}

TEST_F(Wire, ACorruptedPayloadIsNotCountedAsLanded) {
    greet();
    const Ticket ticket = open(4);
    FrameHeader first = data(ticket, 0, kBlock);
    first.flags = kChecksum;
    put_frame(first);
    FrameHeader second = data(ticket, kBlock, kBlock);
    second.flags = kChecksum;
    put_frame(second, 0x80);
    const auto ended = node.wait(Event::Landing);
    ASSERT_TRUE(ended);
    EXPECT_EQ(ended->status, Status::Corrupt);
    EXPECT_TRUE(node->block_landed(ticket, 0));
    EXPECT_FALSE(node->block_landed(ticket, 1));
    EXPECT_EQ(node->landed_units(ticket)[0], 1u);
    EXPECT_EQ(node->counters().checksum_errors, 1u);
    node->release(ticket);
}

TEST_F(Wire, AVoidFrameIsNotCountedAsLanded) {
    greet();
    const Ticket ticket = open(2);
    FrameHeader header = data(ticket, 0, kBlock);
    header.flags = 0;
    seal(header);
    put(header);
    put_bytes(std::vector<std::byte>(kBlock));
    put(FrameTrailer{0, FrameVerdict::Void});
    put_frame(data(ticket, kBlock, kBlock));
    EXPECT_EQ(acknowledged(), Status::Delivered);
    node->revoke(ticket);
    ASSERT_TRUE(node.wait(Event::Landing));
    EXPECT_FALSE(node->block_landed(ticket, 0));
    EXPECT_TRUE(node->block_landed(ticket, 1));
    node->release(ticket);
}

// A frame whose epoch is over, in a slot that carries another transfer now.
TEST_F(Wire, AnOldEpochIsReadAndDropped) {
    greet();
    const Ticket old = open(4);
    node->revoke(old);
    ASSERT_TRUE(node.wait(Event::Landing));
    node->release(old);
    const Ticket now = open(4);
    ASSERT_EQ(now.slot, old.slot);
    ASSERT_NE(now.epoch, old.epoch);
    put_frame(data(old, 0, 4 * kBlock));
    EXPECT_EQ(acknowledged(), Status::PeerRevoked);
    EXPECT_TRUE(untouched());
    EXPECT_EQ(node->counters().bytes_dropped, 4u * kBlock);
    put_frame(data(now, 0, 4 * kBlock));  // the lane goes on
    const auto landed = node.wait(Event::Landing);
    ASSERT_TRUE(landed);
    EXPECT_EQ(landed->status, Status::Landed);
}

TEST_F(Wire, HellosThatAreNoneAreRefused) {
    for (int i = 0; i < 4; ++i) {
        dial();
        Hello hello;
        hello.node = 5;
        hello.token = token(1);
        if (i == 0) hello.version = kWireVersion + 1;
        if (i == 1) hello.token[0] ^= std::byte{1};
        HelloBytes bytes = write_hello(hello);
        if (i == 2) bytes[50] ^= std::byte{4};
        if (i == 3) std::fill(bytes.begin(), bytes.end(), std::byte{'G'});
        put(bytes);
        HelloBytes answer{};
        ssize_t got = -1;
        for (int turn = 0; turn < 20'000 && got < 0; ++turn) {
            node.poll();  // the owner adopts the connection
            got = ::recv(fd, answer.data(), answer.size(), MSG_DONTWAIT);
            if (got < 0 && errno != EAGAIN) break;
            if (got < 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
        }
        if (i < 2) {
            ASSERT_EQ(got, 128);
            const auto said = read_hello(answer);
            ASSERT_TRUE(said);
            EXPECT_EQ(said->verdict,
                      i == 0 ? HelloVerdict::WrongVersion : HelloVerdict::WrongToken);
            EXPECT_EQ(said->token, (std::array<std::byte, 32>{}));  // ours is not shown
        } else {
            EXPECT_LE(got, 0);
        }
    }
    EXPECT_EQ(node->counters().tokens_refused, 1u);
    EXPECT_FALSE(node.wait(Event::PeerUp, Duration::zero()));
}

}  // namespace
}  // namespace sluice::transport
