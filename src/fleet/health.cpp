// SPDX-License-Identifier: Apache-2.0
#include "fleet/health.h"

#include <algorithm>

namespace sluice::fleet {

namespace {

std::int64_t ns_of(Instant when) { return when.time_since_epoch().count(); }

Duration back_off(std::uint32_t openings, const HealthOptions& options) {
    Duration wait = options.open_first;
    for (std::uint32_t i = 0; i < openings && wait < options.open_max; ++i) wait *= 2;
    return std::min(wait, options.open_max);
}

// A breaker in HalfOpen belongs to one thread: whoever moved it there. Only that one calls this, so
// that nobody sees Open together with an old time or an old ticket.
void open_until(InstanceState& state, Instant until) {
    state.retry_at_ns.store(ns_of(until), std::memory_order_relaxed);
    state.probe_ticket.fetch_add(1, std::memory_order_relaxed);
    state.breaker.store(Breaker::Open, std::memory_order_release);
}

void report_closed(InstanceState& state, Outcome outcome, Instant now,
                   const HealthOptions& options) {
    if (outcome == Outcome::Neutral) return;
    if (outcome == Outcome::Success) {
        // Read first: while all is well the line is shared by the workers and not written.
        if (state.consecutive_failures.load(std::memory_order_relaxed) != 0)
            state.consecutive_failures.store(0, std::memory_order_relaxed);
        return;
    }
    const auto failures = state.consecutive_failures.fetch_add(1, std::memory_order_relaxed) + 1;
    if (failures < options.failures_to_open) return;
    Breaker expected = Breaker::Closed;
    if (!state.breaker.compare_exchange_strong(expected, Breaker::HalfOpen,
                                               std::memory_order_acq_rel))
        return;
    const auto openings = state.openings.fetch_add(1, std::memory_order_relaxed);
    open_until(state, now + back_off(openings, options));
}

void report_probe(InstanceState& state, Outcome outcome, Instant now,
                  const HealthOptions& options) {
    switch (outcome) {
        case Outcome::Success:
            state.consecutive_failures.store(0, std::memory_order_relaxed);
            state.openings.store(0, std::memory_order_relaxed);
            state.breaker.store(Breaker::Closed, std::memory_order_release);
            return;
        case Outcome::Failure:
            return open_until(
                state,
                now + back_off(state.openings.fetch_add(1, std::memory_order_relaxed), options));
        case Outcome::Neutral:
            // It learned nothing (its client left, say). The next request is the probe.
            return open_until(state, now);
    }
}

}  // namespace

bool may_try(const InstanceState& state, Instant now) {
    switch (state.breaker.load(std::memory_order_acquire)) {
        case Breaker::Closed:
            return true;
        case Breaker::HalfOpen:
            return false;
        case Breaker::Open:
            return ns_of(now) >= state.retry_at_ns.load(std::memory_order_relaxed);
    }
    return false;
}

Claim claim(InstanceState& state, Instant now) {
    const auto waits = [&] {
        return ns_of(now) < state.retry_at_ns.load(std::memory_order_relaxed);
    };
    Breaker seen = state.breaker.load(std::memory_order_acquire);
    if (seen == Breaker::Open && !waits() &&
        state.breaker.compare_exchange_strong(seen, Breaker::HalfOpen, std::memory_order_acq_rel)) {
        // Between the look and the exchange another probe may have come, failed and set a later
        // time.
        if (waits()) {
            state.breaker.store(Breaker::Open, std::memory_order_release);
            return {};
        }
        return {true, state.probe_ticket.load(std::memory_order_relaxed)};
    }
    return {seen == Breaker::Closed, 0};
}

void report(InstanceState& state, Outcome outcome, Instant now, const HealthOptions& options,
            std::uint32_t ticket) {
    switch (state.breaker.load(std::memory_order_acquire)) {
        case Breaker::Closed:
            return report_closed(state, outcome, now, options);
        case Breaker::Open:
            return;  // the late word of a leg that began before
        case Breaker::HalfOpen:
            if (ticket == state.probe_ticket.load(std::memory_order_relaxed))
                report_probe(state, outcome, now, options);
            return;
    }
}

void end_wait(InstanceState& state, Instant now) {
    if (state.breaker.load(std::memory_order_acquire) == Breaker::Open)
        state.retry_at_ns.store(ns_of(now), std::memory_order_relaxed);
}

}  // namespace sluice::fleet
