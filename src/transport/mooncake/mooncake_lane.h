// SPDX-License-Identifier: Apache-2.0
// What the three kinds of connections of this transport have in common: handshakes, writes that
// come and writes that go.
//
// Threads: the lane's; role() any. Owns: the socket. Errors: anything that breaks it is one Down.
#pragma once

#include "transport/peer_lane.h"

namespace sluice::transport::mooncake {

enum class Role : std::uint8_t { Handshake, Landing, Writing };

class MooncakeLane : public PeerLane {
public:
    MooncakeLane(const LaneContext& context, Role role, int fd)
        : PeerLane(context), role_(role), fd_(fd) {}
    ~MooncakeLane() override;

    Role role() const { return role_; }

    void take(const LaneJob& job) final;
    int fd() const final { return fd_; }

protected:
    virtual void on_job(const LaneJob& job) = 0;  // all but Close
    virtual void on_breaking(Status) {}           // gives back what it has

    void break_down(Status status, int os = 0);
    // One non-blocking call each; false: nothing moved. Readiness and breaks are seen to.
    bool receive(std::span<iovec> into, std::size_t& got);
    bool send(std::span<iovec> from, std::size_t& sent);
    // A socket that was connecting: true once it is connected.
    bool connected();

    bool broken() const { return broken_; }

private:
    const Role role_;
    int fd_;
    bool broken_ = false;
};

}  // namespace sluice::transport::mooncake
