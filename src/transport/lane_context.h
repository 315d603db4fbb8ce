// SPDX-License-Identifier: Apache-2.0
// What all lanes of one transport share. Threads: made by the owner before any lane, then
// read by all; landings are touched inside their gates only.
#pragma once

#include <memory>

#include "transport/landing.h"
#include "transport/senders.h"

namespace sluice::transport {

struct LaneContext {
    TransportOptions options;
    EventTarget* target = nullptr;
    std::unique_ptr<Landing[]> landings;  // kLandingsMax
};

}  // namespace sluice::transport
