// SPDX-License-Identifier: Apache-2.0
#include "fleet/policy.h"

#include "base/assert.h"
#include "fleet/policies.h"

namespace sluice::fleet {

namespace {

struct Entry {
    PolicyKind kind;
    std::string_view name;
    Policy policy;
};

constexpr Entry kPolicies[] = {
    {PolicyKind::RoundRobin, "round_robin", pick_round_robin},
    {PolicyKind::LeastLoaded, "least_loaded", pick_least_loaded},
    {PolicyKind::SessionAffinity, "session_affinity", pick_session_affinity},
};

const Entry& entry_of(PolicyKind kind) {
    for (const Entry& entry : kPolicies)
        if (entry.kind == kind) return entry;
    UNREACHABLE();
}

}  // namespace

Policy policy_of(PolicyKind kind) { return entry_of(kind).policy; }

std::string_view name_of(PolicyKind kind) { return entry_of(kind).name; }

std::optional<PolicyKind> parse_policy(std::string_view name) {
    for (const Entry& entry : kPolicies)
        if (entry.name == name) return entry.kind;
    return std::nullopt;
}

}  // namespace sluice::fleet
