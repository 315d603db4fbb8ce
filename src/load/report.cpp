// SPDX-License-Identifier: Apache-2.0
#include "load/report.h"

#include <fmt/format.h>

namespace sluice::load {

namespace {

struct Row {
    const char* name;  // in JSON
    const char* title;
    const obs::Histogram& values;
};

std::vector<Row> rows_of(const Tally& tally) {
    return {{"first_token_ms", "first token", tally.first_token},
            {"gap_ms", "between events", tally.gap},
            {"total_ms", "total", tally.total},
            {"late_ms", "sent late by", tally.late}};
}

constexpr std::pair<const char*, double> kQuantiles[] = {
    {"p50", 0.5}, {"p90", 0.9}, {"p99", 0.99}, {"p99.9", 0.999}};

double ms(std::uint64_t nanoseconds) { return static_cast<double>(nanoseconds) / 1e6; }

double per(double seconds, std::uint64_t count) {
    return count == 0 ? 0 : seconds * 1e6 / static_cast<double>(count);
}

double rate(std::uint64_t count, double seconds) {
    return seconds > 0 ? static_cast<double>(count) / seconds : 0;
}

std::string mib(std::uint64_t bytes) {
    return fmt::format("{:.1f} MiB", static_cast<double>(bytes) / (1 << 20));
}

// As JSON; names of processes may hold anything.
std::string json_string(std::string_view text) {
    std::string out = "\"";
    for (const char c : text) {
        if (c == '"' || c == '\\') out += '\\';
        out += static_cast<unsigned char>(c) < 0x20 ? '?' : c;
    }
    return out + '"';
}

}  // namespace

std::string table_of(const LoadOptions& options, const LoadResult& result) {
    const Tally& tally = *result.tally;
    std::string out = fmt::format(
        "{} requests in {:.2f} s: {} good ({:.1f}/s), {} failed; {} connections, {}\n",
        tally.started.value(), result.seconds, tally.succeeded.value(),
        rate(tally.succeeded.value(), result.seconds), tally.failed(), options.connections,
        options.rate > 0 ? fmt::format("{:g} requests a second{}", options.rate,
                                       options.poisson ? " (Poisson)" : "")
                         : "closed loop");
    if (tally.events.value() > 0)
        out += fmt::format("{} events with content ({:.0f}/s)\n", tally.events.value(),
                           rate(tally.events.value(), result.seconds));
    out +=
        fmt::format("{} in, {} out\n", mib(tally.bytes_in.value()), mib(tally.bytes_out.value()));
    if (result.interrupted) out += "the run was interrupted\n";

    out += fmt::format("\n{:<16}{:>10}{:>10}{:>10}{:>10}{:>10}{:>10}\n", "milliseconds", "p50",
                       "p90", "p99", "p99.9", "max", "mean");
    for (const Row& row : rows_of(tally)) {
        if (row.values.count() == 0) continue;
        out += fmt::format("{:<16}", row.title);
        for (const auto& [name, quantile] : kQuantiles)
            out += fmt::format("{:>10.3f}", ms(row.values.quantile(quantile)));
        out += fmt::format("{:>10.3f}{:>10.3f}\n", ms(row.values.max()), row.values.mean() / 1e6);
    }
    if (tally.failed() > 0) {
        out += "\nfailures\n";
        for (std::size_t i = 0; i < tally.failures.size(); ++i)
            if (const std::uint64_t count = tally.failures[i].value())
                out += fmt::format("  {:<14}{:>10}\n", name_of(static_cast<Failure>(i)), count);
    }
    if (!result.targets.empty())
        out += fmt::format("\n{:<8}{:<18}{:>10}{:>16}{:>14}{:>14}{:>14}\n", "pid", "name", "CPU s",
                           "us a request", "us an event", "RSS before", "RSS most");
    for (const TargetUsage& target : result.targets) {
        out += fmt::format("{:<8}{:<18}", target.pid, target.name);
        out += target.gone
                   ? "   gone before the end\n"
                   : fmt::format("{:>10.3f}{:>16.2f}{:>14.2f}{:>14}{:>14}\n", target.cpu_seconds,
                                 per(target.cpu_seconds, result.ended),
                                 per(target.cpu_seconds, result.events),
                                 mib(target.resident_bytes_before), mib(target.resident_bytes_max));
    }
    return out;
}

std::string json_of(const LoadOptions& options, const LoadResult& result) {
    const Tally& tally = *result.tally;
    std::string out = fmt::format(
        R"({{"seconds":{:.6f},"connections":{},"rate":{},"threads":{},"stream":{},"interrupted":{},)"
        R"("started":{},"succeeded":{},"failed":{},"requests_per_second":{:.3f},"events":{},)"
        R"("events_per_second":{:.3f},"bytes_in":{},"bytes_out":{})",
        result.seconds, options.connections, options.rate, options.threads, options.stream,
        result.interrupted, tally.started.value(), tally.succeeded.value(), tally.failed(),
        rate(tally.succeeded.value(), result.seconds), tally.events.value(),
        rate(tally.events.value(), result.seconds), tally.bytes_in.value(),
        tally.bytes_out.value());
    for (const Row& row : rows_of(tally)) {
        out += fmt::format(R"(,"{}":{{"count":{},"mean":{:.6f},"max":{:.6f})", row.name,
                           row.values.count(), row.values.mean() / 1e6, ms(row.values.max()));
        for (const auto& [name, quantile] : kQuantiles)
            out += fmt::format(R"(,"{}":{:.6f})", name, ms(row.values.quantile(quantile)));
        out += '}';
    }
    out += R"(,"failures":{)";
    for (std::size_t i = 0; i < tally.failures.size(); ++i)
        out += fmt::format(R"({}"{}":{})", i == 0 ? "" : ",", name_of(static_cast<Failure>(i)),
                           tally.failures[i].value());
    out += R"(},"targets":[)";
    for (const TargetUsage& target : result.targets) {
        if (&target != result.targets.data()) out += ',';
        out += fmt::format(R"({{"pid":{},"name":{},"gone":{},"cpu_seconds":{:.6f},)"
                           R"("cpu_us_per_request":{:.4f},"cpu_us_per_event":{:.4f},)"
                           R"("rss_bytes_before":{},"rss_bytes_max":{}}})",
                           target.pid, json_string(target.name), target.gone,
                           target.gone ? 0 : target.cpu_seconds,
                           target.gone ? 0 : per(target.cpu_seconds, result.ended),
                           target.gone ? 0 : per(target.cpu_seconds, result.events),
                           target.resident_bytes_before, target.resident_bytes_max);
    }
    return out + "]}\n";
}

}  // namespace sluice::load
