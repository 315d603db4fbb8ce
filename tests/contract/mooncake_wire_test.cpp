// SPDX-License-Identifier: Apache-2.0
// Mooncake's wire from a raw socket: what lands, what is refused, and that nothing else is written.
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <thread>

#include "contract/node.h"
#include "support/process.h"
#include "transport/mooncake/mooncake_transport.h"
#include "transport/mooncake/segment.h"
#include "transport/mooncake/wire.h"

namespace sluice::transport {
namespace {

using namespace mooncake;
using std::chrono::milliseconds;

constexpr std::size_t kPool = 1 << 20;
constexpr std::uint32_t kBlock = 4096;
constexpr std::uint64_t kAt = 64 * 1024;  // of the first block, in the pool

class MooncakePort : public testing::Test {
protected:
    MooncakePort() : memory(kPool), node("mooncake", patient(), {.threads = 1, .pin = false}) {
        region = *node->register_memory(memory.region());
        endpoint = *node->listen("127.0.0.1:0");
    }
    ~MooncakePort() override { hang_up(); }

    MooncakeTransport& transport() { return static_cast<MooncakeTransport&>(*node); }
    void hang_up() {
        if (fd >= 0) ::close(fd);
        fd = -1;
    }
    void dial(int port) {
        hang_up();
        fd = test::connect_to(port);
        ASSERT_GE(fd, 0);
    }
    void dial_handshake() { dial(port_of(endpoint)); }
    // To where an engine is told that the data goes.
    void dial_data() {
        if (data_port == 0) {
            dial_handshake();
            put(write_handshake(HandshakeType::Metadata,
                                R"({"name":"127.0.0.1:1","protocol":"tcp","tcp_data_port":1})"));
            HandshakeReader reader;
            std::string got;
            while (reader.take(got) == HandshakeReader::State::NeedMore) {
                got = get(1);
                ASSERT_FALSE(got.empty());
            }
            const auto segment = read_segment(reader.json());
            ASSERT_TRUE(segment) << segment.error();
            EXPECT_EQ(segment->version, 2u);
            EXPECT_EQ(segment->name, endpoint);
            data_port = segment->data_port;
            alive_address = segment->first_address;
        }
        dial(data_port);
    }
    template <class Bytes>
    void put(const Bytes& bytes) {
        ASSERT_EQ(::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL),
                  static_cast<ssize_t>(bytes.size()));
    }
    // Up to that many bytes, with the node's owner working; less: the connection has ended.
    std::string get(std::size_t bytes) {
        std::string got;
        for (int turn = 0; turn < 20'000 && got.size() < bytes; ++turn) {
            node.poll();
            std::array<char, 256> some;
            const ssize_t n =
                ::recv(fd, some.data(), std::min(some.size(), bytes - got.size()), MSG_DONTWAIT);
            if (n > 0) {
                got.append(some.data(), static_cast<std::size_t>(n));
            } else if (n == 0 || errno != EAGAIN) {
                break;
            } else {
                std::this_thread::sleep_for(std::chrono::microseconds(200));
            }
        }
        return got;
    }
    std::optional<Answer> answer() {
        const std::string got = get(kStatusBytes);
        StatusWord word{};
        if (got.size() != word.size()) return std::nullopt;
        std::memcpy(word.data(), got.data(), word.size());
        return read_status(word);
    }
    void write(std::uint64_t address, std::uint64_t bytes, bool acknowledged = true) {
        put(write_request({bytes, address, Opcode::Write, acknowledged}));
        put(std::vector<std::byte>(bytes, std::byte{0x5A}));
    }
    Range range(std::uint32_t blocks) const {
        return {.region = region,
                .piece_bytes = kBlock,
                .offset = kAt,
                .block_stride = kBlock,
                .block_count = blocks};
    }
    Ticket open(std::uint32_t blocks, std::uint32_t ranges = 1) {
        std::vector<Range> all(ranges, range(blocks));
        for (std::uint32_t i = 0; i < ranges; ++i) all[i].offset += i * 32u * kBlock;
        std::vector<std::uint32_t> ids;
        for (std::uint32_t i = 0; i < blocks; ++i) ids.push_back(blocks - 1 - i);
        return *transport().open_to_any({all, ids}, {});
    }
    bool untouched() const {
        return std::all_of(memory.bytes().begin(), memory.bytes().end(),
                           [](std::byte b) { return b == std::byte{0}; });
    }
    std::uint64_t violations(std::uint64_t at_least) {
        for (int i = 0; i < 5000 && node->counters().violations < at_least; ++i) {
            node.poll();
            std::this_thread::sleep_for(milliseconds(1));
        }
        return node->counters().violations;
    }

    Memory memory;
    Node node;
    RegionId region = 0;
    Endpoint endpoint;
    std::uint16_t data_port = 0;
    std::uint64_t alive_address = 0;
    int fd = -1;
};

TEST_F(MooncakePort, AWriteLandsInItsBlocksAndIsAnswered) {
    dial_data();
    const Ticket ticket = open(4);
    const std::uint64_t at = MooncakeTransport::address_of(ticket, 0);
    write(at + kBlock, 2 * kBlock);
    EXPECT_EQ(answer(), Answer::Ok);
    EXPECT_EQ(*memory.at(kAt), std::byte{0});  // block 3 of the landing is the pool's first
    EXPECT_EQ(*memory.at(kAt + kBlock), std::byte{0x5A});
    EXPECT_EQ(*memory.at(kAt + 3 * kBlock - 1), std::byte{0x5A});
    EXPECT_EQ(*memory.at(kAt + 3 * kBlock), std::byte{0});
    write(at, kBlock, false);  // v1: no answer
    write(at + 3 * kBlock, kBlock);
    EXPECT_EQ(answer(), Answer::Ok);
    const auto landed = node.wait(Event::Landing);
    ASSERT_TRUE(landed);
    EXPECT_EQ(landed->status, Status::Landed);
    for (std::uint32_t i = 0; i < 4; ++i) EXPECT_TRUE(node->block_landed(ticket, i));
    node->release(ticket);
}

TEST_F(MooncakePort, BytesMayBeCutAnywhere) {
    dial_data();
    const int yes = 1;
    setsockopt(fd, IPPROTO_TCP, 1 /* TCP_NODELAY */, &yes, sizeof yes);
    const Ticket ticket = open(1, 2);
    std::string bytes;
    for (std::uint32_t i = 0; i < 2; ++i) {
        const auto header = write_request({kBlock, MooncakeTransport::address_of(ticket, i)});
        bytes.append(reinterpret_cast<const char*>(header.data()), header.size());
        bytes.append(kBlock, static_cast<char>('a' + i));
    }
    // Each header byte by byte, and the border of payload and header in every way.
    for (std::size_t at = 0, step = 1; at < bytes.size(); at += step) {
        const std::size_t in_write = at % (24 + kBlock);
        step = in_write < 40 || in_write > kBlock ? 1 : 997;
        step = std::min(step, bytes.size() - at);
        put(std::string_view(bytes).substr(at, step));
        std::this_thread::sleep_for(std::chrono::microseconds(20));
    }
    const auto landed = node.wait(Event::Landing);
    ASSERT_TRUE(landed);
    EXPECT_EQ(landed->status, Status::Landed);
    EXPECT_EQ(*memory.at(kAt), std::byte{'a'});
    EXPECT_EQ(*memory.at(kAt + kBlock - 1), std::byte{'a'});
    EXPECT_EQ(*memory.at(kAt + 32 * kBlock), std::byte{'b'});
    node->release(ticket);
}

TEST_F(MooncakePort, AddressesThatAreNobodysCloseTheConnectionAndAreCounted) {
    const Ticket ticket = open(4, 2);
    const std::uint64_t at = MooncakeTransport::address_of(ticket, 0);
    const std::uint64_t second = MooncakeTransport::address_of(ticket, 1);
    ASSERT_GE(second - at, 4u * kBlock);
    dial_data();
    const Request bad[] = {
        {kBlock, 0},
        {kBlock, reinterpret_cast<std::uintptr_t>(memory.at(kAt))},  // a real one
        {kBlock, AddressSpace::kBegin},
        {1, alive_address},
        {4 * kBlock + 1, at},
        {2, at + 4 * kBlock - 1},
        {kBlock, second + 4 * kBlock},
        {1, AddressSpace::kEnd - 1},
        {kBlock, UINT64_MAX - 100},
        {0, at},
        {kRequestBytesMax, at},
        {kRequestBytesMax + 1, at},
        {kBlock, at, Opcode::Read},  // nobody reads the pool
        {2, alive_address, Opcode::Read},
        {1, AddressSpace::kBegin + AddressSpace::kAlive, Opcode::Read},
        {kBlock, at, static_cast<Opcode>(7)},
    };
    std::uint64_t count = 0;
    for (const bool acknowledged : {true, false})
        for (Request request : bad) {
            SCOPED_TRACE(testing::Message() << std::hex << request.address << " " << request.bytes);
            dial_data();
            request.acknowledged = acknowledged;
            put(write_request(request));
            const std::vector<std::byte> payload(kBlock, std::byte{0x5A});
            ::send(fd, payload.data(), payload.size(), MSG_NOSIGNAL);
            const bool readable =
                request.opcode <= Opcode::Write && request.bytes <= kRequestBytesMax;
            if (acknowledged && readable) {
                EXPECT_EQ(answer(), Answer::AddressRefused);
            }
            EXPECT_EQ(get(1), "");
            EXPECT_EQ(violations(count + 1), count + 1);
            ++count;
        }
    EXPECT_TRUE(untouched());
    EXPECT_EQ(node->counters().bytes_landed, 0u);
    node->revoke(ticket);
    ASSERT_TRUE(node.wait(Event::Landing));
    node->release(ticket);
}

// Addresses are never given out twice, so what comes late finds nothing, whoever has the slot now.
TEST_F(MooncakePort, AWriteToALandingThatHasClosedIsDroppedAndRefused) {
    dial_data();
    const Ticket old = open(4);
    const std::uint64_t late = MooncakeTransport::address_of(old, 0);
    // Half of one is there when the landing closes.
    put(write_request({kBlock, late, Opcode::Write, true}));
    put(std::vector<std::byte>(kBlock / 2, std::byte{0x5A}));
    for (int i = 0; i < 50; ++i) {
        node.poll();
        std::this_thread::sleep_for(milliseconds(1));
    }
    node->revoke(old);
    ASSERT_TRUE(node.wait(Event::Landing));
    EXPECT_FALSE(node->block_landed(old, 0));
    node->release(old);
    const Ticket now = open(4);
    ASSERT_EQ(now.slot, old.slot);
    ASSERT_NE(now.epoch, old.epoch);
    std::memset(memory.at(0), 0, kPool);
    put(std::vector<std::byte>(kBlock / 2, std::byte{0x5A}));
    EXPECT_EQ(answer(), Answer::AddressRefused);
    write(late + kBlock, 3 * kBlock);
    EXPECT_EQ(answer(), Answer::AddressRefused);
    write(late, kBlock, false);
    EXPECT_TRUE(untouched());
    write(MooncakeTransport::address_of(now, 0), 4 * kBlock);  // the connection goes on
    EXPECT_EQ(answer(), Answer::Ok);
    const auto landed = node.wait(Event::Landing);
    ASSERT_TRUE(landed);
    EXPECT_EQ(landed->status, Status::Landed);
    EXPECT_GE(node->counters().bytes_dropped, kBlock / 2 + 4u * kBlock);  // as much as came late
    EXPECT_LE(node->counters().bytes_dropped, 5u * kBlock);
    EXPECT_EQ(node->counters().violations, 0u);
    node->release(now);
}

TEST_F(MooncakePort, OnlyWhatOneWriteHasCoveredWholeIsSaidToHaveLanded) {
    dial_data();
    const Ticket ticket = open(4);
    const std::uint64_t at = MooncakeTransport::address_of(ticket, 0);
    write(at + 1, 2 * kBlock);  // all of block 1, parts of 0 and 2
    EXPECT_EQ(answer(), Answer::Ok);
    write(at, 1);
    EXPECT_EQ(answer(), Answer::Ok);
    put(write_request({kBlock, at + 3 * kBlock, Opcode::Write, true}));
    put(std::vector<std::byte>(kBlock - 1));
    hang_up();  // in the middle of block 3
    std::this_thread::sleep_for(milliseconds(20));
    node->revoke(ticket);
    ASSERT_TRUE(node.wait(Event::Landing));
    EXPECT_FALSE(node->block_landed(ticket, 0));
    EXPECT_TRUE(node->block_landed(ticket, 1));
    EXPECT_FALSE(node->block_landed(ticket, 2));
    EXPECT_FALSE(node->block_landed(ticket, 3));
    node->release(ticket);
}

TEST_F(MooncakePort, OneThatAsksWhetherWeLiveIsAnswered) {
    dial_data();
    put(write_request({1, AddressSpace::kBegin, Opcode::Read, true}));
    EXPECT_EQ(answer(), Answer::Ok);
    EXPECT_EQ(get(1), std::string(1, '\0'));
    put(write_request({1, AddressSpace::kBegin, Opcode::Read, false}));
    EXPECT_EQ(get(1), std::string(1, '\0'));
}

TEST_F(MooncakePort, HandshakesThatAreNoneAreClosedAndCounted) {
    const std::string bad[] = {
        std::string(8, '\xFF') + "\1{}",
        write_handshake(HandshakeType::Metadata, "no JSON"),
        write_handshake(HandshakeType::Metadata, R"({"name":"a","protocol":"rdma"})"),
        std::string("\x05\0\0\0\0\0\0\0{\"a\":", 13),
        std::string("GET / HTTP/1.1\r\n\r\n"),
    };
    std::uint64_t count = 0;
    for (const std::string& bytes : bad) {
        dial_handshake();
        put(bytes);
        EXPECT_EQ(get(1), "");
        EXPECT_EQ(violations(count + 1), count + 1);
        ++count;
    }
    dial_handshake();
    put(write_handshake(HandshakeType::Probe, "{}\n"));
    const std::string ok = write_handshake(HandshakeType::Probe, "{\"status\":\"success\"}\n");
    EXPECT_EQ(get(ok.size() + 1), ok);
    EXPECT_FALSE(node.wait(Event::PeerUp, Duration::zero()));
}

}  // namespace
}  // namespace sluice::transport
