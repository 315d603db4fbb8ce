// SPDX-License-Identifier: Apache-2.0
// What happened in a simulated world: the last events in a ring, and a hash over all of them.
//
// The hash is how a test shows that one seed always gives one history. Events are text literals and
// two numbers; they become lines only when a failure is printed. Threads: one. Costs: some 20 ns an
// event, no allocation after the first.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/time.h"

namespace sluice::io::sim {

class Trace {
public:
    explicit Trace(std::size_t kept) : ring_(kept) {}

    // `what` must be a literal: only the view is kept. `host` is its number, or -1 for the world.
    void add(Instant at, int host, std::string_view what, std::int64_t a = 0, std::int64_t b = 0);

    std::uint64_t hash() const { return hash_; }
    std::uint64_t count() const { return count_; }
    // One line an event, the oldest kept first.
    std::string text() const;

private:
    struct Event {
        Instant at;
        int host = -1;
        std::string_view what;
        std::int64_t a = 0;
        std::int64_t b = 0;
    };

    void mix(std::uint64_t value) {
        hash_ = (hash_ ^ value) * 0x9e3779b97f4a7c15ULL;
        hash_ ^= hash_ >> 29;
    }

    std::vector<Event> ring_;
    std::uint64_t count_ = 0;
    std::uint64_t hash_ = 0x243f6a8885a308d3ULL;
};

}  // namespace sluice::io::sim
