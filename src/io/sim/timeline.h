// SPDX-License-Identifier: Apache-2.0
// The virtual clock, and what is to happen when it gets there.
//
// Things due at the same instant happen in the order in which they were scheduled, so that bytes of
// one stream keep theirs. Threads: one. Owns: the scheduled closures and what they hold.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <utility>
#include <vector>

#include "base/assert.h"
#include "base/time.h"

namespace sluice::io::sim {

class Timeline {
public:
    explicit Timeline(Instant start) : now_(start) {}

    Instant now() const { return now_; }
    bool empty() const { return heap_.empty(); }
    Instant next() const { return heap_.empty() ? kNever : heap_.front().at; }
    bool due() const { return next() <= now_; }

    void schedule(Instant at, std::function<void()> run) {
        heap_.push_back({std::max(at, now_), sequence_++, std::move(run)});
        std::push_heap(heap_.begin(), heap_.end(), later);
    }
    void schedule_after(Duration after, std::function<void()> run) {
        schedule(now_ + after, std::move(run));
    }

    // Requires: due().
    void run_one() {
        ASSERT(due());
        std::pop_heap(heap_.begin(), heap_.end(), later);
        const std::function<void()> run = std::move(heap_.back().run);
        heap_.pop_back();
        run();
    }

    void advance_to(Instant when) {
        ASSERT(when >= now_);
        now_ = when;
    }

private:
    struct Entry {
        Instant at;
        std::uint64_t sequence;
        std::function<void()> run;
    };
    static bool later(const Entry& a, const Entry& b) {
        return a.at != b.at ? a.at > b.at : a.sequence > b.sequence;
    }

    Instant now_;
    std::uint64_t sequence_ = 0;
    std::vector<Entry> heap_;
};

}  // namespace sluice::io::sim
