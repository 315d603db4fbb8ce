// SPDX-License-Identifier: Apache-2.0
// The reply of a Mooncake prefill's bootstrap server to GET /query:
//   {"0": {"engine_id": "..", "worker_addr": {"0": {"0": "tcp://10.0.0.1:41000"}}}, ...}
// one member a data-parallel rank. Workers register one by one and the reply does not say how many
// there will be, so it can be incomplete without showing it: compare fingerprints of successive
// replies, or shapes of two lives.
//
// Members that are not known are ignored. What is read is refused when it is of the wrong type or
// given twice, and an engine id also when it could not be written into JSON as it is.
// Threads: any. Costs: a parse into a tree; control plane only. Errors: a sentence.
#pragma once

#include <cstdint>
#include <expected>
#include <string>
#include <string_view>
#include <vector>

#include "fleet/instance.h"

namespace sluice::fleet {

inline constexpr std::size_t kBootstrapReplyMax = 4 << 20;  // 1024 ranks of 64 workers fit
inline constexpr std::size_t kEngineIdBytesMax = 256;

struct BootstrapReply {
    std::vector<DataParallelRank> ranks;  // sorted; empty: nobody has registered
    std::uint64_t fingerprint = 0;        // of the whole reply
    std::uint64_t shape = 0;  // of which ranks there are, and of how many workers each has
};

std::expected<BootstrapReply, std::string> parse_bootstrap_reply(std::string_view body);

}  // namespace sluice::fleet
