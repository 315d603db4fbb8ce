// SPDX-License-Identifier: Apache-2.0
#include "transport/stream/stream_transport.h"

#include <unistd.h>

#include "transport/stream/listen_lane.h"

namespace sluice::transport {

std::unique_ptr<StreamLane> StreamTransport::make_lane(const LaneSetup& setup) {
    return std::make_unique<StreamLane>(context(), setup);
}

Result<Endpoint> StreamTransport::listen(const Endpoint& endpoint) {
    if (listening_) return fail(Errc::LimitReached);
    Endpoint announced;
    const auto fd = make_listener(endpoint, announced);
    if (!fd) return std::unexpected(fd.error());
    listening_ = true;
    add_listener(std::make_unique<ListenLane>(*fd, static_cast<EventTarget&>(*this)));
    return announced;
}

Result<PeerId> StreamTransport::connect(const Endpoint& endpoint) {
    const std::uint16_t count = lanes_asked();
    if (lane_count() + count > kLanesMax) return fail(Errc::LimitReached);
    std::vector<int> sockets;
    const auto close_all = [&] {
        for (const int made : sockets) ::close(made);
    };
    for (unsigned i = 0; i < count; ++i) {
        const auto fd = start_connect(endpoint);
        if (!fd) {
            close_all();
            return std::unexpected(fd.error());
        }
        sockets.push_back(*fd);
    }
    Peer* peer = add_peer(true, count);
    if (peer == nullptr) {
        close_all();
        return fail(Errc::LimitReached);
    }
    const PeerId id = peers().handle_of(*peer);
    peer->group = next_group_++;
    for (std::uint16_t i = 0; i < count; ++i)
        add_lane(make_lane({sockets[i], true, i, count, peer->group}), id, LaneUse::Posts);
    count_connect(endpoint);
    return id;
}

void StreamTransport::on_accepted(const Lane&, int fd) {
    prepare_accepted(fd);
    LaneSetup setup;
    setup.fd = fd;
    add_lane(make_lane(setup), PeerId(), LaneUse::Posts);
}

void StreamTransport::on_up(PeerLane& which, LaneRecord& record) {
    auto& lane = static_cast<StreamLane&>(which);
    Peer* peer = peers().get(record.peer);
    if (peer == nullptr) {  // accepted: which connect() does it belong to?
        const Hello& hello = lane.peer();
        peers().for_each([&](Peer& known) {
            if (!known.connecting && !known.down && known.node == hello.node &&
                known.group == hello.group && known.lanes_wanted == hello.lanes && !known.up)
                peer = &known;
        });
        if (peer == nullptr) {
            peer = add_peer(false, hello.lanes);
            if (peer == nullptr) return close_lane(lane, true);
            peer->node = hello.node;
            peer->group = hello.group;
        }
        assign_lane(record, *peer, LaneUse::Posts);
    } else {
        peer->node = lane.peer().node;
    }
    if (peer->down || ++peer->lanes_up < peer->lanes_wanted) return;
    say_up(*peer);
}

}  // namespace sluice::transport
