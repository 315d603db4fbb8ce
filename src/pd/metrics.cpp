// SPDX-License-Identifier: Apache-2.0
#include "pd/metrics.h"

#include <string_view>

#include "base/assert.h"

namespace sluice::pd {

namespace {

// Writes families: a HELP and a TYPE line, then samples.
class Text {
public:
    void family(std::string_view name, std::string_view type, std::string_view help) {
        name_ = name;
        append("# HELP ", name, " ", help, "\n# TYPE ", name, " ", type, "\n");
    }
    void sample(std::string_view labels, std::int64_t value) {
        append(name_, labels.empty() ? "" : "{", labels, labels.empty() ? " " : "} ",
               std::to_string(value), "\n");
    }
    std::string take() { return std::move(out_); }

private:
    template <class... Parts>
    void append(Parts... parts) {
        (out_.append(std::string_view(parts)), ...);
    }
    std::string out_;
    std::string_view name_;
};

std::string label(std::string_view name, std::string_view value) {
    std::string out(name);
    out += "=\"";
    for (const char c : value) {
        if (c == '"' || c == '\\') out += '\\';
        out += c;
    }
    out += '"';
    return out;
}

using Workers = std::vector<const WorkerMetrics*>;

std::int64_t total(const Workers& workers, obs::Counter WorkerMetrics::*counter) {
    std::uint64_t sum = 0;
    for (const WorkerMetrics* worker : workers) sum += (worker->*counter).value();
    return static_cast<std::int64_t>(sum);
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
    {"sluice_refused_messages_total", "counter",
     "Heads and bodies refused before there was a request.", &WorkerMetrics::refused_heads},
    {"sluice_response_bytes_total", "counter", "Answer bytes relayed from decode instances.",
     &WorkerMetrics::response_bytes},
    {"sluice_exchanges", "gauge", "Requests being served or queued (slots in use).",
     &WorkerMetrics::exchanges},
    {"sluice_legs", "gauge", "Upstream legs (slots in use).", &WorkerMetrics::legs},
    {"sluice_client_connections", "gauge", "Open client connections.",
     &WorkerMetrics::client_connections},
    {"sluice_upstream_connections", "gauge", "Open upstream connections.",
     &WorkerMetrics::upstream_connections},
    {"sluice_upstream_idle_connections", "gauge", "Upstream connections kept for reuse.",
     &WorkerMetrics::upstream_idle},
    {"sluice_operations", "gauge", "I/O operations in flight (slots in use).",
     &WorkerMetrics::operations},
    {"sluice_buffers", "gauge", "Buffers (pages and blocks) in use.", &WorkerMetrics::buffers},
    {"sluice_buffer_bytes", "gauge", "Bytes of them.", &WorkerMetrics::buffer_bytes},
    {"sluice_buffer_refusals_total", "counter", "Buffers refused at the memory limit.",
     &WorkerMetrics::buffer_refusals},
    {"sluice_accepted_total", "counter", "Client connections accepted.", &WorkerMetrics::accepts},
    {"sluice_accept_pauses_total", "counter", "Times accepting paused (limit or no descriptors).",
     &WorkerMetrics::accept_pauses},
    {"sluice_upstream_connects_total", "counter", "Upstream connections opened.",
     &WorkerMetrics::upstream_connects},
    {"sluice_upstream_reuses_total", "counter", "Requests on a kept connection.",
     &WorkerMetrics::upstream_reuses},
    {"sluice_upstream_stale_total", "counter",
     "Kept connections found closed and replaced unnoticed.", &WorkerMetrics::upstream_stale},
    {"sluice_loop_turns_total", "counter", "Turns of the event loops.", &WorkerMetrics::turns},
    {"sluice_sends_total", "counter", "Send operations completed.", &WorkerMetrics::sends},
    {"sluice_receives_total", "counter", "Receive operations completed.", &WorkerMetrics::receives},
    {"sluice_no_buffers_total", "counter", "Receives that waited for a page (ENOBUFS).",
     &WorkerMetrics::no_buffers},
    {"sluice_ring_overflows_total", "counter", "Completion queue overflows.",
     &WorkerMetrics::ring_overflows},
};

void write_requests(Text& text, const Workers& workers) {
    text.family("sluice_requests_total", "counter", "Requests by path and how they ended.");
    for (std::size_t path = 0; path < static_cast<std::size_t>(RequestPath::kCount); ++path)
        for (std::size_t outcome = 0; outcome < static_cast<std::size_t>(Outcome::kCount);
             ++outcome) {
            std::uint64_t sum = 0;
            for (const WorkerMetrics* worker : workers)
                sum += worker->requests[path][outcome].value();
            text.sample(label("path", name_of(static_cast<RequestPath>(path))) + "," +
                            label("outcome", name_of(static_cast<Outcome>(outcome))),
                        static_cast<std::int64_t>(sum));
        }
}

void write_whole_on_decode(Text& text, const Workers& workers) {
    text.family("sluice_whole_on_decode_total", "counter",
                "Requests that one transfer cannot serve, by reason.");
    for (std::size_t reason = 1; reason < static_cast<std::size_t>(WholeOnDecode::kCount);
         ++reason) {
        std::uint64_t sum = 0;
        for (const WorkerMetrics* worker : workers) sum += worker->whole_on_decode[reason].value();
        text.sample(label("reason", name_of(static_cast<WholeOnDecode>(reason))),
                    static_cast<std::int64_t>(sum));
    }
}

template <class F>
void write_instances(Text& text, const fleet::FleetSnapshot& fleet, F&& value) {
    for (const fleet::Role role : {fleet::Role::Prefill, fleet::Role::Decode})
        for (const fleet::Instance& instance : fleet.of(role))
            text.sample(label("role", name_of(role)) + "," + label("instance", instance.url),
                        value(instance));
}

void write_fleet(Text& text, const fleet::FleetSnapshot& fleet) {
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

}  // namespace

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
                           std::int64_t in_flight, std::int64_t queued) {
    Text text;
    write_requests(text, workers);
    write_whole_on_decode(text, workers);
    text.family("sluice_requests_in_flight", "gauge", "Requests admitted and not yet ended.");
    text.sample("", in_flight);
    text.family("sluice_requests_queued", "gauge", "Requests waiting for admission.");
    text.sample("", queued);
    for (const Simple& simple : kSimple) {
        text.family(simple.name, simple.type, simple.help);
        text.sample("", total(workers, simple.counter));
    }
    write_fleet(text, fleet);
    return text.take();
}

}  // namespace sluice::pd
