// SPDX-License-Identifier: Apache-2.0
// How long D's leg may wait for P's refusal without costing first-token time.
//
// A pull that dangles on P (D started, P refused) holds one of its sender seats until the abort
// time-out, and P's refusals come within 10-50 ms. D cannot begin before P's prefill is done
// anyway, so D's leg may wait for half of what the fastest recent prefill of this size took on this
// P; if P answers earlier, D starts then. An unknown or suspect P gets the full delay. Threads: one
// (a worker's own). Costs: 192 bytes an instance.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>

#include "base/time.h"

namespace sluice::pd {

class PrefillPace {
public:
    void note(std::uint64_t prompt_bytes, Duration took) {
        Duration& fastest = fastest_[bucket(prompt_bytes)];
        // Creeps up by a sixteenth a request, so that one lucky prefix hit is forgotten in time.
        fastest = fastest == Duration::zero() ? took : std::min(took, fastest + fastest / 16);
    }

    Duration delay(std::uint64_t prompt_bytes, bool suspect, Duration delay_max) const {
        const Duration fastest = fastest_[bucket(prompt_bytes)];
        if (suspect || fastest == Duration::zero()) return delay_max;
        return std::min(fastest / 2, delay_max);
    }

private:
    static std::size_t bucket(std::uint64_t bytes) {
        return std::min<std::size_t>(static_cast<std::size_t>(std::bit_width(bytes)), kBuckets - 1);
    }
    static constexpr std::size_t kBuckets = 24;
    std::array<Duration, kBuckets> fastest_{};
};

}  // namespace sluice::pd
