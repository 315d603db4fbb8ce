// SPDX-License-Identifier: Apache-2.0
// Which instance gets a leg: a pure function on a snapshot. One file each; table in policy.cpp.
// Threads: any.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "base/rng.h"
#include "fleet/instance.h"

namespace sluice::fleet {

enum class PolicyKind : std::uint8_t { RoundRobin, LeastLoaded, SessionAffinity };

struct PickContext {
    std::span<const std::uint16_t> candidates;  // indices into the role's instances; never empty
    std::uint64_t turn = 0;         // counts this worker's picks of this role, for round robin
    std::string_view affinity_key;  // X-Session-ID, else the body's "user"; may be empty
    Rng* rng = nullptr;
};

// The chosen element of `candidates`.
using Policy = std::uint16_t (*)(std::span<const Instance> instances, const PickContext& context);

Policy policy_of(PolicyKind kind);
std::optional<PolicyKind> parse_policy(
    std::string_view name);  // "round_robin", "least_loaded", "session_affinity"
std::string_view name_of(PolicyKind kind);

}  // namespace sluice::fleet
