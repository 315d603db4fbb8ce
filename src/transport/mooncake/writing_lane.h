// SPDX-License-Identifier: Apache-2.0
// Writes that go: many under way at a time, answered in their order.
//
// A write is what is contiguous in the peer's addresses, up to frame_bytes_max; several of one part
// leave in one vectored send, gathered from the blocks themselves. v2 answers each. v1 answers
// none, so a read of one byte behind a part's last write stands in for it: the peer serves a
// connection's requests in order. The same read is how we know that an idle peer is alive.
//
// The wire has no way to take a write back, so when a post is revoked the rest of what is under way
// is copied and leaves from the copy: the blocks are their owner's at once and the lane goes on.
// A revoked post to addresses (not to a landing of ours, which would refuse what comes late) ends
// when every write of it has been answered, or the connection is lost.
//
// Threads: the lane's. Owns: the socket. Costs: per send up to kWritesPerSend writes; nothing is
// allocated once it has grown. Errors: Down.
#pragma once

#include "transport/mooncake/mooncake_lane.h"
#include "transport/mooncake/segment.h"
#include "transport/mooncake/wire.h"
#include "transport/stream/iov_window.h"
#include "transport/stream/parts.h"

namespace sluice::transport::mooncake {

inline constexpr std::size_t kWritesPerSend = 32;
inline constexpr std::uint32_t kUnansweredMax = 1024;  // of one lane

class WritingLane final : public MooncakeLane {
public:
    // `keeps_alive`: asks an idle peer whether it is there.
    WritingLane(const LaneContext& context, int fd, const Segment& peer, bool keeps_alive);

    bool step() override;
    void tick() override;

private:
    enum class State : std::uint8_t { Connecting, Asking, Up };
    struct Expected {
        bool alive = false;  // an answer to our question, not to a write
        Handle part;
    };

    void on_job(const LaneJob& job) override;
    void on_breaking(Status status) override;

    // -- sending
    bool send_some();
    bool next_send();
    bool begin_writes(Part& part);
    void add_write(Part& part, std::uint64_t address, std::uint64_t bytes);
    void ask(Handle part);
    void refill();
    void finish_send();
    void copy_rest();
    void revoke(Post& post);
    void end_part(Part& part, Status status);
    bool may_send() const { return expected_count_ < kUnansweredMax; }

    // -- answers
    bool receive_some();
    bool take_answer();
    void answered(const Expected& expected, Answer answer);
    void expect(const Expected& expected);

    const Segment peer_;
    const bool acknowledged_;  // v2
    const bool keeps_alive_;
    const bool can_ask_;
    State state_ = State::Connecting;

    std::array<Expected, kUnansweredMax> expected_;
    std::uint32_t expected_first_ = 0, expected_count_ = 0;
    std::array<std::byte, 4096> in_;
    std::size_t in_begin_ = 0, in_end_ = 0;

    struct Send {
        bool active = false;
        Part* part = nullptr;  // none: it has ended, or a question
        Post* post = nullptr;  // while blocks are read
        std::uint64_t epoch = 0;
        Place place;  // of what has not been described yet
        std::uint64_t describe_left = 0;
        std::uint64_t bytes = 0;
        std::size_t headers = 0;
        IovWindow window;
    } tx_;
    std::array<RequestHeader, kWritesPerSend> headers_;
    std::vector<std::byte> rest_;
    std::vector<Handle> questions_;  // waiting to be sent
    Parts parts_;
};

}  // namespace sluice::transport::mooncake
