// SPDX-License-Identifier: Apache-2.0
#include "pd/relay_metrics.h"

#include <algorithm>

namespace sluice::pd {

namespace {

using relay::RelayMetrics;

struct Row {
    const char* name;
    const char* type;
    const char* help;
    obs::Counter RelayMetrics::*counter;
};

constexpr Row kRows[] = {
    {"sluice_relay_transfers_total", "counter", "Attempts whose decode was told to pull here.",
     &RelayMetrics::transfers},
    {"sluice_relay_pulls_total", "counter", "Messages of decodes.", &RelayMetrics::pulls},
    {"sluice_relay_handed_on_total", "counter", "Requests handed on to a prefill's worker.",
     &RelayMetrics::handed_on},
    {"sluice_relay_handed_on_early_total", "counter",
     "... before the prefill was known to be done.", &RelayMetrics::handed_early},
    {"sluice_relay_completed_total", "counter", "Requests that the prefill's worker served.",
     &RelayMetrics::completed},
    {"sluice_relay_failed_total", "counter", "Requests that it failed, or left without an answer.",
     &RelayMetrics::failed},
    {"sluice_relay_refused_total", "counter",
     "Requests answered by the relay since their prefill failed or was given up.",
     &RelayMetrics::refused},
    {"sluice_relay_stale_total", "counter",
     "Requests answered by the relay since they were unknown, late or repeated.",
     &RelayMetrics::stale},
    {"sluice_relay_released_total", "counter", "Blocks of a prefill freed by an empty pull.",
     &RelayMetrics::released},
    {"sluice_relay_unreleased_total", "counter", "... that could not be: they expire.",
     &RelayMetrics::unreleased},
    {"sluice_relay_malformed_total", "counter", "Messages that could not be read.",
     &RelayMetrics::malformed},
    {"sluice_relay_way_blocked_total", "counter",
     "Times a decode was found not to reach the relay.", &RelayMetrics::way_blocked},
    {"sluice_relay_open_transfers", "gauge", "Transfers not yet over.",
     &RelayMetrics::open_transfers},
    {"sluice_relay_open_pulls", "gauge", "Messages of decodes not yet answered.",
     &RelayMetrics::open_pulls},
    {"sluice_relay_dangling", "gauge",
     "Requests with a prefill that has failed since: each takes one of its seats until it expires.",
     &RelayMetrics::dangling},
    {"sluice_relay_connections", "gauge", "Of decodes and to prefills' workers.",
     &RelayMetrics::connections},
};

}  // namespace

std::string render_relay_metrics(const relay::Board& board, const fleet::FleetSnapshot& fleet) {
    std::string out;
    const auto family = [&](const char* name, const char* type, const char* help) {
        out.append("# HELP ").append(name).append(" ").append(help).append("\n# TYPE ");
        out.append(name).append(" ").append(type).append("\n");
    };
    for (const Row& row : kRows) {
        std::uint64_t sum = 0;
        for (const RelayMetrics* worker : board.metrics()) sum += (worker->*row.counter).value();
        family(row.name, row.type, row.help);
        out.append(row.name).append(" ").append(std::to_string(sum)).append("\n");
    }
    constexpr const char* kEarly = "sluice_relay_early";
    family(kEarly, "gauge", "Requests with a prefill that is not known to be done, by instance.");
    for (const fleet::Instance& instance : fleet.prefill)
        if (instance.index < relay::Board::kPrefillsMax)
            out.append(kEarly)
                .append("{instance=\"")
                .append(instance.url)
                .append("\"} ")
                .append(
                    std::to_string(board.early[instance.index].load(std::memory_order_relaxed)) +
                    "\n");
    constexpr const char* kWay = "sluice_relay_way";
    family(kWay, "gauge",
           "1: the decode has pulled through the relay; 0: not yet, or driven directly.");
    for (const fleet::Instance& instance : fleet.decode)
        if (instance.index < relay::Board::kDecodesMax)
            out.append(kWay)
                .append("{instance=\"")
                .append(instance.url)
                .append("\"} ")
                .append(board.ways[instance.index].proven.load(std::memory_order_relaxed) ? "1\n"
                                                                                          : "0\n");
    return out;
}

}  // namespace sluice::pd
