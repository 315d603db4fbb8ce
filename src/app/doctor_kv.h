// SPDX-License-Identifier: Apache-2.0
// `sluice doctor --kv`: two running KV nodes are asked who they are, and the pair is explained.
// Threads: blocks, a few seconds at most. Errors: in the report.
#pragma once

#include <string>
#include <vector>

namespace sluice::app {

struct KvReport {
    bool ok = false;  // the two can exchange blocks
    std::string text;
};

// `nodes`: the control addresses of a producer and of a consumer.
KvReport examine_kv_pair(const std::vector<std::string>& nodes, const std::string& token);

}  // namespace sluice::app
