// SPDX-License-Identifier: Apache-2.0
// A small imaginary model with real memory, for tests: each rank's regions, and what byte belongs
// where by definition (no strides, no merging).
#pragma once

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "base/rng.h"
#include "kv/layout.h"

namespace sluice::kv::test {

struct Model {
    std::uint32_t layers = 2;
    std::uint32_t kv_heads = 4;
    std::uint32_t head_size = 2;
    std::uint32_t element_bytes = 2;
    std::uint32_t tokens = 4;  // of a block
    std::uint32_t groups = 1;  // layer l is of group l % groups
    bool joint = true;         // K and V in one region
};

struct RankLayout {
    Rank rank;
    Layout layout = Layout::Hnd;
    std::uint32_t blocks = 8;
    std::uint32_t gap = 0;      // bytes between blocks
    bool values_first = false;  // all values, then all keys, when they are apart
};

// The memory of one rank. Layers are divided evenly over the pipeline ranks.
class RankMemory {
public:
    RankMemory(const Model& model, const RankLayout& layout) : model_(model), layout_(layout) {
        const std::uint32_t each = model.layers / layout.rank.pp_size;
        const std::uint32_t first = layout.rank.pp_rank * each;
        const auto add = [&](std::uint32_t layer, Part part) {
            Region region;
            region.part = part;
            region.layout = layout.layout;
            region.layer = layer;
            region.layer_name = "layers." + std::to_string(layer);
            region.group = layer % model.groups;
            region.kv_heads = heads().size();
            region.head_size = model.head_size;
            region.element_bytes = model.element_bytes;
            region.block_bytes = model.tokens * region.kv_heads * row_bytes();
            region.block_stride = region.block_bytes + layout.gap;
            region.bytes = std::uint64_t{region.block_stride} * layout.blocks;
            memory.push_back(std::make_unique<unsigned char[]>(region.bytes));
            region.base = memory.back().get();
            regions.push_back(region);
        };
        if (model.joint) {
            for (std::uint32_t i = 0; i < each; ++i) add(first + i, Part::KeyValue);
        } else if (layout.values_first) {
            for (std::uint32_t i = 0; i < each; ++i) add(first + i, Part::Value);
            for (std::uint32_t i = 0; i < each; ++i) add(first + i, Part::Key);
        } else {
            for (std::uint32_t i = 0; i < each; ++i) {
                add(first + i, Part::Key);
                add(first + i, Part::Value);
            }
        }
    }

    HeadSpan heads() const {
        return heads_of(layout_.rank.tp_rank, layout_.rank.tp_size, model_.kv_heads);
    }
    std::uint32_t row_bytes() const {
        return model_.head_size * model_.element_bytes * (model_.joint ? 2 : 1);
    }
    Shape shape() const { return *shape_of(regions, layout_.rank, model_.kv_heads); }

    // Where the row of (block, head of the model, token) begins in region `r`.
    unsigned char* row(std::size_t r, BlockId block, std::uint32_t head, std::uint32_t token) {
        const Region& region = regions[r];
        const std::uint32_t local = head - heads().first;
        const std::uint32_t index = region.layout == Layout::Hnd ? local * model_.tokens + token
                                                                 : token * region.kv_heads + local;
        return memory[r].get() + std::size_t{block} * region.block_stride +
               std::size_t{index} * row_bytes();
    }

    // Bytes that say where they are from.
    void fill(std::uint64_t salt) {
        for (std::size_t r = 0; r < regions.size(); ++r)
            for (BlockId block = 0; block < layout_.blocks; ++block)
                for (std::uint32_t head = heads().first; head < heads().end; ++head)
                    for (std::uint32_t token = 0; token < model_.tokens; ++token)
                        for (std::uint32_t byte = 0; byte < row_bytes(); ++byte)
                            row(r, block, head, token)[byte] =
                                expected(salt, regions[r], block, head, token, byte);
    }
    static unsigned char expected(std::uint64_t salt, const Region& region, BlockId block,
                                  std::uint32_t head, std::uint32_t token, std::uint32_t byte) {
        std::uint64_t state = salt;
        for (const std::uint64_t part :
             {std::uint64_t{region.layer}, std::uint64_t{static_cast<unsigned>(region.part)},
              std::uint64_t{block}, std::uint64_t{head}, std::uint64_t{token}, std::uint64_t{byte}})
            state = (state ^ part) * 0x9e3779b97f4a7c15ULL + 1;
        return static_cast<unsigned char>(splitmix64(state));
    }

    std::vector<Region> regions;
    std::vector<std::unique_ptr<unsigned char[]>> memory;

private:
    Model model_;
    RankLayout layout_;
};

inline std::vector<BlockId> shuffled_blocks(Rng& rng, std::uint32_t pool, std::uint32_t count) {
    std::vector<BlockId> ids(pool);
    for (std::uint32_t i = 0; i < pool; ++i) ids[i] = i;
    for (std::uint32_t i = pool; i > 1; --i) std::swap(ids[i - 1], ids[rng.below(i)]);
    ids.resize(count);
    return ids;
}

}  // namespace sluice::kv::test
