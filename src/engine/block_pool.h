// SPDX-License-Identifier: Apache-2.0
// The KV cache of one data parallel rank: numbered blocks, and of each block which prompt's KV was
// written to it last.
//
// A freed block keeps its content until it is given out again, the longest-freed first, so a late
// read of freed blocks finds the right KV for a while and then somebody else's, as in vLLM. Block 0
// is never given out. Threads: one. Owns: the numbers. Costs: memory only for blocks that were ever
// used. Errors: allocate() answers false when there are too few.
#pragma once

#include <cstdint>
#include <deque>
#include <span>
#include <vector>

namespace sluice::engine {

using BlockId = std::uint32_t;

class BlockPool {
public:
    explicit BlockPool(std::uint32_t total) : total_(total) { contents_.push_back(0); }

    bool allocate(std::uint32_t count, std::vector<BlockId>& blocks) {
        if (count > available()) return false;
        blocks.reserve(blocks.size() + count);
        for (std::uint32_t i = 0; i < count; ++i) {
            if (contents_.size() <= total_) {
                blocks.push_back(static_cast<BlockId>(contents_.size()));
                contents_.push_back(0);
            } else {
                blocks.push_back(free_.front());
                free_.pop_front();
            }
        }
        used_ += count;
        return true;
    }

    void release(std::span<const BlockId> blocks) {
        free_.insert(free_.end(), blocks.begin(), blocks.end());
        used_ -= static_cast<std::uint32_t>(blocks.size());
    }

    void write(std::span<const BlockId> blocks, std::uint64_t content) {
        for (const BlockId block : blocks) contents_[block] = content;
    }
    // 0 for a block that was never written.
    std::uint64_t content(BlockId block) const {
        return block < contents_.size() ? contents_[block] : 0;
    }

    std::uint32_t total() const { return total_; }
    std::uint32_t used() const { return used_; }
    std::uint32_t available() const { return total_ - used_; }

private:
    std::uint32_t total_;
    std::uint32_t used_ = 0;
    std::vector<std::uint64_t> contents_;  // by block id, as far as they were ever used
    std::deque<BlockId> free_;
};

}  // namespace sluice::engine
