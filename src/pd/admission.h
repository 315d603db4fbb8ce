// SPDX-License-Identifier: Apache-2.0
// How many requests are served at once, over all workers, and who waits.
//
// A request enters, waits in its worker's queue, or is turned away at once; overload is answered,
// not suffered. When a request ends, its own worker's waiters go first; if it has none, the other
// workers that have some are woken. Threads: any; atomics. The queues themselves belong to the
// workers.
#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

#include "io/io.h"

namespace sluice::pd {

class Admission {
public:
    Admission(std::uint32_t in_flight_max, std::uint32_t queue_max)
        : in_flight_max_(in_flight_max), queue_max_(queue_max) {}

    // Before the workers start: whom to wake.
    void add_worker(io::Io& io) { workers_.push_back(&io); }

    bool try_enter() {
        if (in_flight_.fetch_add(1, std::memory_order_acq_rel) <
            static_cast<std::int64_t>(in_flight_max_))
            return true;
        in_flight_.fetch_sub(1, std::memory_order_acq_rel);
        return false;
    }
    void leave() { in_flight_.fetch_sub(1, std::memory_order_acq_rel); }

    bool try_queue() {
        if (queued_.fetch_add(1, std::memory_order_acq_rel) < static_cast<std::int64_t>(queue_max_))
            return true;
        queued_.fetch_sub(1, std::memory_order_acq_rel);
        return false;
    }
    void leave_queue() { queued_.fetch_sub(1, std::memory_order_acq_rel); }

    // A place is free and the worker that had it has nobody waiting.
    void wake_waiting_workers(const io::Io& self) {
        if (queued_.load(std::memory_order_acquire) == 0) return;
        for (io::Io* io : workers_)
            if (io != &self) io->wake();
    }

    std::int64_t in_flight() const { return in_flight_.load(std::memory_order_relaxed); }
    std::int64_t queued() const { return queued_.load(std::memory_order_relaxed); }

private:
    const std::uint32_t in_flight_max_;
    const std::uint32_t queue_max_;
    std::vector<io::Io*> workers_;
    alignas(64) std::atomic<std::int64_t> in_flight_{0};
    alignas(64) std::atomic<std::int64_t> queued_{0};
};

}  // namespace sluice::pd
