// SPDX-License-Identifier: Apache-2.0
// CPU time and memory of other processes, as /proc tells them.
// Threads: any. Costs: a few file reads a process and thread. Errors: a process that is gone has
// no usage.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace sluice::load {

struct ProcessUsage {
    double cpu_seconds = 0;  // all threads, user and system
    std::uint64_t resident_bytes = 0;
    std::uint64_t resident_bytes_peak = 0;
};

std::optional<ProcessUsage> usage_of(int pid);
// The program's name, at most 15 characters; empty if there is no such process.
std::string name_of_process(int pid);

}  // namespace sluice::load
