// SPDX-License-Identifier: Apache-2.0
// A short transfer behind a long one: how many slices of the long one go before it is through.
//
// The peer is a raw connection that reads when the test says so. The sender fills the socket's
// buffers with a transfer of 4 GiB and stops; then a short one is posted; the order of the frames
// that come after those already sent is the answer. Slices are counted, time is not.
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <thread>

#include "contract/node.h"
#include "support/process.h"
#include "transport/stream/frame.h"

namespace sluice::transport {
namespace {

constexpr std::uint32_t kBlock = 256 * 1024;
constexpr std::uint32_t kBlocksThere = 16;
constexpr std::uint32_t kLongBlocks = 16384;  // 4 GiB: every block is sent a thousand times
constexpr std::uint32_t kShortBlocks = 4;     // 1 MiB
constexpr Ticket kLong{.slot = 1, .epoch = 11}, kShort{.slot = 2, .epoch = 12};
// Of one lane and two transfers: the slice under way, and one for each of the short one's two.
constexpr std::uint64_t kFewSlices = 4;

class Fairness : public testing::Test {
protected:
    Fairness()
        : memory(kBlocksThere * kBlock), node("tcp", patient(), {.threads = 1, .pin = false}) {
        region = *node->register_memory(memory.region());
        const Endpoint endpoint = *node->listen("127.0.0.1:0");
        constexpr int kSmall = 256 * 1024;
        fd = test::connect_to(port_of(endpoint), 20, kSmall);
        EXPECT_GE(fd, 0);
        Hello hello;
        hello.node = 4711;
        hello.group = 1;
        hello.token = token(1);
        const HelloBytes bytes = write_hello(hello);
        EXPECT_EQ(::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL), 128);
        if (const auto up = node.wait(Event::PeerUp)) peer = up->peer;
        HelloBytes answer;
        EXPECT_EQ(::recv(fd, answer.data(), answer.size(), MSG_WAITALL), 128);
    }
    ~Fairness() override { ::close(fd); }

    void post(const Ticket& ticket, std::uint32_t blocks, Priority priority) {
        std::vector<std::uint32_t> ids;
        for (std::uint32_t i = 0; i < blocks; ++i) ids.push_back(i % kBlocksThere);
        const Range range{
            .region = region, .piece_bytes = kBlock, .block_stride = kBlock, .block_count = blocks};
        PostOptions options;
        options.priority = priority;
        ASSERT_TRUE(node->post(peer, ticket, {{&range, 1}, ids}, options));
    }
    // Until the sender can send no more. Answers how many frames are out.
    std::uint64_t frames_when_full() {
        std::uint64_t frames = 0;
        for (int unchanged = 0, looks = 0; unchanged < 5; ++looks) {
            if (looks == 1000) {
                ADD_FAILURE() << "it does not come to rest";
                break;
            }
            std::this_thread::sleep_for(std::chrono::milliseconds(20));
            const std::uint64_t now = node->counters().frames_sent;
            unchanged = now == frames && now > 0 ? unchanged + 1 : 0;
            frames = now;
        }
        return frames;
    }
    // The next data frame's slot.
    std::optional<std::uint32_t> next_frame() {
        FrameHeader header;
        do {
            if (::recv(fd, &header, sizeof header, MSG_WAITALL) !=
                    static_cast<ssize_t>(sizeof header) ||
                !check(header))
                return {};
        } while (header.type != FrameType::Data);
        std::vector<std::byte> payload(header.length + kTrailerBytes);
        if (::recv(fd, payload.data(), payload.size(), MSG_WAITALL) !=
            static_cast<ssize_t>(payload.size()))
            return {};
        if ((header.flags & kLastOfPart) != 0) ended = header.slot;
        return header.slot;
    }
    // Slices of the long transfer from the short one's post until its last byte is out.
    std::uint64_t slices_before_the_short_one(Priority of_long, Priority of_short) {
        post(kLong, kLongBlocks, of_long);
        const std::uint64_t out = frames_when_full();
        post(kShort, kShortBlocks, of_short);
        std::uint64_t slices = 0;
        for (std::uint64_t i = 0; ended != kShort.slot; ++i) {
            const auto slot = next_frame();
            if (!slot) {
                ADD_FAILURE() << "the connection ended after " << i << " frames";
                break;
            }
            slices += i >= out && *slot == kLong.slot;
        }
        EXPECT_LT(out, 100u);  // the long one has hardly begun
        return slices;
    }

    Memory memory;
    Node node;
    RegionId region = 0;
    PeerId peer;
    int fd = -1;
    std::uint32_t ended = 0;
};

TEST_F(Fairness, OneMegabyteWaitsForAFewSlicesOfFourGigabytes) {
    const auto slices = slices_before_the_short_one(Priority::Normal, Priority::Normal);
    RecordProperty("slices", static_cast<int>(slices));
    EXPECT_LE(slices, kFewSlices);
}

TEST_F(Fairness, AnUrgentOneWaitsForTheSliceUnderWay) {
    const auto slices = slices_before_the_short_one(Priority::Normal, Priority::Urgent);
    EXPECT_LE(slices, 2u);  // that one, and a low one's turn
}

TEST_F(Fairness, ABackgroundOneIsNotStarved) {
    const auto slices = slices_before_the_short_one(Priority::Urgent, Priority::Background);
    EXPECT_GT(slices, kFewSlices);
    EXPECT_LE(slices, 2u * 16 + 1);
}

}  // namespace
}  // namespace sluice::transport
