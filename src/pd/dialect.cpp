// SPDX-License-Identifier: Apache-2.0
#include "pd/dialect.h"

#include "pd/dialects/mooncake.h"
#include "pd/dialects/mooncake_sequential.h"
#include "pd/dialects/nixl.h"

namespace sluice::pd {

const Dialect* dialect_of(fleet::DialectKind kind) {
    switch (kind) {
        case fleet::DialectKind::Unknown:
            return nullptr;
        case fleet::DialectKind::Mooncake:
            return &mooncake();
        case fleet::DialectKind::MooncakeSequential:
            return &mooncake_sequential();
        case fleet::DialectKind::Nixl:
            return &nixl();
    }
    return nullptr;
}

}  // namespace sluice::pd
