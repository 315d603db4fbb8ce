// SPDX-License-Identifier: Apache-2.0
// How a vector's bytes travel on the simulated network.
#pragma once

#include "io/sim/faults.h"

namespace sluice::test {

struct Travel {
    const char* name;
    io::sim::Faults faults;
    std::uint64_t seed = 1;
    bool drip = false;  // one byte at a time, each in a segment of its own
};

// Reads end anywhere, sends are short, completions late and out of order.
inline Travel cut_up(const char* name, std::uint64_t seed) {
    io::sim::Faults faults;
    faults.split_read = 1;
    faults.short_send = 0.3;
    faults.late_completion = 0.3;
    faults.reorder = 0.3;
    return {name, faults, seed};
}

}  // namespace sluice::test
