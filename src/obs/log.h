// SPDX-License-Identifier: Apache-2.0
// The process's log: state changes and mistakes, one line each, on standard error. Never called on
// a request's path. Threads: any. Costs: formats and writes; control plane only.
#pragma once

#include <string_view>

namespace sluice::obs {

enum class LogLevel { Debug, Info, Warning, Error };

struct LogOptions {
    LogLevel level = LogLevel::Info;
    bool json = false;
};

// Once, before the threads start.
void start_log(const LogOptions& options);

void log_debug(std::string_view line);
void log_info(std::string_view line);
void log_warning(std::string_view line);
void log_error(std::string_view line);

}  // namespace sluice::obs
