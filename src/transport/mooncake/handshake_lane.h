// SPDX-License-Identifier: Apache-2.0
// One handshake, as who asks or as who answers.
//
// Asking: sends our segment, says Up when the peer's has come. Answering: says Up when a caller's
// segment has come; the owner then sets the reply and gives the job Send. Probes are answered here.
// Either way the lane is of no use afterwards, and one that takes longer than connect_timeout ends.
//
// Threads: the lane's; what the owner may use is said below. Owns: the socket. Costs: one
// connection, as the engine's own. Errors: Down; Violation for bytes that are no handshake.
#pragma once

#include "io/address.h"
#include "transport/mooncake/mooncake_lane.h"
#include "transport/mooncake/segment.h"
#include "transport/mooncake/wire.h"

namespace sluice::transport::mooncake {

class HandshakeLane final : public MooncakeLane {
public:
    // Asks: `to` is where the socket is being connected to.
    HandshakeLane(const LaneContext& context, int fd, const io::Address& to, const Segment& ours);
    // Answers.
    HandshakeLane(const LaneContext& context, int fd, const io::Address& from);

    bool step() override;
    void tick() override;

    // -- the owner
    bool asking() const { return asking_; }
    const io::Address& other() const { return other_; }
    const Segment& theirs() const { return theirs_; }  // after Up
    // Before the job Send, after Up.
    void set_reply(const Segment& ours);

private:
    void on_job(const LaneJob& job) override;
    void on_message();
    bool read_some();
    bool write_some();

    const bool asking_;
    bool connected_;
    bool got_ = false;  // the other's message
    bool sent_ = false;
    const io::Address other_;
    std::string reply_;  // the owner's until the job Send
    std::string out_;
    std::size_t out_sent_ = 0;
    HandshakeReader reader_;
    Segment theirs_;
};

}  // namespace sluice::transport::mooncake
