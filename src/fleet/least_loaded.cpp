// SPDX-License-Identifier: Apache-2.0
// Least loaded, as the better of two chosen by chance.
//
// Looking at all would send every worker's next request to the same instance, since they see the
// same counts; of two chosen by chance the better one is nearly as good and herds nobody. With one
// or two candidates this looks at all of them.
//
// A prefill costs what its prompts are long, so bytes come first there and the number of requests
// only breaks ties. A decode instance steps all its requests together: their number is its load.
#include <compare>

#include "fleet/policies.h"

namespace sluice::fleet {

namespace {

struct Load {
    std::int64_t bytes = 0;
    std::int32_t in_flight = 0;

    friend auto operator<=>(const Load&, const Load&) = default;
};

Load load_of(const Instance& instance) {
    Load load;
    load.in_flight = instance.state->in_flight.load(std::memory_order_relaxed);
    if (instance.role == Role::Prefill)
        load.bytes = instance.state->pending_bytes.load(std::memory_order_relaxed);
    return load;
}

}  // namespace

std::uint16_t pick_least_loaded(std::span<const Instance> instances, const PickContext& context) {
    const std::size_t count = context.candidates.size();
    if (count == 1) return context.candidates[0];
    Rng by_turn(context.turn);
    Rng& rng = context.rng != nullptr ? *context.rng : by_turn;
    const std::size_t first = rng.below(count);
    std::size_t second = rng.below(count - 1);
    if (second >= first) ++second;
    const std::uint16_t a = context.candidates[first];
    const std::uint16_t b = context.candidates[second];
    // Ties go to the first, which is as often the one as the other.
    return load_of(instances[b]) < load_of(instances[a]) ? b : a;
}

}  // namespace sluice::fleet
