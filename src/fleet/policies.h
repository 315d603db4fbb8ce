// SPDX-License-Identifier: Apache-2.0
// The policies by name, for the table in policy.cpp and for tests. To add one: a file with one such
// function, a line here, an enumerator in policy.h and a line in the table.
// Threads: any; pure functions of their arguments and the loads they read.
#pragma once

#include "fleet/policy.h"

namespace sluice::fleet {

// Each candidate in turn.
std::uint16_t pick_round_robin(std::span<const Instance> instances, const PickContext& context);

// The less loaded of two candidates taken by chance. Costs: two cache lines read.
std::uint16_t pick_least_loaded(std::span<const Instance> instances, const PickContext& context);

// The same key to the same instance; without a key the least loaded. Costs: ~20 ns a candidate.
std::uint16_t pick_session_affinity(std::span<const Instance> instances,
                                    const PickContext& context);

}  // namespace sluice::fleet
