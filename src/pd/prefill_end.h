// SPDX-License-Identifier: Apache-2.0
// How a prefill's one token ended, by its answer: Mooncake's prefill keeps its blocks for a decode
// only if the request was cut at its length.
//
// Threads: the scanner's. Costs: two scans of a small answer. Errors: none; what is not understood
// counts as cut, since the decode finds out as it would without us.
#pragma once

#include <string_view>

#include "json/scan.h"
#include "json/stream_event.h"

namespace sluice::pd {

// True if an end-of-sequence or stop token came first, or the request was aborted. A stop string is
// matched behind the engine, so it does no harm. `answer` needs the slack that the scanner asks
// for.
bool prefill_stopped(json::Scanner& scanner, json::Api api, std::string_view answer);

}  // namespace sluice::pd
