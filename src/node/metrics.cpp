// SPDX-License-Identifier: Apache-2.0
#include "node/metrics.h"

#include <fmt/format.h>

namespace sluice::node {

namespace {

class Text {
public:
    std::string text;

    void head(std::string_view name, std::string_view type, std::string_view help) {
        text +=
            fmt::format("# HELP sluice_kv_{} {}\n# TYPE sluice_kv_{} {}\n", name, help, name, type);
    }
    void line(std::string_view name, std::string_view labels, std::uint64_t value) {
        text += labels.empty() ? fmt::format("sluice_kv_{} {}\n", name, value)
                               : fmt::format("sluice_kv_{}{{{}}} {}\n", name, labels, value);
    }
    void counter(std::string_view name, std::string_view help, std::uint64_t value) {
        head(name, "counter", help);
        line(name, "", value);
    }
    void gauge(std::string_view name, std::string_view help, std::uint64_t value) {
        head(name, "gauge", help);
        line(name, "", value);
    }
    void histogram(std::string_view name, std::string_view labels,
                   const obs::DurationHistogram& of) {
        obs::DurationHistogram::Sum sum;
        sum.add(of);
        std::uint64_t count = 0;
        const std::string comma = labels.empty() ? "" : ",";
        for (std::size_t i = 0; i < obs::DurationHistogram::kBounds; ++i) {
            count += sum.buckets[i];
            text += fmt::format("sluice_kv_{}_bucket{{{}{}le=\"{}\"}} {}\n", name, labels, comma,
                                obs::DurationHistogram::kBoundTexts[i], count);
        }
        count += sum.buckets[obs::DurationHistogram::kBounds];
        text +=
            fmt::format("sluice_kv_{}_bucket{{{}{}le=\"+Inf\"}} {}\n", name, labels, comma, count);
        const std::string braces = labels.empty() ? "" : "{" + std::string(labels) + "}";
        text += fmt::format("sluice_kv_{}_sum{} {:.9f}\n", name, braces,
                            static_cast<double>(sum.ns) * 1e-9);
        text += fmt::format("sluice_kv_{}_count{} {}\n", name, braces, count);
    }
};

}  // namespace

std::string metrics_text(const NodeMetrics& metrics, const DataPlane& plane) {
    Text out;
    const auto each = [&](auto&& visit) {
        for (std::size_t i = 0; i < plane.size(); ++i)
            for (const bool sent : {false, true})
                visit(fmt::format("transport=\"{}\",direction=\"{}\"", plane.slot(i).name,
                                  sent ? "sent" : "received"),
                      sent ? metrics.sent[i] : metrics.received[i]);
    };
    const auto per_transport = [&](std::string_view name, std::string_view help,
                                   obs::Counter TransferMetrics::*member) {
        out.head(name, "counter", help);
        each([&](const std::string& labels, const TransferMetrics& of) {
            out.line(name, labels, (of.*member).value());
        });
    };
    per_transport("transfers_total", "Transfers that landed.", &TransferMetrics::transfers);
    per_transport("transfers_failed_total", "Transfers that did not.", &TransferMetrics::failed);
    per_transport("bytes_total", "Bytes of landed transfers.", &TransferMetrics::bytes);
    per_transport("pieces_total", "Pieces before merging neighbours.",
                  &TransferMetrics::ranges_before);
    per_transport("pieces_merged_total", "Pieces after merging neighbours in this side's memory.",
                  &TransferMetrics::ranges_after);
    out.head("transfer_seconds", "histogram", "From the publish (or pull) to the last byte.");
    each([&](const std::string& labels, const TransferMetrics& of) {
        out.histogram("transfer_seconds", labels, of.time);
    });
    out.head("transfer_seconds_per_gigabyte", "histogram", "The rate, upside down; 10^9 bytes.");
    each([&](const std::string& labels, const TransferMetrics& of) {
        out.histogram("transfer_seconds_per_gigabyte", labels, of.time_per_gb);
    });
    out.head("abort_seconds", "histogram", "From an abort or failure until nothing can land.");
    out.histogram("abort_seconds", "", metrics.abort_time);
    out.counter("aborts_total", "Pulls that abort() ended.", metrics.aborts.value());
    out.counter("aborts_late_total", "Fences that took longer than their bound.",
                metrics.aborts_late.value());
    out.gauge("leases_live", "Published transfers.", metrics.leases_live.value());
    out.head("leases_ended_total", "counter", "By how they ended.");
    out.line("leases_ended_total", "end=\"pulled\"", metrics.leases_pulled.value());
    out.line("leases_ended_total", "end=\"released\"", metrics.leases_released.value());
    out.line("leases_ended_total", "end=\"expired\"", metrics.leases_expired.value());
    out.gauge("pulls_live", "Pulls of this node.", metrics.pulls_live.value());
    out.gauge("pulls_waiting", "Peers' pulls that wait for their publish.",
              metrics.pulls_waiting.value());
    out.gauge("peers", "Control connections.", metrics.peers.value());
    out.counter("peers_lost_total", "Control connections that ended.", metrics.peers_lost.value());
    out.counter("reconnects_total", "Connections made again.", metrics.reconnects.value());
    out.counter("restarts_seen_total", "Peers that came back as another life.",
                metrics.restarts_seen.value());
    out.head("refused_total", "counter", "Peers refused, by reason.");
    out.line("refused_total", "reason=\"token\"", metrics.wrong_tokens.value());
    out.line("refused_total", "reason=\"version\"", metrics.wrong_versions.value());
    out.line("refused_total", "reason=\"shape\"", metrics.wrong_shapes.value());
    out.line("refused_total", "reason=\"limit\"", metrics.peers_refused.value());
    const auto wire = [&](std::string_view name, std::string_view help,
                          std::uint64_t transport::TransportCounters::*member) {
        out.head(name, "counter", help);
        for (std::size_t i = 0; i < plane.size(); ++i)
            out.line(name, fmt::format("transport=\"{}\"", plane.slot(i).name),
                     plane.slot(i).transport->counters().*member);
    };
    wire("fenced_bytes_total", "Bytes that came for a closed landing and were dropped.",
         &transport::TransportCounters::bytes_dropped);
    wire("checksum_errors_total", "Frames whose CRC32C did not match.",
         &transport::TransportCounters::checksum_errors);
    wire("data_reconnects_total", "Data connections made again.",
         &transport::TransportCounters::reconnects);
    wire("violations_total", "Data connections closed for bytes outside the protocol.",
         &transport::TransportCounters::violations);
    out.head("sender_queue_depth", "gauge", "Jobs that a sender thread has not taken.");
    for (unsigned i = 0; i < plane.senders().size(); ++i)
        out.line("sender_queue_depth", fmt::format("sender=\"{}\"", i),
                 plane.senders().queue_depth(i));
    out.head("sender_cpu_nanoseconds_total", "counter", "CPU time of a sender thread.");
    for (unsigned i = 0; i < plane.senders().size(); ++i)
        out.line("sender_cpu_nanoseconds_total", fmt::format("sender=\"{}\"", i),
                 plane.senders().cpu_ns(i));
    // Of both directions, since it started; what the loop's thread spends is not in it.
    double cpu_seconds = 0, gib = 0;
    for (unsigned i = 0; i < plane.senders().size(); ++i)
        cpu_seconds += static_cast<double>(plane.senders().cpu_ns(i)) * 1e-9;
    for (std::size_t i = 0; i < plane.size(); ++i) {
        const auto counters = plane.slot(i).transport->counters();
        gib += static_cast<double>(counters.bytes_sent + counters.bytes_landed) / (1 << 30);
    }
    out.head("sender_cpu_seconds_per_gib", "gauge",
             "CPU time of the sender threads for each 2^30 bytes sent or received.");
    out.text += fmt::format("sluice_kv_sender_cpu_seconds_per_gib {:.6f}\n",
                            gib > 0 ? cpu_seconds / gib : 0.0);
    return std::move(out.text);
}

}  // namespace sluice::node
