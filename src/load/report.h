// SPDX-License-Identifier: Apache-2.0
// A load run's result as a table for people and as JSON for scripts.
// Threads: any. Costs: whatever.
#pragma once

#include <string>

#include "load/run.h"

namespace sluice::load {

std::string table_of(const LoadOptions& options, const LoadResult& result);
// One object; times in milliseconds.
std::string json_of(const LoadOptions& options, const LoadResult& result);

}  // namespace sluice::load
