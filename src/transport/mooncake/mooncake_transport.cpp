// SPDX-License-Identifier: Apache-2.0
#include "transport/mooncake/mooncake_transport.h"

#include <sys/socket.h>
#include <unistd.h>

#include <functional>

#include "base/cpu.h"
#include "transport/mooncake/landing_lane.h"
#include "transport/mooncake/writing_lane.h"
#include "transport/stream/listen_lane.h"
#include "transport/tcp/sockets.h"

namespace sluice::transport {

using mooncake::HandshakeLane;
using mooncake::LandingLane;
using mooncake::MooncakeLane;
using mooncake::Role;
using mooncake::Segment;
using mooncake::WritingLane;

const Capabilities MooncakeTransport::kCapabilities{
    .name = "mooncake", .fenced = true, .foreign = true};
namespace {

constexpr std::uint16_t kVersion = 2;
constexpr std::uint32_t kNumberMax = 1u << 30;

// Of an engine that has no number of its own: its name has the port that it chose when it started.
std::uint64_t node_of(const Segment& segment) {
    if (segment.node != 0) return segment.node;
    return std::hash<std::string>{}(segment.name + ' ' + std::to_string(segment.data_port)) | 1;
}

}  // namespace

MooncakeTransport::MooncakeTransport(Senders& senders, const TransportOptions& options)
    : LaneTransport(senders, options), space_(random_seed()) {}

// -- where we are

Result<Endpoint> MooncakeTransport::listen(const Endpoint& endpoint) {
    if (handshake_listener_ != nullptr) return fail(Errc::LimitReached);
    const auto address = parse_endpoint(endpoint);
    if (!address) return std::unexpected(address.error());
    // Others are told this address: it must be one.
    if (address->is_wildcard()) return fail(Errc::InvalidAddress);
    TRY(listen_for_data(*address));
    const auto fd = tcp_listener(*address, handshake_);
    if (!fd) return std::unexpected(fd.error());
    handshake_listener_ =
        &add_listener(std::make_unique<ListenLane>(*fd, static_cast<EventTarget&>(*this)));
    return handshake_.text();
}

Result<void> MooncakeTransport::listen_for_data(const io::Address& host) {
    if (data_.valid()) return {};
    const auto fd = tcp_listener(host.with_port(0), data_);
    if (!fd) return std::unexpected(fd.error());
    add_listener(std::make_unique<ListenLane>(*fd, static_cast<EventTarget&>(*this)));
    return {};
}

// Its memory begins at the address that says who asks.
Segment MooncakeTransport::segment_for(std::uint32_t number) const {
    Segment segment;
    segment.name = handshake_.valid() ? handshake_.text() : data_.text();
    segment.data_host = segment.name.substr(0, segment.name.rfind(':'));
    segment.data_port = data_.port();
    segment.version = kVersion;
    segment.first_address = mooncake::AddressSpace::kBegin + number;
    segment.first_bytes = mooncake::AddressSpace::kEnd - segment.first_address;
    segment.node = context().options.node;
    return segment;
}

// -- peers

PeerId MooncakeTransport::add_known(bool connecting, const io::Address& host) {
    if (next_number_ == kNumberMax) return PeerId();
    Peer* peer = add_peer(connecting, lanes_asked());
    if (peer == nullptr) return PeerId();
    const PeerId id = peers().handle_of(*peer);
    known_[id.index] = {++next_number_, host, {}};
    return id;
}

Result<PeerId> MooncakeTransport::connect(const Endpoint& endpoint) {
    const auto address = parse_endpoint(endpoint);
    if (!address) return std::unexpected(address.error());
    if (lane_count() + lanes_asked() >= kLanesMax) return fail(Errc::LimitReached);
    const auto local = io::own_address_towards(*address);
    if (!local) return std::unexpected(local.error());
    TRY(listen_for_data(*local));
    const auto fd = tcp_connecting(*address);
    if (!fd) return std::unexpected(fd.error());
    const PeerId id = add_known(true, *address);
    if (!id.valid()) {
        ::close(*fd);
        return fail(Errc::LimitReached);
    }
    add_lane(std::make_unique<HandshakeLane>(context(), *fd, *address,
                                             segment_for(known_[id.index].number)),
             id, LaneUse::Other);
    count_connect(endpoint);
    return id;
}

void MooncakeTransport::on_accepted(const Lane& listener, int fd) {
    tune_tcp(fd);
    if (&listener != handshake_listener_) {
        add_lane(std::make_unique<LandingLane>(context(), space_, fd), PeerId(), LaneUse::Other);
        return;
    }
    sockaddr_storage name{};
    socklen_t size = sizeof name;
    if (::getpeername(fd, reinterpret_cast<sockaddr*>(&name), &size) != 0) {
        ::close(fd);
        return;
    }
    const auto from = io::Address::from_sockaddr(reinterpret_cast<sockaddr*>(&name), size);
    add_lane(std::make_unique<HandshakeLane>(context(), fd, from), PeerId(), LaneUse::Other);
}

void MooncakeTransport::on_up(PeerLane& which, LaneRecord& record) {
    auto& lane = static_cast<MooncakeLane&>(which);
    const PeerId id = record.peer;
    switch (lane.role()) {
        case Role::Handshake: {
            auto& handshake = static_cast<HandshakeLane&>(lane);
            return handshake.asking() ? on_answer(handshake, id) : on_caller(handshake);
        }
        case Role::Landing:
            return on_greeted(record, static_cast<LandingLane&>(lane).said_peer());
        case Role::Writing:
            return on_connected(id);
    }
}

// The peer that we asked: its data port is where its handshake is.
void MooncakeTransport::on_answer(HandshakeLane& lane, PeerId id) {
    close_lane(lane, false);
    Peer* peer = peers().get(id);
    if (peer == nullptr || peer->down) return;
    known_[id.index].segment = lane.theirs();
    peer->node = node_of(lane.theirs());
    open_lanes(id);
}

// Somebody who asked us: we answer, and connect to it as well.
void MooncakeTransport::on_caller(HandshakeLane& lane) {
    const Segment& theirs = lane.theirs();
    PeerId id;
    peers().for_each([&](Peer& peer) {
        const PeerId each = peers().handle_of(peer);
        const Known& known = known_[each.index];
        // An engine asks again; one of ours that connects again names another address.
        if (!peer.connecting && !peer.down && known.segment.name == theirs.name &&
            known.segment.data_port == theirs.data_port &&
            known.segment.first_address == theirs.first_address && peer.node == node_of(theirs))
            id = each;
    });
    const bool is_new = !id.valid();
    if (is_new) {
        id = add_known(false, lane.other());
        if (!id.valid()) return close_lane(lane, true);
        Peer& peer = *peers().get(id);
        peer.node = node_of(theirs);
        // To an engine that has asked us we write nothing until we are asked to; one connection
        // tells whether it lives.
        if (theirs.node == 0) peer.lanes_wanted = 1;
        known_[id.index].segment = theirs;
    }
    lane.set_reply(segment_for(known_[id.index].number));
    give_lane(lane, JobKind::Send);
    if (is_new) open_lanes(id);
}

void MooncakeTransport::open_lanes(PeerId id) {
    const Known& known = known_[id.index];
    const auto to = known.host.with_port(known.segment.data_port);
    const std::uint16_t wanted = peers().get(id)->lanes_wanted;
    for (std::uint16_t i = 0; i < wanted; ++i) {
        const auto fd = tcp_connecting(to);
        if (!fd) return take_down(*peers().get(id), Status::PeerLost, fd.error().os);
        add_lane(std::make_unique<WritingLane>(context(), *fd, known.segment, i == 0), id,
                 LaneUse::Posts);
    }
}

void MooncakeTransport::on_connected(PeerId id) {
    Peer* peer = peers().get(id);
    if (peer == nullptr || peer->down || ++peer->lanes_up < peer->lanes_wanted) return;
    say_up(*peer);
}

// A connection to us that has said whose it is: it ends with that peer, and that peer with it.
void MooncakeTransport::on_greeted(LaneRecord& record, std::uint32_t number) {
    Peer* found = nullptr;
    peers().for_each([&](Peer& peer) {
        if (!peer.down && known_[peers().handle_of(peer).index].number == number) found = &peer;
    });
    // One that is gone: so is this.
    if (found == nullptr) return close_lane(*record.lane, true);
    assign_lane(record, *found, LaneUse::Other);
}

// -- landings

std::uint64_t MooncakeTransport::new_epoch(const Placement& placement) {
    return space_.take(placement);
}
void MooncakeTransport::on_landing_open(std::uint32_t slot, std::uint64_t epoch,
                                        const Placement& placement) {
    space_.open(slot, epoch, placement);
}
void MooncakeTransport::on_landing_closed(std::uint32_t slot) { space_.close(slot); }

Result<Ticket> MooncakeTransport::open_to_any(const Batch& batch, const LandingOptions& options) {
    return open_for(PeerId(), 0, batch, options);
}

// -- writes

Result<PostId> MooncakeTransport::write(PeerId peer, const Batch& from, const Batch& to,
                                        std::span<const RemoteRegion> remote,
                                        const PostOptions& options) {
    remote_.clear();
    for (const RemoteRegion& region : remote)
        remote_.push_back({reinterpret_cast<std::byte*>(region.address), region.bytes});
    return post_to(peer, Ticket(), from, options, &to,
                   RegionLookup::to<&MooncakeTransport::find_remote>(*this));
}

const Region* MooncakeTransport::find_remote(RegionId id) {
    return id < remote_.size() ? &remote_[id] : nullptr;
}

}  // namespace sluice::transport
