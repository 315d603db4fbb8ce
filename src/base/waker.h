// SPDX-License-Identifier: Apache-2.0
// Wakes a thread that has gone to sleep, once, and costs no system call while it is awake.
//
// The sleeper says so before it looks at its queues for the last time; whoever publishes looks at
// that flag after publishing. Each side does its store, a full fence, then its load, so one of the
// two sees the other: either the sleeper finds the item, or the publisher finds the flag. Of all
// who publish to a sleeper only the first kicks it.
//
//   sleeper:    waker.prepare_to_sleep();
//               if (queues are empty) block until kicked, with a limit
//               waker.awake();
//   publisher:  push(item); waker.notify();
//
// Threads: prepare_to_sleep, awake: the sleeper; notify: any. Owns: nothing; `kick` may be called
// from any thread and must make the next wait return. Costs: notify() a fence and a load.
#pragma once

#include <atomic>

#include "base/delegate.h"

namespace sluice {

class Waker {
public:
    explicit Waker(Delegate<void()> kick) : kick_(kick) {}
    Waker(const Waker&) = delete;
    Waker& operator=(const Waker&) = delete;

    void prepare_to_sleep() {
        asleep_.store(true, std::memory_order_relaxed);
        std::atomic_thread_fence(std::memory_order_seq_cst);
    }
    void awake() { asleep_.store(false, std::memory_order_relaxed); }

    // Everything published before this is seen by the sleeper, now or when it wakes.
    void notify() {
        std::atomic_thread_fence(std::memory_order_seq_cst);
        if (asleep_.load(std::memory_order_relaxed) &&
            asleep_.exchange(false, std::memory_order_acq_rel))
            kick_();
    }

private:
    std::atomic<bool> asleep_{false};
    Delegate<void()> kick_;
};

}  // namespace sluice
