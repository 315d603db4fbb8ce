// SPDX-License-Identifier: Apache-2.0
#include "pd/metrics.h"

#include <string_view>

#include "base/assert.h"
#include "obs/prometheus.h"

namespace sluice::pd {

namespace {

using obs::label;
using obs::PrometheusText;

using Workers = std::vector<const WorkerMetrics*>;

// Of one counter over all workers; `of` answers it for each.
template <class F>
std::uint64_t total(const Workers& workers, F&& of) {
    std::uint64_t sum = 0;
    for (const WorkerMetrics* worker : workers) sum += of(*worker).value();
    return sum;
}

bool has_prefill_leg(std::size_t path) {
    return path < static_cast<std::size_t>(RequestPath::OneDecode);
}

std::string_view dialect_label(std::size_t dialect) {
    return dialect == 0 ? "none" : name_of(static_cast<fleet::DialectKind>(dialect));
}

struct Simple {
    std::string_view name;
    std::string_view type;
    std::string_view help;
    obs::Counter WorkerMetrics::*counter;
};

constexpr Simple kSimple[] = {
    {"sluice_attempts_total", "counter", "Attempts at a P/D pair (requests plus retries).",
     &WorkerMetrics::attempts},
    {"sluice_retries_total", "counter", "Attempts after a failed one.", &WorkerMetrics::retries},
    {"sluice_retries_denied_total", "counter", "Retries that the retry budget refused.",
     &WorkerMetrics::retries_denied},
    {"sluice_decode_fallbacks_total", "counter",
     "Requests served by a decode alone since no prefill could.", &WorkerMetrics::decode_fallbacks},
    {"sluice_prefills_detached_total", "counter", "Prefills left to finish with nobody waiting.",
     &WorkerMetrics::prefills_detached},
    {"sluice_decodes_detached_total", "counter",
     "Decodes of plain answers left to finish with nobody waiting.",
     &WorkerMetrics::decodes_detached},
    {"sluice_refused_messages_total", "counter",
     "Heads and bodies refused before there was a request.", &WorkerMetrics::refused_heads},
    {"sluice_exchanges", "gauge", "Requests being served or queued (slots in use).",
     &WorkerMetrics::exchanges},
    {"sluice_legs", "gauge", "Upstream legs (slots in use).", &WorkerMetrics::legs},
    {"sluice_client_connections", "gauge", "Open client connections.",
     &WorkerMetrics::client_connections},
    {"sluice_operations", "gauge", "I/O operations in flight (slots in use).",
     &WorkerMetrics::operations},
    {"sluice_buffers", "gauge", "Buffers (pages and blocks) in use.", &WorkerMetrics::buffers},
    {"sluice_buffer_bytes", "gauge", "Bytes of them.", &WorkerMetrics::buffer_bytes},
    {"sluice_buffer_refusals_total", "counter", "Buffers refused at the memory limit.",
     &WorkerMetrics::buffer_refusals},
    {"sluice_accepted_total", "counter", "Client connections accepted.", &WorkerMetrics::accepts},
    {"sluice_accept_pauses_total", "counter", "Times accepting paused (limit or no descriptors).",
     &WorkerMetrics::accept_pauses},
    {"sluice_loop_turns_total", "counter", "Turns of the event loops.", &WorkerMetrics::turns},
    {"sluice_sends_total", "counter", "Send operations completed.", &WorkerMetrics::sends},
    {"sluice_receives_total", "counter", "Receive operations completed.", &WorkerMetrics::receives},
    {"sluice_no_buffers_total", "counter", "Receives that waited for a page (ENOBUFS).",
     &WorkerMetrics::no_buffers},
    {"sluice_ring_overflows_total", "counter", "Completion queue overflows.",
     &WorkerMetrics::ring_overflows},
};

// Every series that can occur is there from the start, so that rates are right; of the dialects
// only those of the fleet, and whatever was counted before.
void write_requests(PrometheusText& text, const Workers& workers,
                    const fleet::FleetSnapshot& fleet) {
    text.family("sluice_requests_total", "counter",
                "Requests by path, dialect (none: without a prefill leg) and how they ended.");
    bool in_use[fleet::kDialectKinds] = {};
    for (const fleet::Instance& instance : fleet.prefill)
        in_use[static_cast<std::size_t>(instance.dialect)] = true;
    for (std::size_t path = 0; path < static_cast<std::size_t>(RequestPath::kCount); ++path)
        for (std::size_t dialect = 0; dialect < fleet::kDialectKinds; ++dialect)
            for (std::size_t outcome = 0; outcome < static_cast<std::size_t>(Outcome::kCount);
                 ++outcome) {
                const std::uint64_t sum = total(
                    workers, [&](const WorkerMetrics& worker) -> auto& {
                        return worker.requests[path][dialect][outcome];
                    });
                const bool possible = dialect == 0 || (has_prefill_leg(path) && in_use[dialect]);
                if (sum == 0 && !possible) continue;
                text.sample(label("path", name_of(static_cast<RequestPath>(path))) + "," +
                                label("dialect", dialect_label(dialect)) + "," +
                                label("outcome", name_of(static_cast<Outcome>(outcome))),
                            sum);
            }
}

void write_whole_on_decode(PrometheusText& text, const Workers& workers) {
    text.family("sluice_whole_on_decode_total", "counter",
                "Requests that one transfer cannot serve, by reason.");
    for (std::size_t reason = 1; reason < static_cast<std::size_t>(WholeOnDecode::kCount); ++reason)
        text.sample(label("reason", name_of(static_cast<WholeOnDecode>(reason))),
                    total(
                        workers, [&](const WorkerMetrics& worker) -> auto& {
                            return worker.whole_on_decode[reason];
                        }));
}

void write_bytes(PrometheusText& text, const Workers& workers) {
    text.family("sluice_body_bytes_total", "counter",
                "Bytes of bodies from and to each side, counted when a request ends (to clients: "
                "as they go).");
    for (std::size_t side = 0; side < static_cast<std::size_t>(Side::kCount); ++side) {
        const std::string of = label("side", name_of(static_cast<Side>(side)));
        text.sample(of + R"(,direction="in")",
                    total(
                        workers, [&](const WorkerMetrics& worker) -> auto& {
                            return worker.bytes_in[side];
                        }));
        text.sample(of + R"(,direction="out")",
                    total(
                        workers, [&](const WorkerMetrics& worker) -> auto& {
                            return worker.bytes_out[side];
                        }));
    }
    text.family("sluice_socket_bytes_total", "counter", "All bytes received and sent.");
    text.sample(R"(direction="in")", total(
                                         workers, [](const WorkerMetrics& worker) -> auto& {
                                             return worker.socket_bytes_in;
                                         }));
    text.sample(R"(direction="out")", total(
                                          workers, [](const WorkerMetrics& worker) -> auto& {
                                              return worker.socket_bytes_out;
                                          }));
}

void write_histogram(PrometheusText& text, const Workers& workers, std::string_view labels,
                     obs::DurationHistogram WorkerMetrics::*histogram) {
    obs::DurationHistogram::Sum sum;
    for (const WorkerMetrics* worker : workers) sum.add(worker->*histogram);
    text.histogram(labels, sum);
}

void write_durations(PrometheusText& text, const Workers& workers) {
    struct Family {
        std::string_view name;
        std::string_view help;
        obs::DurationHistogram WorkerMetrics::*histogram;
    };
    constexpr Family kFamilies[] = {
        {"sluice_queue_seconds", "Waiting for admission.", &WorkerMetrics::queue},
        {"sluice_prefill_seconds",
         "Prefill legs that succeeded, from the request sent to the end of "
         "the answer.",
         &WorkerMetrics::prefill},
        {"sluice_kv_wait_seconds",
         "Streams: from the end of the prefill to the decode's first "
         "content.",
         &WorkerMetrics::kv_wait},
        {"sluice_time_to_first_token_seconds",
         "Streams: from the whole request to its first content.", &WorkerMetrics::first_token},
        {"sluice_event_gap_seconds", "Streams: between two pieces of an answer.",
         &WorkerMetrics::event_gap},
        {"sluice_loop_lag_seconds",
         "How late a timer of each busy event loop is, a few times a "
         "second; includes its tick of 0.26 ms.",
         &WorkerMetrics::loop_lag},
    };
    for (const Family& family : kFamilies) {
        text.family(family.name, "histogram", family.help);
        write_histogram(text, workers, {}, family.histogram);
    }
    text.family("sluice_request_seconds", "histogram",
                "From the whole request to the end of its answer.");
    write_histogram(text, workers, R"(mode="plain")", &WorkerMetrics::plain_total);
    write_histogram(text, workers, R"(mode="stream")", &WorkerMetrics::stream_total);
}

template <class F>
void write_instances(PrometheusText& text, const fleet::FleetSnapshot& fleet, F&& value) {
    for (const fleet::Role role : {fleet::Role::Prefill, fleet::Role::Decode})
        for (const fleet::Instance& instance : fleet.of(role))
            text.sample(label("role", name_of(role)) + "," + label("instance", instance.url),
                        value(instance));
}

void write_fleet(PrometheusText& text, const fleet::FleetSnapshot& fleet) {
    const auto relaxed = std::memory_order_relaxed;
    text.family("sluice_in_flight", "gauge", "Legs in flight by role and instance.");
    write_instances(text, fleet,
                    [=](const auto& i) { return std::int64_t{i.state->in_flight.load(relaxed)}; });
    text.family("sluice_pending_prompt_bytes", "gauge", "Prompt bytes of legs in flight.");
    write_instances(text, fleet,
                    [=](const auto& i) { return i.state->pending_bytes.load(relaxed); });
    text.family("sluice_breaker_state", "gauge", "0 closed, 1 open, 2 half-open.");
    write_instances(text, fleet, [=](const auto& i) {
        return static_cast<std::int64_t>(i.state->breaker.load(relaxed));
    });
    text.family("sluice_instance_up", "gauge",
                "1 if the address is known and health probes succeed.");
    write_instances(text, fleet, [](const auto& i) { return std::int64_t{i.usable()}; });
    text.family("sluice_instance_requests_total", "counter", "Legs sent.");
    write_instances(text, fleet, [=](const auto& i) {
        return static_cast<std::int64_t>(i.state->requests.load(relaxed));
    });
    text.family("sluice_instance_failures_total", "counter",
                "Legs that count against the instance's health.");
    write_instances(text, fleet, [=](const auto& i) {
        return static_cast<std::int64_t>(i.state->failures.load(relaxed));
    });
}

void write_pools(PrometheusText& text, const Workers& workers, const fleet::FleetSnapshot& fleet) {
    struct Family {
        std::string_view name;
        std::string_view type;
        std::string_view help;
        obs::Counter PoolMetrics::*counter;
    };
    constexpr Family kFamilies[] = {
        {"sluice_upstream_connections", "gauge", "Open connections to the instance.",
         &PoolMetrics::open},
        {"sluice_upstream_idle_connections", "gauge", "Those of them that wait for reuse.",
         &PoolMetrics::idle},
        {"sluice_upstream_connects_total", "counter", "Connections opened.",
         &PoolMetrics::connects},
        {"sluice_upstream_connect_failures_total", "counter", "Connections that failed to open.",
         &PoolMetrics::connect_failures},
        {"sluice_upstream_reuses_total", "counter", "Legs on a kept connection.",
         &PoolMetrics::reuses},
        {"sluice_upstream_stale_total", "counter",
         "Kept connections found closed and replaced unnoticed.", &PoolMetrics::stale},
    };
    for (const Family& family : kFamilies) {
        text.family(family.name, family.type, family.help);
        write_instances(text, fleet, [&](const fleet::Instance& instance) {
            return total(
                workers, [&](const WorkerMetrics& worker) -> auto& {
                    return worker.pools[static_cast<std::size_t>(instance.role)][instance.index].*
                           family.counter;
                });
        });
    }
}

}  // namespace

std::string_view name_of(Side side) {
    switch (side) {
        case Side::Client:
            return "client";
        case Side::Prefill:
            return "prefill";
        case Side::Decode:
            return "decode";
        case Side::kCount:
            break;
    }
    UNREACHABLE();
}

std::string_view name_of(Outcome outcome) {
    switch (outcome) {
        case Outcome::Ok:
            return "ok";
        case Outcome::ClientError:
            return "client_error";
        case Outcome::UpstreamError:
            return "upstream_error";
        case Outcome::Timeout:
            return "timeout";
        case Outcome::Unavailable:
            return "unavailable";
        case Outcome::Overload:
            return "overload";
        case Outcome::Broken:
            return "broken";
        case Outcome::ClientGone:
            return "client_gone";
        case Outcome::kCount:
            break;
    }
    UNREACHABLE();
}

std::string_view name_of(RequestPath path) {
    switch (path) {
        case RequestPath::Chat:
            return "/v1/chat/completions";
        case RequestPath::Completions:
            return "/v1/completions";
        case RequestPath::Responses:
            return "/v1/responses";
        case RequestPath::Messages:
            return "/v1/messages";
        case RequestPath::OneDecode:
            return "other_inference";
        case RequestPath::Local:
            return "local";
        case RequestPath::Unknown:
            return "unknown";
        case RequestPath::kCount:
            break;
    }
    UNREACHABLE();
}

RequestPath path_of(const Route* route) {
    if (route == nullptr) return RequestPath::Unknown;
    if (route->serve == Serve::OneDecode) return RequestPath::OneDecode;
    switch (route->api) {
        case json::Api::Chat:
            return RequestPath::Chat;
        case json::Api::Completions:
            return RequestPath::Completions;
        case json::Api::Responses:
            return RequestPath::Responses;
        case json::Api::Messages:
            return RequestPath::Messages;
        case json::Api::Unknown:
            break;
    }
    return RequestPath::Local;
}

std::string render_metrics(const Workers& workers, const fleet::FleetSnapshot& fleet,
                           const ProcessMetrics& process) {
    PrometheusText text;
    write_requests(text, workers, fleet);
    write_whole_on_decode(text, workers);
    text.family("sluice_requests_in_flight", "gauge", "Requests admitted and not yet ended.");
    text.sample("", process.in_flight);
    text.family("sluice_requests_queued", "gauge", "Requests waiting for admission.");
    text.sample("", process.queued);
    text.family("sluice_access_log_lines_total", "counter", "Lines written to the access log.");
    text.sample("", process.log_lines);
    text.family("sluice_access_log_dropped_total", "counter", "Lines that the log never got.");
    text.sample(R"(reason="ring_full")", total(
                                             workers, [](const WorkerMetrics& worker) -> auto& {
                                                 return worker.log_dropped;
                                             }));
    text.sample(R"(reason="not_written")", process.log_lost);
    for (const Simple& simple : kSimple) {
        text.family(simple.name, simple.type, simple.help);
        text.sample("", total(
                            workers, [&](const WorkerMetrics& worker) -> auto& {
                                return worker.*simple.counter;
                            }));
    }
    write_durations(text, workers);
    write_bytes(text, workers);
    write_fleet(text, fleet);
    write_pools(text, workers, fleet);
    return text.take();
}

}  // namespace sluice::pd
