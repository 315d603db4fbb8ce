// SPDX-License-Identifier: Apache-2.0
// A transport whose lanes are streams that begin with a hello. tcp/ and shm/ say how sockets are
// made.
//
// A peer is up when all lanes of its connect() are. Threads: the owner. Owns, costs: see
// lane_transport.h.
#pragma once

#include "transport/lane_transport.h"
#include "transport/stream/stream_lane.h"

namespace sluice::transport {

class StreamTransport : public LaneTransport {
public:
    using LaneTransport::LaneTransport;

    Result<Endpoint> listen(const Endpoint& endpoint) override;
    Result<PeerId> connect(const Endpoint& endpoint) override;

protected:
    // -- how this kind of stream is made
    // A listening socket, non-blocking, and what to tell others.
    virtual Result<int> make_listener(const Endpoint& endpoint, Endpoint& announced) = 0;
    // A socket that is connecting, non-blocking.
    virtual Result<int> start_connect(const Endpoint& endpoint) = 0;
    virtual void prepare_accepted(int fd) = 0;
    virtual std::unique_ptr<StreamLane> make_lane(const LaneSetup& setup);

private:
    void on_accepted(const Lane& listener, int fd) override;
    void on_up(PeerLane& lane, LaneRecord& record) override;

    bool listening_ = false;
    std::uint64_t next_group_ = 1;
};

}  // namespace sluice::transport
