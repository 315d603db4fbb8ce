// SPDX-License-Identifier: Apache-2.0
// A node's numbers as Prometheus text. Threads: any. Costs: formats; nobody's path.
#pragma once

#include <string>

#include "node/data_plane.h"

namespace sluice::node {

std::string metrics_text(const NodeMetrics& metrics, const DataPlane& plane);

}  // namespace sluice::node
