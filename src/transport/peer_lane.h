// SPDX-License-Identifier: Apache-2.0
// A lane that goes to a peer, as the transport's owner knows it.
//
// Threads: the counters are written by the lane's thread and read by any.
#pragma once

#include <atomic>

#include "transport/lane.h"

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
    LaneCounters counters;
};

}  // namespace sluice::transport
