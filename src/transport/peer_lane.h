// SPDX-License-Identifier: Apache-2.0
// A lane that goes to a peer, as the transport's owner knows it, and what all of them have in
// common on their thread: readiness, who is told, when something last moved.
//
// Threads: the counters are written by the lane's thread and read by any; the rest is the thread's.
#pragma once

#include <atomic>

#include "transport/lane_context.h"

namespace sluice::transport {

struct LaneCounters {
    class Count {
    public:
        void add(std::uint64_t n = 1) {
            value_.store(value_.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);
        }
        std::uint64_t value() const { return value_.load(std::memory_order_relaxed); }

    private:
        std::atomic<std::uint64_t> value_{0};
    };
    Count bytes_sent, bytes_landed, bytes_dropped, frames_sent, frames_landed, pieces_sent,
        checksum_errors, tokens_refused, violations, stale_reads;
};

class PeerLane : public Lane {
public:
    explicit PeerLane(const LaneContext& context) : context_(context) {}

    void adopt(LaneHost& host) override;
    void on_ready(std::uint32_t epoll_events) final;

    LaneCounters counters;

protected:
    const LaneContext& context() const { return context_; }
    LaneHost& host() { return *host_; }
    // -- to the owner
    void say_up();
    void say_down(Status status, int os);
    void say_part_done(Post& post, Status status);
    void say_landing_done(const Ticket& ticket, Status status);
    // A lane's last: its socket is closed, for the peer as a break or as an end.
    void close_and_say_gone(int& fd, bool reset);

    bool readable_ = true, writable_ = true;
    bool ending_ = false;  // the peer has closed: read on until the end
    Instant started_, last_heard_, last_sent_;

private:
    void emit(LaneEvent event);

    const LaneContext& context_;
    LaneHost* host_ = nullptr;
};

}  // namespace sluice::transport
