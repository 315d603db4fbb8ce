// SPDX-License-Identifier: Apache-2.0
// Rings of slices that are between two queues: a thread's stock, by size.
//
// A request's queues live as long as it does; their rings go round here instead of through malloc.
// Rings of up to kRingMax slices are kept, at most kKept of a size; others are freed. Threads: each
// has its own stock; a ring may be given back on another thread than it was taken on. Owns: what is
// in stock, until the thread ends.
#pragma once

#include <cstddef>

#include "mem/buffer.h"

namespace sluice {

class SliceRings {
public:
    // `capacity`: a power of two from 4 on. All slices are empty, here and when given back.
    static Slice* take(std::size_t capacity);
    static void give(Slice* ring, std::size_t capacity);

private:
    static constexpr std::size_t kRingMin = 4;
    static constexpr std::size_t kRingMax = 64;
    static constexpr std::size_t kSizes = 5;
    static constexpr std::size_t kKept = 1024;

    struct Stock;
    static Stock* stock();
};

}  // namespace sluice
