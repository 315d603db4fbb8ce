// SPDX-License-Identifier: Apache-2.0
#include "engine/faults.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>

namespace sluice::engine {

namespace {

struct Name {
    FaultKind kind;
    std::string_view name;
    std::string_view meaning;
};

constexpr Name kNames[] = {
    {FaultKind::Status, "status", "answer `status` with an error JSON (status=429,retry_after=1)"},
    {FaultKind::Hang, "hang", "take the request and never answer"},
    {FaultKind::HangAfterHeaders, "hang_after_headers", "send the head of a stream, then nothing"},
    {FaultKind::DieMidStream, "die_mid_stream", "break the connection after `after_events` tokens"},
    {FaultKind::ErrorEvent, "error_event", "an error event after `after_events` tokens"},
    {FaultKind::StopMidStream, "stop_mid_stream",
     "no token after `after_events`, the connection stays"},
    {FaultKind::EosFirst, "eos_first", "the first token is the end of the sequence"},
    {FaultKind::SlowFirstToken, "slow_first_token", "the first token comes `delay_ms` later"},
    {FaultKind::Garbage, "garbage", "bytes that are no HTTP answer"},
    {FaultKind::GarbageBody, "garbage_body", "a good head, then neither JSON nor SSE"},
    {FaultKind::EarlyAnswer, "early_answer", "answer `status` before the body has come"},
    {FaultKind::CloseBeforeAnswer, "close_before_answer", "close the connection without an answer"},
    {FaultKind::PullFail, "pull_fail", "pulls on this engine are answered with an error"},
    {FaultKind::PullHang, "pull_hang", "pulls on this engine are never answered"},
    {FaultKind::SlowStart, "slow_start", "listen only `delay_ms` after the start"},
    {FaultKind::Refuse, "refuse", "do not listen for `delay_ms` (0: until cleared)"},
    {FaultKind::Restart, "restart",
     "new engine ids, nothing remembered, listening after `delay_ms`"},
    {FaultKind::Die, "die", "die as after a failed assertion; the process exits with 1"},
};

std::optional<FaultKind> kind_of(std::string_view name) {
    for (const Name& each : kNames)
        if (each.name == name) return each.kind;
    return std::nullopt;
}

std::optional<double> to_number(std::string_view text) {
    double value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size() || !std::isfinite(value))
        return std::nullopt;
    return value;
}

using Problem = std::optional<std::string>;

Problem set_number(Fault& fault, std::string_view name, double value) {
    const auto within = [&](std::int64_t low, std::int64_t high) -> Problem {
        if (value >= static_cast<double>(low) && value <= static_cast<double>(high))
            return std::nullopt;
        return "fault: " + std::string(name) + " must be from " + std::to_string(low) + " to " +
               std::to_string(high);
    };
    Problem problem;
    if (name == "status") {
        if (!(problem = within(200, 599))) fault.status = static_cast<std::uint16_t>(value);
    } else if (name == "count") {
        if (!(problem = within(-1, 1'000'000'000))) fault.count = static_cast<std::int64_t>(value);
    } else if (name == "probability") {
        if (!(problem = within(0, 1))) fault.probability = value;
    } else if (name == "after_events") {
        if (!(problem = within(0, 1'000'000'000)))
            fault.after_events = static_cast<std::uint32_t>(value);
    } else if (name == "delay_ms") {
        if (!(problem = within(0, 1'000'000'000))) fault.delay = from_seconds(value / 1000);
    } else if (name == "retry_after") {
        if (!(problem = within(0, 1'000'000)))
            fault.retry_after = static_cast<std::uint32_t>(value);
    } else {
        problem = "fault: unknown member '" + std::string(name) +
                  "'; known are kind, status, count, probability, path, after_events, delay_ms, "
                  "message, retry_after";
    }
    return problem;
}

Problem set_text(Fault& fault, std::string_view name, std::string_view value) {
    if (name == "kind") {
        const auto kind = kind_of(value);
        if (!kind)
            return "fault: unknown kind '" + std::string(value) + "'; known are\n" +
                   describe_faults();
        fault.kind = *kind;
    } else if (name == "path") {
        fault.path = value;
    } else if (name == "message") {
        fault.message = value;
    } else if (const auto number = to_number(value)) {
        return set_number(fault, name, *number);
    } else {
        return "fault: " + std::string(name) + "=" + std::string(value) + " is not a number";
    }
    return std::nullopt;
}

std::expected<Fault, std::string> parse_object(std::string_view text) {
    const auto object = nlohmann::json::parse(text, nullptr, false);
    if (!object.is_object()) return std::unexpected("fault: not a JSON object");
    Fault fault;
    for (const auto& [name, value] : object.items()) {
        Problem problem;
        if (value.is_string()) {
            problem = set_text(fault, name, value.get_ref<const std::string&>());
        } else if (value.is_number()) {
            problem = set_number(fault, name, value.get<double>());
        } else {
            problem = "fault: '" + name + "' must be a string or a number";
        }
        if (problem) return std::unexpected(std::move(*problem));
    }
    return fault;
}

std::expected<Fault, std::string> parse_pairs(std::string_view text) {
    Fault fault;
    while (!text.empty()) {
        const auto comma = text.find(',');
        const std::string_view pair = text.substr(0, comma);
        text = comma == std::string_view::npos ? std::string_view() : text.substr(comma + 1);
        const auto equals = pair.find('=');
        const Problem problem =
            equals == std::string_view::npos
                ? set_text(fault, "kind", pair)
                : set_text(fault, pair.substr(0, equals), pair.substr(equals + 1));
        if (problem) return std::unexpected(*problem);
        // "status=429" says what kind it is.
        if (pair.starts_with("status=") && fault.kind == FaultKind::None)
            fault.kind = FaultKind::Status;
    }
    return fault;
}

}  // namespace

std::string_view name_of(FaultKind kind) {
    for (const Name& each : kNames)
        if (each.kind == kind) return each.name;
    return "none";
}

std::string describe_faults() {
    std::string text;
    for (const Name& each : kNames)
        text.append("  ").append(each.name).append(": ").append(each.meaning).append("\n");
    return text;
}

std::expected<Fault, std::string> parse_fault(std::string_view spec) {
    auto fault = spec.starts_with('{') ? parse_object(spec) : parse_pairs(spec);
    if (fault && fault->kind == FaultKind::None)
        return std::unexpected("fault: no kind; known are\n" + describe_faults());
    return fault;
}

Fault FaultList::strike(std::string_view path, bool generates, Rng& rng) {
    for (std::size_t i = 0; i < faults_.size(); ++i) {
        Fault& fault = faults_[i];
        const bool not_of_requests = fault.kind == FaultKind::PullFail ||
                                     fault.kind == FaultKind::PullHang ||
                                     fault.kind == FaultKind::SlowStart;
        if (not_of_requests || (fault.path.empty() ? !generates : fault.path != path) ||
            fault.count == 0)
            continue;
        if (fault.probability < 1 && !rng.chance(fault.probability)) continue;
        Fault struck = fault;
        if (fault.count > 0 && --fault.count == 0)
            faults_.erase(faults_.begin() + static_cast<std::ptrdiff_t>(i));
        return struck;
    }
    return {};
}

std::vector<Fault> FaultList::take(FaultKind kind) {
    std::vector<Fault> taken;
    for (const Fault& fault : faults_)
        if (fault.kind == kind) taken.push_back(fault);
    std::erase_if(faults_, [&](const Fault& fault) { return fault.kind == kind; });
    return taken;
}

bool FaultList::has(FaultKind kind) const {
    return std::ranges::any_of(faults_, [&](const Fault& fault) { return fault.kind == kind; });
}

}  // namespace sluice::engine
