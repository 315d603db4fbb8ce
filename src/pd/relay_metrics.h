// SPDX-License-Identifier: Apache-2.0
// The KV relay's part of /metrics: sluice_relay_*. Threads: any.
#pragma once

#include <string>

#include "fleet/instance.h"
#include "relay/board.h"

namespace sluice::pd {

// Prometheus text format 0.0.4.
std::string render_relay_metrics(const relay::Board& board, const fleet::FleetSnapshot& fleet);

}  // namespace sluice::pd
