// SPDX-License-Identifier: Apache-2.0
// What `sluice doctor` finds: one line each, with what to do about it.
//
// doctor_machine.cpp looks at this machine, doctor_fleet.cpp and doctor_instance.cpp ask the named
// instances, doctor_command.cpp prints. Plain blocking sockets and threads: this is a diagnostic
// program, no part of the data plane.
// Threads: each function may be called from any. Errors: are findings.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "app/proxy_flags.h"

namespace sluice::app {

// Fail: the proxy would not work as its flags say. Warn: it would, but less well than it could.
enum class Verdict : std::uint8_t { Ok, Warn, Fail };

struct Finding {
    Verdict verdict = Verdict::Ok;
    std::string subject;           // "io_uring", "prefill http://10.0.0.1:8010"
    std::string text;              // what is so
    std::string advice;            // what to do; empty if nothing
    std::optional<Duration> took;  // how long the answer took
};

std::vector<Finding> examine_machine(const ProxyCommandLine& line);
std::vector<Finding> examine_fleet(const pd::ProxyOptions& options);

std::string as_text(const std::vector<Finding>& findings);  // lines, and a summary
std::string as_json(const std::vector<Finding>& findings);  // one object
bool any_failed(const std::vector<Finding>& findings);

}  // namespace sluice::app
