// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "pd/dialect.h"

namespace sluice::pd {
const Dialect& nixl();
}  // namespace sluice::pd
