// SPDX-License-Identifier: Apache-2.0
// Numbers that one worker writes and anybody may read.
//
// A Counter has one writer, so adding is a load and a store, not a locked instruction; readers see
// whole values, a little late. Sums over workers are made when somebody asks. Threads: as said.
#pragma once

#include <atomic>
#include <cstdint>

namespace sluice::obs {

class Counter {
public:
    void add(std::uint64_t count = 1) {
        value_.store(value_.load(std::memory_order_relaxed) + count, std::memory_order_relaxed);
    }
    void set(std::uint64_t value) { value_.store(value, std::memory_order_relaxed); }
    std::uint64_t value() const { return value_.load(std::memory_order_relaxed); }

private:
    std::atomic<std::uint64_t> value_{0};
};

}  // namespace sluice::obs
