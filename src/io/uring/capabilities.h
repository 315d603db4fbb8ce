// SPDX-License-Identifier: Apache-2.0
// What this kernel's io_uring can do, found by trying, and how to say what is missing.
//
// The loop needs Linux 5.19 (provided buffer rings, multishot accept, cancel by request).
// DEFER_TASKRUN (6.1) and the rest are used when they are there. Containers often filter io_uring
// away; explain_missing() says so. Threads: any.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"

namespace sluice::io {

// How completions are handed over; each level falls back to the next.
enum class TaskRun : std::uint8_t { Defer, Cooperative, Plain };

struct UringCapabilities {
    bool available = false;
    int setup_errno = 0;  // why not
    TaskRun task_run = TaskRun::Plain;
    std::uint32_t features = 0;  // feature bits as the kernel gave them
    int last_opcode = 0;
    bool buffer_rings = false;
    bool multishot_accept = false;
    bool registered_ring = false;
    std::string kernel;  // "6.18.44"

    bool sufficient() const { return available && buffer_rings && multishot_accept; }
};

UringCapabilities probe_uring();

// A sentence for the operator: what is wrong and what to do; empty if nothing is.
std::string explain_missing(const UringCapabilities& capabilities);

}  // namespace sluice::io
