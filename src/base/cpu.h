// SPDX-License-Identifier: Apache-2.0
// The machine as the process may use it: cores, thread names, entropy.
#pragma once

#include <cstdint>
#include <vector>

#include "base/result.h"

namespace sluice {

// The cores this process may run on, in order (affinity mask and cgroup cpuset respected).
std::vector<int> allowed_cpus();

// Pins the calling thread to one core.
Result<void> pin_to_cpu(int cpu);

// At most 15 characters, shown by top -H and gdb.
void name_this_thread(const char* name);

// Every connection is a descriptor; the soft limit is only there for old programs that use
// select(). Answers how many there may be from now on.
std::uint64_t raise_descriptor_limit();

// From the kernel's generator.
std::uint64_t random_seed();

}  // namespace sluice
