// SPDX-License-Identifier: Apache-2.0
// Session affinity by rendezvous hashing: each candidate draws a number from the key and its own
// URL, and the highest wins. A candidate that comes or goes moves only the keys it wins or won, a
// share of one in n. The draw does not depend on the process, so several proxies agree.
#include "fleet/hash.h"
#include "fleet/policies.h"

namespace sluice::fleet {

std::uint16_t pick_session_affinity(std::span<const Instance> instances,
                                    const PickContext& context) {
    if (context.affinity_key.empty()) return pick_least_loaded(instances, context);
    const std::uint64_t key = spread(hash_bytes(context.affinity_key));
    std::uint16_t best = context.candidates[0];
    std::uint64_t best_draw = 0;
    for (const std::uint16_t candidate : context.candidates) {
        const std::uint64_t draw = spread(key ^ spread(hash_bytes(instances[candidate].url)));
        if (draw >= best_draw) {
            best = candidate;
            best_draw = draw;
        }
    }
    return best;
}

}  // namespace sluice::fleet
