// SPDX-License-Identifier: Apache-2.0
#include "transport/landing.h"

#include <bit>

namespace sluice::transport {

Result<void> Landing::prepare(const Batch& batch, RegionLookup regions) {
    TRY(placement_.assign(batch, regions));
    const std::size_t words = (placement_.units() + 63) / 64;
    if (words > words_held_) {
        words_ = std::make_unique<std::atomic<std::uint64_t>[]>(words);
        words_held_ = words;
    }
    for (std::size_t i = 0; i < words; ++i) words_[i].store(0, std::memory_order_relaxed);
    units_left_.store(placement_.units(), std::memory_order_relaxed);
    return {};
}

void Landing::open(std::uint64_t epoch, std::uint64_t peer_node) {
    peer_node_ = peer_node;
    gate.open(epoch);  // publishes all of it
}

bool Landing::mark(UnitSpan units, std::uint64_t epoch) {
    std::uint64_t fresh = 0;
    for (std::uint64_t unit = units.first, end = units.first + units.count; unit < end;) {
        const std::uint64_t count = std::min<std::uint64_t>(64 - unit % 64, end - unit);
        const std::uint64_t mask = (count == 64 ? ~0ULL : (1ULL << count) - 1) << (unit % 64);
        const std::uint64_t before = words_[unit / 64].fetch_or(mask, std::memory_order_relaxed);
        fresh += static_cast<std::uint64_t>(std::popcount(mask & ~before));
        unit += count;
    }
    // A unit that comes twice counts once, so this reaches zero exactly when all are there.
    if (fresh == 0 || units_left_.fetch_sub(fresh, std::memory_order_acq_rel) != fresh)
        return false;
    gate.shut(epoch);
    return true;
}

std::span<const std::uint64_t> Landing::bits() {
    copy_.resize((placement_.units() + 63) / 64);
    for (std::size_t i = 0; i < copy_.size(); ++i)
        copy_[i] = words_[i].load(std::memory_order_relaxed);
    return copy_;
}

bool Landing::block_landed(std::uint32_t block_index) const {
    bool named = false;
    for (const PlacedRange& range : placement_.ranges()) {
        if (block_index < range.first_block || block_index - range.first_block >= range.block_count)
            continue;
        named = true;
        const std::uint64_t first =
            range.first_unit +
            std::uint64_t{block_index - range.first_block} * range.units_per_block;
        for (std::uint32_t i = 0; i < range.units_per_block; ++i)
            if (!landed(first + i)) return false;
    }
    return named;
}

}  // namespace sluice::transport
