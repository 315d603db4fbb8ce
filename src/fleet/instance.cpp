// SPDX-License-Identifier: Apache-2.0
#include "fleet/instance.h"

namespace sluice::fleet {

std::string_view name_of(Role role) { return role == Role::Prefill ? "prefill" : "decode"; }

std::string_view name_of(DialectKind kind) {
    switch (kind) {
        case DialectKind::Unknown:
            return "unknown";
        case DialectKind::Mooncake:
            return "mooncake";
        case DialectKind::MooncakeSequential:
            return "mooncake-sequential";
        case DialectKind::Nixl:
            return "nixl";
    }
    return "unknown";
}

}  // namespace sluice::fleet
