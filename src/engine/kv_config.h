// SPDX-License-Identifier: Apache-2.0
// --kv-transfer-config: vLLM's JSON, as far as it means something here.
// Threads: any. Errors: a sentence that names the member, its value and what is allowed.
#pragma once

#include <expected>
#include <string>
#include <string_view>

#include "engine/options.h"

namespace sluice::engine {

// Members that are not in the JSON keep their value.
std::expected<void, std::string> read_kv_transfer_config(std::string_view json, KvOptions& options);

}  // namespace sluice::engine
