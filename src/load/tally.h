// SPDX-License-Identifier: Apache-2.0
// What one load thread has seen; the main thread reads it while the run goes on, and adds all of
// them up at its end.
// Threads: one writer, any readers. Owns: 77 KiB.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "obs/histogram.h"

namespace sluice::load {

enum class Failure : std::uint8_t {
    Connect,      // no connection
    Timeout,      // no complete answer in time
    Broken,       // the connection ended before the answer did
    Protocol,     // not valid HTTP
    Refused,      // 4xx
    Overload,     // 429 and 503
    ServerError,  // other 5xx
    ErrorEvent,   // an error inside a stream
    NoDone,       // a stream that ended without [DONE]
    Unfinished,   // cut off at the end of the run
    kCount,
};

constexpr std::string_view name_of(Failure failure) {
    constexpr std::string_view kNames[] = {"connect",     "timeout",   "broken",     "protocol",
                                           "refused_4xx", "overload",  "server_5xx", "error_event",
                                           "no_done",     "unfinished"};
    return kNames[static_cast<std::size_t>(failure)];
}

struct Tally {
    // Of all requests, the warm-up's too: what the CPU of the targets is divided by.
    obs::Counter ended;
    obs::Counter events_seen;

    // Of those after the warm-up.
    obs::Counter started;
    obs::Counter succeeded;
    obs::Counter events;  // of streams, with content
    obs::Counter bytes_in;
    obs::Counter bytes_out;
    std::array<obs::Counter, static_cast<std::size_t>(Failure::kCount)> failures;
    obs::Histogram first_token;  // of streams: until the first content
    obs::Histogram gap;          // of streams: between two events with content
    obs::Histogram total;        // until the end of a good answer
    obs::Histogram late;         // how long after its time a request was sent

    std::uint64_t failed() const {
        std::uint64_t sum = 0;
        for (const obs::Counter& kind : failures) sum += kind.value();
        return sum;
    }
    void merge(const Tally& other);
};

}  // namespace sluice::load
