// SPDX-License-Identifier: Apache-2.0
// Round robin: every candidate gets the same number of legs, whatever they cost.
#include "fleet/policies.h"

namespace sluice::fleet {

std::uint16_t pick_round_robin(std::span<const Instance>, const PickContext& context) {
    return context.candidates[context.turn % context.candidates.size()];
}

}  // namespace sluice::fleet
