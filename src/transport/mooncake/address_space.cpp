// SPDX-License-Identifier: Apache-2.0
#include "transport/mooncake/address_space.h"

#include <bit>

#include "base/cpu.h"

namespace sluice::transport::mooncake {
namespace {

constexpr std::uint64_t kAlign = 4096;  // leaves an epoch's low bits free for the shift
constexpr std::uint64_t kGapMax = std::uint64_t{1} << 30;

std::uint64_t bytes_of(const Placement& placement) {
    std::uint64_t most = 0;
    for (const PlacedRange& range : placement.ranges()) most = std::max(most, range.bytes());
    return most;
}

unsigned shift_for(const Placement& placement) {
    return std::max(12, static_cast<int>(std::bit_width(bytes_of(placement) - 1)));
}

}  // namespace

AddressSpace::AddressSpace(std::uint64_t seed)
    : first_(kBegin + kAlive + seed % (kBegin - kAlive) / kAlign * kAlign),
      next_(first_),
      entries_(std::make_unique<Entry[]>(kLandingsMax)) {}

std::uint64_t AddressSpace::take(const Placement& placement) {
    const unsigned shift = shift_for(placement);
    const std::uint64_t at = next_.load(std::memory_order_relaxed);
    // Ranges and bytes are bounded by the batch's limits: no overflow.
    const std::uint64_t bytes = std::uint64_t{placement.ranges().size()} << shift;
    const std::uint64_t gap = random_seed() % kGapMax / kAlign * kAlign;
    if (bytes + gap > kEnd - at) return 0;
    next_.store(at + bytes + gap, std::memory_order_release);
    return (at + gap) | shift;
}

void AddressSpace::open(std::uint32_t slot, std::uint64_t epoch, const Placement& placement) {
    Entry& entry = entries_[slot];
    const std::uint64_t end =
        address_of(epoch, static_cast<std::uint32_t>(placement.ranges().size()), 0);
    entry.end.store(end, std::memory_order_relaxed);
    entry.epoch.store(epoch, std::memory_order_release);
    if (slot >= used_.load(std::memory_order_relaxed))
        used_.store(slot + 1, std::memory_order_release);
}

void AddressSpace::close([[maybe_unused]] std::uint32_t slot) {
#ifndef SLUICE_TEST_UNFENCED  // only to see the fence's tests fail without it
    entries_[slot].epoch.store(0, std::memory_order_release);
#endif
}

std::optional<AddressSpace::Found> AddressSpace::find(std::uint64_t address) const {
    const std::uint32_t used = used_.load(std::memory_order_acquire);
    for (std::uint32_t slot = 0; slot < used; ++slot) {
        const std::uint64_t epoch = entries_[slot].epoch.load(std::memory_order_acquire);
        if (epoch == 0 || address < first_of(epoch)) continue;
        if (address < entries_[slot].end.load(std::memory_order_relaxed)) return Found{slot, epoch};
    }
    return std::nullopt;
}

bool AddressSpace::was_given_out(std::uint64_t address, std::uint64_t bytes) const {
    const std::uint64_t next = next_.load(std::memory_order_acquire);
    return address >= first_ && address < next && bytes <= next - address;
}

}  // namespace sluice::transport::mooncake
