// SPDX-License-Identifier: Apache-2.0
// The receiving side of one transfer: where its bytes go, which have come, and its fence.
//
// Threads: the owner opens, closes and releases; movers look one up by slot and touch it only
// inside its gate. Owns: its placement and bitmap, which keep their memory for the next in the
// slot.
#pragma once

#include <atomic>
#include <memory>

#include "transport/gate.h"
#include "transport/placement.h"

namespace sluice::transport {

class Landing {
public:
    // -- the owner
    Result<void> prepare(const Batch& batch, RegionLookup regions);
    void open(std::uint64_t epoch, std::uint64_t peer_node);
    std::span<const std::uint64_t> bits();
    bool block_landed(std::uint32_t block_index) const;

    // -- movers, inside the gate
    const Placement& placement() const { return placement_; }
    std::uint64_t peer_node() const { return peer_node_; }
    // True for the call that completed the landing; it has shut the gate.
    bool mark(UnitSpan units, std::uint64_t epoch);

    Gate gate;

private:
    bool landed(std::uint64_t unit) const {
        return (words_[unit / 64].load(std::memory_order_relaxed) >> (unit % 64) & 1) != 0;
    }

    Placement placement_;
    std::uint64_t peer_node_ = 0;
    std::unique_ptr<std::atomic<std::uint64_t>[]> words_;
    std::size_t words_held_ = 0;
    std::atomic<std::uint64_t> units_left_{0};
    std::vector<std::uint64_t> copy_;  // of the bitmap, for the owner to show
};

}  // namespace sluice::transport
