// SPDX-License-Identifier: Apache-2.0
// What a stand-in engine does wrong on purpose, by `--sim-fault SPEC` or POST /sim/fault.
//
// A fault waits until a request matches its path, then strikes with its probability, `count` times.
// Faults of the whole engine (refuse, restart, die) strike at once when they are posted without a
// path and a count, else when a matching request comes. Threads: one. Errors: parse_fault() says
// what is wrong with a SPEC.
#pragma once

#include <cstdint>
#include <expected>
#include <string>
#include <string_view>
#include <vector>

#include "base/rng.h"
#include "base/time.h"

namespace sluice::engine {

enum class FaultKind : std::uint8_t {
    None,
    Status,            // answers `status` with vLLM's error JSON
    Hang,              // takes the request and never answers
    HangAfterHeaders,  // 200 and the head of a stream, then nothing
    DieMidStream,      // breaks the connection after `after_events` tokens
    ErrorEvent,        // a stream's error event after `after_events` tokens; 500 when not streamed
    StopMidStream,     // no further token after `after_events`, the connection stays
    EosFirst,          // the first token is the end of the sequence
    SlowFirstToken,    // the first token comes `delay` later
    Garbage,           // bytes that are no HTTP answer
    GarbageBody,       // a good head, then no JSON and no SSE
    EarlyAnswer,       // answers `status` before the body has come
    CloseBeforeAnswer,
    PullFail,   // P answers pulls with an error
    PullHang,   // P never answers a pull
    SlowStart,  // the listeners open `delay` after the engine starts
    Refuse,     // no listener for `delay` (0: until cleared)
    Restart,    // everything gone, new engine ids, listening again after `delay`
    Die,        // the engine core dies, as after a failed assertion
};

struct Fault {
    FaultKind kind = FaultKind::None;
    std::uint16_t status = 500;
    std::int64_t count = -1;  // -1: for ever
    double probability = 1;
    std::string path;  // empty: the generating endpoints
    std::uint32_t after_events = 1;
    Duration delay{0};
    std::string message;            // of Status; empty: vLLM's words
    std::uint32_t retry_after = 0;  // seconds; 0: no such field
};

std::string_view name_of(FaultKind kind);
// "status=429", "kind=hang,count=3,path=/v1/completions" or a JSON object with the same members.
std::expected<Fault, std::string> parse_fault(std::string_view spec);
// One line a kind, for --help.
std::string describe_faults();

class FaultList {
public:
    void add(Fault fault) { faults_.push_back(std::move(fault)); }
    void clear() { faults_.clear(); }
    const std::vector<Fault>& all() const { return faults_; }

    // The first fault that strikes a request for `path`. A fault that is used up goes.
    Fault strike(std::string_view path, bool generates, Rng& rng);
    // Takes out every fault of one kind.
    std::vector<Fault> take(FaultKind kind);
    bool has(FaultKind kind) const;

private:
    std::vector<Fault> faults_;
};

}  // namespace sluice::engine
