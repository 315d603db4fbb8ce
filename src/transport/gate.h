// SPDX-License-Identifier: Apache-2.0
// The fence: lets threads into a piece of work while its epoch is open, and tells when all are out.
//
//   mover:  if (gate.enter(epoch)) { copy a slice; gate.leave(); } else drop it;
//   owner:  gate.close(); then, once quiet(): nobody copies and nobody will again.
//
// A mover counts itself in before it looks at the epoch; the owner changes the epoch before it
// looks at the count. Both are sequentially consistent, so either the mover sees the gate closed or
// the owner sees the mover. Epochs are never used twice, so one that was closed stays closed.
//
// Threads: open, close: the owner; shut: a mover that is inside; the rest any. Costs: enter and
// leave one locked instruction each, per slice.
#pragma once

#include <atomic>
#include <cstdint>

namespace sluice::transport {

class Gate {
public:
    static constexpr std::uint64_t kClosed = 0;

    void open(std::uint64_t epoch) {
#ifdef SLUICE_TEST_UNFENCED
        last_.store(epoch);
#endif
        epoch_.store(epoch, std::memory_order_seq_cst);
    }

    // Answers quiet().
    bool close() {
        epoch_.store(kClosed, std::memory_order_seq_cst);
        return quiet();
    }
    // Closes it if it is still that epoch's: by a mover that has put the last byte in its place.
    void shut(std::uint64_t epoch) {
        epoch_.compare_exchange_strong(epoch, kClosed, std::memory_order_seq_cst);
    }

    bool quiet() const { return inside_.load(std::memory_order_seq_cst) == 0; }

    [[nodiscard]] bool enter([[maybe_unused]] std::uint64_t epoch) {
        inside_.fetch_add(1, std::memory_order_seq_cst);
#ifdef SLUICE_TEST_UNFENCED
        // No epochs, no revoking, as in the field. Only to see the fence's tests fail without it.
        if (last_.load() != kClosed) return true;
#else
        if (epoch_.load(std::memory_order_seq_cst) == epoch) return true;
#endif
        leave();
        return false;
    }
    void leave() { inside_.fetch_sub(1, std::memory_order_release); }

private:
    std::atomic<std::uint64_t> epoch_{kClosed};
    std::atomic<std::uint32_t> inside_{0};
#ifdef SLUICE_TEST_UNFENCED
    std::atomic<std::uint64_t> last_{kClosed};
#endif
};

}  // namespace sluice::transport
