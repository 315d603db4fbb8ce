// SPDX-License-Identifier: Apache-2.0
// Who may use which blocks now: what a pull writes to nobody else may use, and what is published is
// only read.
//
// A block has an epoch that grows each time its use as a destination ends, so whoever remembers an
// epoch can tell that the block has had another life since. Threads: one. Owns: eight bytes a
// block. Costs: O(blocks of a list). Errors: a Status; a list is taken as a whole or not at all.
#pragma once

#include <vector>

#include "kv/layout.h"

namespace sluice::kv {

class Pool {
public:
    explicit Pool(const Shape& shape);

    // As the destination of one pull: not if another pull writes one of them, one of them is
    // published, or the list has one twice.
    Status claim(const BlocksByGroup& blocks);
    void unclaim(const BlocksByGroup& blocks);

    // As the source of any number of transfers: not while a pull writes one of them.
    Status pin(const BlocksByGroup& blocks);
    void unpin(const BlocksByGroup& blocks);

    std::uint32_t epoch(std::size_t group, BlockId block) const {
        return groups_[group][block].epoch;
    }
    std::uint64_t claimed() const { return claimed_; }
    std::uint64_t pinned() const { return pinned_; }  // a block pinned twice counts twice

private:
    struct Block {
        std::uint32_t epoch = 0;
        std::uint32_t uses = 0;  // kClaimed, or how often it is pinned
    };
    static constexpr std::uint32_t kClaimed = UINT32_MAX;

    template <class Visit>
    void for_each(const BlocksByGroup& blocks, Visit&& visit);

    Shape shape_;
    std::vector<std::vector<Block>> groups_;
    std::uint64_t claimed_ = 0;
    std::uint64_t pinned_ = 0;
};

}  // namespace sluice::kv
