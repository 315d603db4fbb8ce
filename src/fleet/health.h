// SPDX-License-Identifier: Apache-2.0
// What an instance's answers say about its health, and when it may be used again.
//
// Only transport errors, time-outs and 5xx other than 503 are failures. 4xx says nothing about the
// instance, 429 and 503 are back-pressure. `failures_to_open` failures in a row open the breaker;
// after a back-off that doubles up to a limit, exactly one request may try (half-open); its success
// closes the breaker, its failure opens it again. A probe slot that was taken must be given back by
// one of the outcomes.
//
// Only the probe decides a half-open breaker. Legs that began before it opened end later, some of
// them as if nothing had happened, and say nothing about now; the probe's ticket tells them apart.
// Threads: any; atomics. Costs: one load while all is well.
#pragma once

#include "fleet/instance.h"

namespace sluice::fleet {

struct HealthOptions {
    std::uint32_t failures_to_open = 3;
    Duration open_first = std::chrono::seconds(1);
    Duration open_max = std::chrono::seconds(30);
};

// What a leg's end says about its instance.
enum class Outcome : std::uint8_t { Success, Failure, Neutral };

// Leave to send a leg, or not. A probe of a half-open instance has a ticket.
struct Claim {
    bool granted = false;
    std::uint32_t ticket = 0;  // 0: no probe
    explicit operator bool() const { return granted; }
};

// True if the instance may get a leg now. Does not change anything.
bool may_try(const InstanceState& state, Instant now);
// Call when the leg is really sent: takes the probe slot of a half-open instance (refused: somebody
// else has it).
Claim claim(InstanceState& state, Instant now);
void report(InstanceState& state, Outcome outcome, Instant now, const HealthOptions& options,
            std::uint32_t ticket);
// It answers active probes again after it did not: an open breaker need not wait any longer for its
// probe.
void end_wait(InstanceState& state, Instant now);

}  // namespace sluice::fleet
