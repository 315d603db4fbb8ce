// SPDX-License-Identifier: Apache-2.0
#include "kv/pool.h"

#include "base/assert.h"
#include "kv/plan.h"

namespace sluice::kv {

namespace {

Status in_use(std::size_t group, BlockId block, const char* why) {
    return {Code::BadBlocks,
            "block " + std::to_string(block) + " of group " + std::to_string(group) + " " + why};
}

}  // namespace

Pool::Pool(const Shape& shape) : shape_(shape), groups_(shape.groups()) {
    for (const Geometry& one : shape.regions)
        if (groups_[one.group].empty()) groups_[one.group].resize(one.blocks);
}

template <class Visit>
void Pool::for_each(const BlocksByGroup& blocks, Visit&& visit) {
    for (std::size_t group = 0; group < blocks.size(); ++group)
        for (const BlockId block : blocks[group]) visit(groups_[group][block]);
}

Status Pool::claim(const BlocksByGroup& blocks) {
    if (Status status = check_blocks(shape_, blocks); !status.ok()) return status;
    for (std::size_t group = 0; group < blocks.size(); ++group)
        for (std::size_t i = 0; i < blocks[group].size(); ++i) {
            const BlockId block = blocks[group][i];
            const std::uint32_t uses = groups_[group][block].uses;
            if (uses == 0) {
                groups_[group][block].uses = kClaimed;
                continue;
            }
            // Back to how it was: what was claimed above.
            for (std::size_t g = 0; g <= group; ++g)
                for (std::size_t k = 0; k < (g == group ? i : blocks[g].size()); ++k)
                    groups_[g][blocks[g][k]].uses = 0;
            return in_use(group, block,
                          uses == kClaimed
                              ? "is the destination of a live pull, or twice in the list"
                              : "is published");
        }
    for (const auto& group : blocks) claimed_ += group.size();
    return {};
}

void Pool::unclaim(const BlocksByGroup& blocks) {
    for_each(blocks, [&](Block& block) {
        ASSERT(block.uses == kClaimed);
        block.uses = 0;
        ++block.epoch;
        --claimed_;
    });
}

Status Pool::pin(const BlocksByGroup& blocks) {
    if (Status status = check_blocks(shape_, blocks); !status.ok()) return status;
    for (std::size_t group = 0; group < blocks.size(); ++group)
        for (const BlockId block : blocks[group])
            if (groups_[group][block].uses >= kClaimed - 1)
                return in_use(group, block, "is the destination of a live pull");
    for_each(blocks, [&](Block& block) {
        ++block.uses;
        ++pinned_;
    });
    return {};
}

void Pool::unpin(const BlocksByGroup& blocks) {
    for_each(blocks, [&](Block& block) {
        ASSERT(block.uses != 0 && block.uses != kClaimed);
        --block.uses;
        --pinned_;
    });
}

}  // namespace sluice::kv
