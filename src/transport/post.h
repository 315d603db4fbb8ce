// SPDX-License-Identifier: Apache-2.0
// The sending side of one transfer, shared between the owner and the lanes that carry it.
//
// Threads: the owner fills it before any lane has it and again after every part has come back;
// lanes read it inside its gate. `cell`, where there is one, is the fence that readers in another
// process look at (shm).
#pragma once

#include <atomic>

#include "transport/gate.h"
#include "transport/placement.h"

namespace sluice::transport {

struct Post {
    Gate gate;
    std::uint64_t epoch = 0;  // of this post; the gate's
    Placement placement;
    std::vector<Range> ranges;  // as posted, for a receiver that reads by itself
    Ticket ticket;
    // Mooncake only: where the bytes go in the peer's memory, if no ticket says it. Its addresses
    // are the peer's, and nothing here follows them.
    bool addressed = false;
    Placement target;
    std::uint32_t first_range = 0;
    Priority priority = Priority::Normal;
    std::uint32_t cell = 0;
};

}  // namespace sluice::transport
