// SPDX-License-Identifier: Apache-2.0
// A whole load run: threads, warm-up, progress lines, the targets' usage, the sum of it all.
//
// Threads: the caller's waits; the load's own do the work. Errors: what kept it from starting.
#pragma once

#include <atomic>
#include <expected>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "load/options.h"
#include "load/tally.h"

namespace sluice::load {

struct TargetUsage {
    int pid = 0;
    std::string name;
    bool gone = false;
    double cpu_seconds = 0;  // from the end of the warm-up to the end of the last request
    std::uint64_t resident_bytes_max = 0;
    std::uint64_t resident_bytes_before = 0;
};

struct LoadResult {
    std::unique_ptr<Tally> tally = std::make_unique<Tally>();
    double seconds = 0;        // from the end of the warm-up to the last request's end
    std::uint64_t ended = 0;   // while the targets' CPU time was measured
    std::uint64_t events = 0;  // ditto
    bool interrupted = false;
    std::vector<TargetUsage> targets;
};

// `progress` is called with a line now and then; `interrupt` ends the run early when it turns true.
std::expected<LoadResult, std::string> run_load(
    const LoadOptions& options, const std::function<void(std::string_view)>& progress,
    const std::atomic<bool>& interrupt);

}  // namespace sluice::load
