// SPDX-License-Identifier: Apache-2.0
// A batch with its addresses resolved and checked: where each of its bytes is, on one side.
//
// The batch is one stream of bytes: range after range, block after block, piece after piece. It is
// cut in units (a block, or kUnitBytesMax of a longer one), which are what frames carry and bitmaps
// count. Threads: written by the owner, read by movers inside its gate. Costs: walking, a few
// additions a piece; assign() allocates only beyond what it has held before.
#pragma once

#include <sys/uio.h>

#include <algorithm>
#include <vector>

#include "base/delegate.h"
#include "transport/transport.h"

namespace sluice::transport {

struct PlacedRange {
    std::byte* base = nullptr;
    std::uint64_t block_stride = 0;
    Repeat inner, outer;
    std::uint32_t piece_bytes = 0;
    std::uint32_t first_block = 0;
    std::uint32_t block_count = 0;
    std::uint32_t units_per_block = 0;
    std::uint64_t block_bytes = 0;
    std::uint64_t first_unit = 0;  // of the batch

    std::uint64_t bytes() const { return block_bytes * block_count; }
    std::uint64_t units() const { return std::uint64_t{units_per_block} * block_count; }
};

// A place in the stream of a batch.
struct Place {
    std::uint32_t range = 0;
    std::uint64_t offset = 0;  // in the range's bytes
};

// Whole units, as a frame carries them.
struct UnitSpan {
    std::uint64_t first = 0;
    std::uint64_t count = 0;
};

// Finds a region's memory for assign(); nullptr if there is none of that number.
using RegionLookup = Delegate<const Region*(RegionId)>;

class Placement {
public:
    // ProtocolViolation if a piece would be outside its region or a range moves
    // nothing; LimitReached for one that is too large.
    Result<void> assign(const Batch& batch, RegionLookup regions);

    std::span<const PlacedRange> ranges() const { return ranges_; }
    std::span<const std::uint32_t> blocks() const { return blocks_; }
    std::uint64_t bytes() const { return bytes_; }
    std::uint64_t units() const { return units_; }

    // The units from `place` on, `bytes` long; an empty span if that does not begin and end at
    // borders of units or is not inside the batch.
    UnitSpan units_at(Place place, std::uint64_t bytes) const;
    Place place_of_unit(std::uint64_t unit) const;
    // Whole units from `place` on: at least one, no more than `limit_units`, and as many as fit
    // into `bytes_max`. Both results.
    struct Cut {
        std::uint64_t units = 0;
        std::uint64_t bytes = 0;
    };
    Cut cut(Place place, std::uint64_t limit_units, std::uint64_t bytes_max) const;

    // The longest contiguous memory at `place`, at most `bytes`; moves `place` behind it.
    std::span<std::byte> next(Place& place, std::uint64_t bytes) const;
    // Fills `out` with the memory of the next `bytes`, neighbours merged. Answers how many entries
    // and bytes it described; `place` is behind them.
    struct Described {
        std::size_t entries = 0;
        std::uint64_t bytes = 0;
    };
    Described describe(Place& place, std::uint64_t bytes, std::span<iovec> out) const;

private:
    void settle(Place& place) const {
        while (place.range < ranges_.size() && place.offset == ranges_[place.range].bytes()) {
            ++place.range;
            place.offset = 0;
        }
    }

    std::vector<PlacedRange> ranges_;
    std::vector<std::uint32_t> blocks_;
    std::uint64_t bytes_ = 0;
    std::uint64_t units_ = 0;
};

}  // namespace sluice::transport
