// SPDX-License-Identifier: Apache-2.0
// Writes that come: each goes straight into the blocks of the landing that its address names, while
// that landing's gate is open.
//
// A write to a landing that has closed is read, dropped and refused (v2), and the connection goes
// on; one to an address that was never given out, or across a landing's end, closes it, counted as
// a violation. Reads are answered in the window of addresses that say "alive" and nowhere else:
// nobody reads the pool. Nothing on this wire says who writes, so anybody may who knows an open
// address.
//
// Only writes that have come whole are marked, by the units that they cover whole. Threads: the
// lane's. Owns: the socket. Costs: about one call a write. Errors: Down.
#pragma once

#include "transport/mooncake/address_space.h"
#include "transport/mooncake/mooncake_lane.h"
#include "transport/mooncake/wire.h"
#include "transport/stream/iov_window.h"

namespace sluice::transport::mooncake {

class LandingLane final : public MooncakeLane {
public:
    LandingLane(const LaneContext& context, const AddressSpace& space, int fd)
        : MooncakeLane(context, Role::Landing, fd), space_(space) {
        // More than the answers of one turn, so that they need not grow in the middle of transfers.
        out_.reserve(256);
        going_.reserve(256);
    }

    bool step() override;
    void tick() override;

    // -- the owner, after Up: which of its peers this says it is
    std::uint32_t said_peer() const { return said_peer_; }

private:
    enum class Into : std::uint8_t { Header, Blocks, Nowhere };

    void on_job(const LaneJob&) override {}
    bool receive_some();
    void refill();
    void drop_payload();
    void begin_request();
    void begin_read();
    void begin_write();
    void finish_write(bool inside);
    void answer(Answer answer);
    void refuse();
    bool flush();

    const AddressSpace& space_;
    Into into_ = Into::Header;
    Request request_;
    AddressSpace::Found found_;  // the last one, too: writes come in runs
    Place place_;                // of what has not been described yet
    std::uint64_t describe_left_ = 0;
    std::uint64_t payload_left_ = 0;
    IovWindow window_;
    RequestHeader header_{};
    std::size_t header_got_ = 0;
    bool spoken_ = false;  // has sent a whole request
    std::uint32_t said_peer_ = 0;
    std::vector<std::byte> out_, going_;
    std::size_t going_sent_ = 0;
};

// Time for a connection to say anything at all, and for a request under way to move. The engine's
// own wait for a status is 30 s.
inline constexpr Duration kStallMax = std::chrono::seconds(60);

}  // namespace sluice::transport::mooncake
