// SPDX-License-Identifier: Apache-2.0
// What one worker counts of its requests, and the text of /metrics over all workers.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "fleet/instance.h"
#include "http/client.h"
#include "http/server.h"
#include "io/io.h"
#include "obs/metrics.h"
#include "pd/body_scan.h"
#include "pd/routes.h"

namespace sluice::pd {

// How a request ended.
enum class Outcome : std::uint8_t {
    Ok,             // an answer below 400, complete
    ClientError,    // 4xx, ours or an engine's
    UpstreamError,  // an engine's 5xx, or no valid answer from it
    Timeout,        // one of the deadlines
    Unavailable,    // 503: nobody to serve it
    Overload,       // 429 or 503 by admission
    Broken,         // cut after its first byte
    ClientGone,
    kCount,
};
std::string_view name_of(Outcome outcome);

enum class RequestPath : std::uint8_t {
    Chat,
    Completions,
    Responses,
    Messages,
    OneDecode,
    Local,
    Unknown,
    kCount
};
std::string_view name_of(RequestPath path);
RequestPath path_of(const Route* route);

struct WorkerMetrics {
    template <std::size_t N>
    using Counters = std::array<obs::Counter, N>;

    std::array<Counters<static_cast<std::size_t>(Outcome::kCount)>,
               static_cast<std::size_t>(RequestPath::kCount)>
        requests;
    Counters<static_cast<std::size_t>(WholeOnDecode::kCount)> whole_on_decode;
    obs::Counter retries;
    obs::Counter retries_denied;  // by the budget
    obs::Counter decode_fallbacks;
    obs::Counter prefills_detached;  // left to finish with nobody waiting
    obs::Counter attempts;
    obs::Counter refused_heads;  // 4xx before there was a request
    obs::Counter response_bytes;

    // -- as they are now, set once a turn
    obs::Counter exchanges;
    obs::Counter legs;
    obs::Counter client_connections;
    obs::Counter upstream_connections;
    obs::Counter upstream_idle;
    obs::Counter operations;
    obs::Counter buffers;
    obs::Counter buffer_bytes;
    obs::Counter accepts;
    obs::Counter accept_pauses;
    obs::Counter upstream_connects;
    obs::Counter upstream_reuses;
    obs::Counter upstream_stale;
    obs::Counter turns;
    obs::Counter sends;
    obs::Counter receives;
    obs::Counter no_buffers;
    obs::Counter ring_overflows;
    obs::Counter buffer_refusals;

    void count(RequestPath path, Outcome outcome) {
        requests[static_cast<std::size_t>(path)][static_cast<std::size_t>(outcome)].add();
    }
};

// Prometheus text format 0.0.4.
std::string render_metrics(const std::vector<const WorkerMetrics*>& workers,
                           const fleet::FleetSnapshot& fleet, std::int64_t in_flight,
                           std::int64_t queued);

}  // namespace sluice::pd
