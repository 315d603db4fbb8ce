// SPDX-License-Identifier: Apache-2.0
// The version that --version and /version tell.
#pragma once

#include <string_view>

namespace sluice {
inline constexpr std::string_view kVersion = "0.1.0";
}
