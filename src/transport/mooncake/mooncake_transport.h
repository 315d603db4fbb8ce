// SPDX-License-Identifier: Apache-2.0
// Mooncake's transfer engine over TCP as a transport: to engines of vLLM's workers as one of them,
// and to ourselves.
//
// listen() opens two ports, the handshake's (which is announced) and one for data. connect() asks a
// peer's handshake for its segment and opens connections to its data port; whoever asks us gets
// connections as well, so that either end may write and either learns at once that the other's
// process is gone. Only a peer's own address is connected to, never one that it names.
//
// What this wire cannot give, and what we do. "Foreign" is Mooncake's own engine.
//
//   fence
//     between ours         yes: as a foreign sender to us
//     foreign sends to us  yes: each landing has addresses of its own, given out once, so nothing
//                          that is late finds one, and no block need be quarantined
//     we send to foreign   no: what has left may land until it is answered or its connection has
//                          been drained; a revoked write() ends only then
//   which blocks landed
//     between ours         exact
//     foreign sends to us  those that one write covered whole
//     we send to foreign   the post as a whole
//   "delivered" means that it was applied
//     between ours         yes
//     foreign sends to us  v2 is told by a status; v1 has none
//     we send to foreign   v2 by its status, v1 by a read behind the writes
//   token
//     all                  none: who knows an open address may write there. The addresses begin at
//                          a random place and have random gaps
//   checksum
//     all                  TCP's own
//   a process that died is noticed
//     all                  at once
//   ... one that hangs
//     between ours         after silence_max
//     with foreign ones    after silence_max, if it has registered memory that can be asked for;
//                          else landings and posts end at their deadlines
//   reading the pool
//     all                  by nobody: reads are refused
//
// Threads: the owner. Owns, costs: see lane_transport.h.
#pragma once

#include "transport/lane_transport.h"
#include "transport/mooncake/address_space.h"
#include "transport/mooncake/handshake_lane.h"

namespace sluice::transport {

// Memory of a peer's, by its own addresses.
struct RemoteRegion {
    std::uint64_t address = 0;
    std::uint64_t bytes = 0;
};

class MooncakeTransport final : public LaneTransport {
public:
    MooncakeTransport(Senders& senders, const TransportOptions& options);
    ~MooncakeTransport() override { shut_down(); }

    static const Capabilities kCapabilities;
    const Capabilities& capabilities() const override { return kCapabilities; }

    Result<Endpoint> listen(const Endpoint& endpoint) override;
    Result<PeerId> connect(const Endpoint& endpoint) override;

    // -- with engines that know no tickets
    // A landing for whoever writes to its addresses, connected yet or not.
    Result<Ticket> open_to_any(const Batch& batch, const LandingOptions& options);
    // Where range `range` of a landing begins, for a message that names addresses.
    static std::uint64_t address_of(const Ticket& ticket, std::uint32_t range) {
        return mooncake::AddressSpace::address_of(ticket.epoch, range, 0);
    }
    // A post into the peer's memory: `to` has as many blocks of the same size in each range, and
    // its regions are indexes of `remote`.
    Result<PostId> write(PeerId peer, const Batch& from, const Batch& to,
                         std::span<const RemoteRegion> remote, const PostOptions& options);

private:
    // Beside Peer, by the index of its handle.
    struct Known {
        std::uint32_t number = 0;  // what we tell it to call itself
        io::Address host;          // where it really is; the data port's
        mooncake::Segment segment;
    };

    void on_accepted(const Lane& listener, int fd) override;
    void on_up(PeerLane& lane, LaneRecord& record) override;
    std::uint64_t new_epoch(const Placement& placement) override;
    void on_landing_open(std::uint32_t slot, std::uint64_t epoch,
                         const Placement& placement) override;
    void on_landing_closed(std::uint32_t slot) override;
    bool stops_reading_at_once() const override { return false; }

    void on_answer(mooncake::HandshakeLane& lane, PeerId id);
    void on_caller(mooncake::HandshakeLane& lane);
    void on_greeted(LaneRecord& record, std::uint32_t number);
    void on_connected(PeerId id);
    PeerId add_known(bool connecting, const io::Address& host);
    void open_lanes(PeerId id);
    const Region* find_remote(RegionId id);
    Result<void> listen_for_data(const io::Address& host);
    mooncake::Segment segment_for(std::uint32_t number) const;

    mooncake::AddressSpace space_;
    std::vector<Region> remote_;  // of the write() under way
    std::vector<Known> known_{kPeersMax};
    std::uint32_t next_number_ = 0;
    io::Address handshake_, data_;  // where we listen
    const Lane* handshake_listener_ = nullptr;
};

}  // namespace sluice::transport
