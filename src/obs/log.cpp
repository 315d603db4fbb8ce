// SPDX-License-Identifier: Apache-2.0
#include "obs/log.h"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

namespace sluice::obs {

namespace {

spdlog::level::level_enum level_of(LogLevel level) {
    switch (level) {
        case LogLevel::Debug:
            return spdlog::level::debug;
        case LogLevel::Info:
            return spdlog::level::info;
        case LogLevel::Warning:
            return spdlog::level::warn;
        case LogLevel::Error:
            return spdlog::level::err;
    }
    return spdlog::level::info;
}

// In JSON lines the text must not end its string early.
std::string escaped(std::string_view line) {
    std::string out;
    for (const char c : line) {
        if (c == '"' || c == '\\') out += '\\';
        if (static_cast<unsigned char>(c) >= 0x20) out += c;
    }
    return out;
}

bool json_lines = false;  // set once by start_log

void write(spdlog::level::level_enum level, std::string_view line) {
    if (!spdlog::should_log(level)) return;
    if (json_lines) {
        spdlog::log(level, "{}", escaped(line));
    } else {
        spdlog::log(level, "{}", line);
    }
}

}  // namespace

void start_log(const LogOptions& options) {
    spdlog::set_default_logger(std::make_shared<spdlog::logger>(
        "sluice", std::make_shared<spdlog::sinks::stderr_sink_mt>()));
    spdlog::set_level(level_of(options.level));
    json_lines = options.json;
    spdlog::set_pattern(options.json
                            ? R"({"time":"%Y-%m-%dT%H:%M:%S.%e%z","level":"%l","message":"%v"})"
                            : "%Y-%m-%d %H:%M:%S.%e %L %v");
}

void log_debug(std::string_view line) { write(spdlog::level::debug, line); }
void log_info(std::string_view line) { write(spdlog::level::info, line); }
void log_warning(std::string_view line) { write(spdlog::level::warn, line); }
void log_error(std::string_view line) { write(spdlog::level::err, line); }

}  // namespace sluice::obs
