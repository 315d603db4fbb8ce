// SPDX-License-Identifier: Apache-2.0
// A listening socket beside the lanes of a sender thread: accepts, and gives the owner the sockets.
//
// Threads: as every lane. Owns: the listening socket, and each new one until the event is out.
#pragma once

#include "transport/senders.h"

namespace sluice::transport {

class ListenLane final : public Lane {
public:
    ListenLane(int fd, EventTarget& target) : fd_(fd), target_(target) {}
    ~ListenLane() override;

    void adopt(LaneHost& host) override;
    void take(const LaneJob& job) override;  // Close
    void on_ready(std::uint32_t epoll_events) override;
    bool step() override;
    // Again, after the process had run out of descriptors.
    void tick() override { host_->want_step(*this); }
    int fd() const override { return fd_; }

private:
    void emit(EventKind kind, std::uint64_t user);

    int fd_;
    EventTarget& target_;
    LaneHost* host_ = nullptr;
};

}  // namespace sluice::transport
