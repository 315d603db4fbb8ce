// SPDX-License-Identifier: Apache-2.0
// Which bytes of a producer go where at a consumer.
//
//   Route   of two nodes: which regions pair up, which heads are taken, how a block is cut. Made
//           once, when they meet, by both of them from the two shapes, so both have the same.
//   Half    of one transfer: one side's part of the batch. A range stands for all blocks of one
//           region, whatever their number, and names its own side's memory only.
//
// So a transfer costs its own block list and one range a region (layers x K/V; heads are strides),
// and nothing of it goes over the wire but how many blocks there are. Range i of both halves moves
// the same bytes in the same order; ranges are sorted by layer, so that a prefill's first layers
// are the first ranges. Neighbouring blocks are merged by whoever walks over them (transport/).
// Threads: values. Costs: make_half() is a pass over the block ids (perf/micro/kv_plan_bench.cpp).
// Errors: a Status; two shapes that do not fit are both written out.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "kv/layout.h"
#include "transport/transport.h"

namespace sluice::kv {

// -- who talks to whom. Sizes must be equal, or one divide the other.

// A producer rank that a consumer rank contacts, and the heads it takes there. None: another
// replica gives them, and this one is only told that it may let go.
struct Source {
    std::uint32_t tp_rank = 0;
    HeadSpan heads;
    friend bool operator==(const Source&, const Source&) = default;
};
Outcome<std::vector<Source>> sources_of(const Rank& consumer, std::uint32_t producer_tp_size,
                                        std::uint32_t kv_heads);
// How many consumer ranks contact a producer rank: after all of them its lease ends. Every pipeline
// rank of a consumer contacts every one of a producer, if only to release where no layer is shared.
Outcome<std::uint32_t> pullers_of(const Rank& producer, const Rank& consumer);

// -- two nodes

struct RangePair {
    // Without blocks; `region` is the index in the side's shape.
    transport::Range producer, consumer;
    std::uint32_t group = 0;
    std::uint32_t layer = 0;  // the producer's
};

struct Route {
    std::vector<RangePair>
        pairs;  // by layer, then K before V; empty: nothing to move, only release
    HeadSpan heads;
    std::vector<std::uint64_t> block_bytes;      // by group: moved of one block over all pairs
    std::vector<std::uint32_t> producer_blocks;  // by group: ids are below these
    std::vector<std::uint32_t> consumer_blocks;
    // Consumer regions x heads; the sum over all routes of a consumer is coverage_wanted().
    std::uint64_t coverage = 0;
};
Outcome<Route> make_route(const Shape& producer, const Shape& consumer);
std::uint64_t coverage_wanted(const Shape& consumer);
// The index of the first pair of that layer or a later one.
std::uint32_t first_pair(const Route& route, std::uint32_t layer);

// -- one transfer

enum class Side : std::uint8_t { Producer, Consumer };

struct Half {
    std::vector<transport::Range> ranges;
    std::vector<BlockId> blocks;  // of all groups, one after another
    std::uint64_t bytes = 0;
    std::uint64_t pieces = 0;  // before merging
    std::uint64_t merged = 0;  // after: neighbours in this side's memory count once
};

using Counts = std::vector<std::uint32_t>;  // of blocks, by group
Counts counts_of(const BlocksByGroup& blocks);

// `counts`: how many blocks are moved. When a group has more, the last are taken: D has the
// beginning already.
Outcome<Half> make_half(const Route& route, Side side, const BlocksByGroup& blocks,
                        const Counts& counts);
// Checks as make_half() does, before anybody plans: ids inside their regions, limits.
Status check_blocks(const Shape& shape, const BlocksByGroup& blocks);

}  // namespace sluice::kv
