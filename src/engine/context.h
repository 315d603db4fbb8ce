// SPDX-License-Identifier: Apache-2.0
// What every part of one engine shares: its loop, options, dice and counts.
// Threads: one. Owns: nothing that lives elsewhere.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/delegate.h"
#include "base/rng.h"
#include "engine/options.h"
#include "io/loop.h"

namespace sluice::engine {

// Counted since the engine was made, over restarts.
struct EngineCounters {
    std::uint64_t requests = 0;     // HTTP requests
    std::uint64_t generations = 0;  // ... that started sequences
    std::uint64_t cancelled = 0;    // the client left first
    std::uint64_t faults = 0;
    std::uint64_t succeeded = 0;
    std::uint64_t failed = 0;                 // ended with finish reason error
    std::array<std::uint64_t, 5> finished{};  // sequences by FinishReason
    std::uint64_t prompt_tokens = 0;
    std::uint64_t generated_tokens = 0;
    std::uint64_t prompt_tokens_computed = 0;
    std::uint64_t prompt_tokens_external = 0;
    std::uint64_t external_queries = 0;
    std::uint64_t pulls_sent = 0;        // D: messages
    std::uint64_t pulls_received = 0;    // P: messages
    std::uint64_t transfers = 0;         // P: requests whose blocks were handed over
    std::uint64_t failed_transfers = 0;  // P
    std::uint64_t failed_receives = 0;   // D
    std::uint64_t expired = 0;           // P: blocks nobody fetched
    std::uint64_t admission_rejections = 0;
};

struct Context {
    io::Loop& loop;
    const EngineOptions& options;
    Rng& rng;
    EngineCounters& counters;
    FaultList& faults;
    Delegate<void(std::string_view)> die;  // the engine core is lost; the reason

    void log(const std::string& line) const {
        if (options.log) options.log(line);
    }
    bool has_fault(FaultKind kind) const { return faults.has(kind); }
};

// Hexadecimal digits of the engine's dice.
std::string random_hex(Rng& rng, std::size_t digits);
// In a uuid4's form.
std::string random_uuid(Rng& rng);

}  // namespace sluice::engine
