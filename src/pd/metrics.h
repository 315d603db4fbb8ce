// SPDX-License-Identifier: Apache-2.0
// What one worker counts of its requests, and the text of /metrics over all workers.
//
// Counters and histograms are written where things happen; what others keep (connections, slots,
// I/O counters) is copied here a few times a second (Proxy::on_pulse). Threads: one writer, any
// reader. Costs: a streamed event is one histogram entry and one counter.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "fleet/instance.h"
#include "http/client.h"
#include "http/server.h"
#include "io/io.h"
#include "obs/duration_histogram.h"
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

// Whom the proxy exchanges bodies with.
enum class Side : std::uint8_t { Client, Prefill, Decode, kCount };
std::string_view name_of(Side side);

// One instance's connections, of one worker.
struct PoolMetrics {
    obs::Counter open;
    obs::Counter idle;
    obs::Counter connects;
    obs::Counter connect_failures;
    obs::Counter reuses;
    obs::Counter stale;
};

struct WorkerMetrics {
    template <std::size_t N>
    using Counters = std::array<obs::Counter, N>;
    using ByOutcome = Counters<static_cast<std::size_t>(Outcome::kCount)>;
    using ByDialect = std::array<ByOutcome, fleet::kDialectKinds>;  // Unknown: no prefill leg

    std::array<ByDialect, static_cast<std::size_t>(RequestPath::kCount)> requests;
    Counters<static_cast<std::size_t>(WholeOnDecode::kCount)> whole_on_decode;

    // -- where time went
    obs::DurationHistogram queue;
    obs::DurationHistogram prefill;      // of legs that succeeded
    obs::DurationHistogram kv_wait;      // streams
    obs::DurationHistogram first_token;  // streams
    obs::DurationHistogram event_gap;    // streams
    obs::DurationHistogram plain_total;
    obs::DurationHistogram stream_total;
    obs::DurationHistogram loop_lag;

    // -- bodies, of requests with legs
    Counters<static_cast<std::size_t>(Side::kCount)> bytes_in;
    Counters<static_cast<std::size_t>(Side::kCount)> bytes_out;

    obs::Counter retries;
    obs::Counter retries_denied;  // by the budget
    obs::Counter decode_fallbacks;
    obs::Counter prefills_detached;  // left to finish with nobody waiting
    obs::Counter decodes_detached;
    obs::Counter attempts;
    obs::Counter refused_heads;  // 4xx before there was a request

    obs::Counter log_dropped;  // log records for which the ring had no room
    // -- copied by the pulse
    std::vector<PoolMetrics> pools[2];  // by role and instance
    obs::Counter exchanges;
    obs::Counter legs;
    obs::Counter client_connections;
    obs::Counter operations;
    obs::Counter buffers;
    obs::Counter buffer_bytes;
    obs::Counter accepts;
    obs::Counter accept_pauses;
    obs::Counter turns;
    obs::Counter sends;
    obs::Counter receives;
    obs::Counter socket_bytes_in;
    obs::Counter socket_bytes_out;
    obs::Counter no_buffers;
    obs::Counter ring_overflows;
    obs::Counter buffer_refusals;

    void count(RequestPath path, Outcome outcome,
               fleet::DialectKind dialect = fleet::DialectKind::Unknown) {
        requests[static_cast<std::size_t>(path)][static_cast<std::size_t>(dialect)]
                [static_cast<std::size_t>(outcome)]
                    .add();
    }
    void count_bytes(Side side, std::uint64_t in, std::uint64_t out) {
        bytes_in[static_cast<std::size_t>(side)].add(in);
        bytes_out[static_cast<std::size_t>(side)].add(out);
    }
};

// What belongs to no worker.
struct ProcessMetrics {
    std::int64_t in_flight = 0;
    std::int64_t queued = 0;
    std::uint64_t log_lines = 0;
    std::uint64_t log_lost = 0;
};

// Prometheus text format 0.0.4.
std::string render_metrics(const std::vector<const WorkerMetrics*>& workers,
                           const fleet::FleetSnapshot& fleet, const ProcessMetrics& process);

}  // namespace sluice::pd
