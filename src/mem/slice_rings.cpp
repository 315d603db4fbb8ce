// SPDX-License-Identifier: Apache-2.0
#include "mem/slice_rings.h"

#include <bit>
#include <vector>

namespace sluice {

// Behind its end a thread's late frees (of objects with static lifetime) find none.
struct SliceRings::Stock {
    std::vector<Slice*> rings[kSizes];

    Stock() {
        for (auto& size : rings) size.reserve(kKept);
    }
    ~Stock() {
        for (auto& size : rings)
            for (Slice* ring : size) delete[] ring;
        ended = true;
    }
    static thread_local bool ended;
};

thread_local bool SliceRings::Stock::ended = false;

SliceRings::Stock* SliceRings::stock() {
    if (Stock::ended) return nullptr;
    static thread_local Stock stock;
    return &stock;
}

namespace {

std::size_t size_of(std::size_t capacity, std::size_t smallest) {
    return static_cast<std::size_t>(std::countr_zero(capacity) - std::countr_zero(smallest));
}

}  // namespace

Slice* SliceRings::take(std::size_t capacity) {
    DCHECK(std::has_single_bit(capacity) && capacity >= kRingMin);
    Stock* all = capacity <= kRingMax ? stock() : nullptr;
    if (all != nullptr) {
        auto& rings = all->rings[size_of(capacity, kRingMin)];
        if (!rings.empty()) {
            Slice* ring = rings.back();
            rings.pop_back();
            return ring;
        }
    }
    return new Slice[capacity];
}

void SliceRings::give(Slice* ring, std::size_t capacity) {
    Stock* all = capacity <= kRingMax ? stock() : nullptr;
    if (all != nullptr) {
        auto& rings = all->rings[size_of(capacity, kRingMin)];
        if (rings.size() < kKept) return rings.push_back(ring);
    }
    delete[] ring;
}

}  // namespace sluice
