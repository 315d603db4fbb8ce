// SPDX-License-Identifier: Apache-2.0
// One worker's proxy: takes requests from its HTTP server, gives each an exchange, and holds what
// exchanges share.
//
// Life of a request, by function: ServerConnection::begin_request -> Proxy::on_head ->
// Proxy::on_request -> Exchange::begin -> admitted -> attempt -> (choose_pair, start_prefill,
// start_decode) -> on_leg_* -> commit -> relay -> finish. Threads: one; what workers share is in
// Shared. Owns: the server, the upstream pools, exchanges and legs.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/rng.h"
#include "http/server.h"
#include "json/scan.h"
#include "pd/access_log.h"
#include "pd/admission.h"
#include "pd/exchange.h"
#include "pd/options.h"
#include "pd/prefill_pace.h"
#include "pd/retry_budget.h"

namespace sluice::pd {

// What all workers of a process share.
struct Shared {
    Shared(const ProxyOptions& options_in, fleet::Fleet& fleet_in, std::size_t workers = 1)
        : options(options_in),
          fleet(fleet_in),
          admission(options_in.in_flight_max, options_in.queue_max) {
        if (options.relay.enabled) relay = std::make_unique<relay::Board>(options.relay, workers);
    }

    const ProxyOptions& options;
    fleet::Fleet& fleet;
    Admission admission;
    AccessLog* access_log = nullptr;            // before the workers are made
    std::unique_ptr<relay::Board> relay;        // nullptr: decodes are driven directly
    std::uint32_t proxies = 0;                  // made so far: the next one's number
    std::vector<const WorkerMetrics*> metrics;  // of every worker, before they start
    std::atomic<bool> draining{false};          // /ready says no from here on
};

class Proxy final : public http::RequestHandler, public LegOwner {
public:
    Proxy(io::Loop& loop, Shared& shared, std::uint64_t seed);
    ~Proxy();

    void add_listener(io::Socket listener) { server_.add_listener(listener); }

    // Stops accepting; exchanges in flight go on. finished() when the last has ended.
    void drain();
    // Ends everything now. Run the loop until finished().
    void shut_down();
    bool finished() const;

    // Between turns, when no reference into the fleet is held: follows the fleet, admits who waits.
    void between_turns();

    const WorkerMetrics& metrics() const { return metrics_; }
    http::Server& server() { return server_; }

private:
    friend class Exchange;
    friend class LocalRoutes;

    // -- http::RequestHandler
    void on_head(http::ServerConnection& client) override;
    void on_request(http::ServerConnection& client) override;
    void on_client_gone(http::ServerConnection& client) override;
    void on_drained(http::ServerConnection& client) override;
    void on_refused(std::uint16_t status) override;

    // -- LegOwner
    void leg_ended(Leg& leg) override;
    void report(fleet::InstanceState& state, fleet::Outcome outcome, std::uint32_t ticket) override;

    // -- for exchanges
    // `with_dialect`: as a prefill of a request with two legs.
    bool can_serve(const fleet::Instance& instance, bool with_dialect) const;
    std::size_t find_candidates(fleet::Role role, std::uint64_t excluded, std::uint64_t lost,
                                bool with_dialect, std::span<std::uint16_t> found) const;
    struct Pick {
        const fleet::Instance* instance = nullptr;  // nullptr: nobody can serve
        std::uint32_t ticket = 0;                   // of its half-open probe, which this leg is
    };
    Pick pick(fleet::Role role, std::uint64_t excluded, std::string_view affinity_key,
              bool with_dialect);
    http::UpstreamPool& pool(fleet::Role role, std::uint32_t index);
    Leg* new_leg(LegEvents& events, const Pick& pick);
    // Leaves a decode to itself whose client is gone; false: too many are.
    bool let_finish(Leg& decode);
    void let_prefill_finish(Leg& prefill);
    void enqueue(Exchange& exchange);
    void leave(Exchange& exchange, bool was_admitted);
    void exchange_done(Exchange& exchange);
    void serve_locally(http::ServerConnection& client, const Route& route);

    // -- ends of requests: counted and logged
    std::uint32_t log_wanted(Outcome outcome) {
        return access_log_ == nullptr ? 0 : access_log_->wanted(outcome);
    }
    void log(const AccessRecord& record) {
        if (!access_log_->put(record)) metrics_.log_dropped.add();
    }
    // Of requests without an exchange; `client` is nullptr if there was no valid head.
    void note_end(http::ServerConnection* client, RequestPath path, Outcome outcome,
                  std::uint16_t status);

    bool authorized(const http::ServerConnection& client) const;
    void admit_waiting();
    void follow_fleet();
    void follow_prefills();
    void note_gauges();
    void on_pulse();
    void free_ended();
    bool relay_may_stop() const;

    io::Loop& loop_;
    Shared& shared_;
    const ProxyOptions& options_;
    fleet::Fleet::Reader fleet_;
    WorkerMetrics metrics_;
    AccessLog::Writer* access_log_ = nullptr;
    http::Server server_;
    Rng rng_;
    json::Scanner scanner_;
    RetryBudget budget_;
    std::uint64_t picks_[2] = {};
    std::vector<PrefillPace> pace_;  // by prefill instance
    std::vector<std::unique_ptr<http::UpstreamPool>> pools_[2];
    std::unique_ptr<relay::Relay> relay_;
    Slab<Exchange> exchanges_;
    Slab<Leg> legs_;
    IntrusiveList<Exchange> waiting_;
    std::vector<Exchange*> done_exchanges_;
    std::vector<Leg*> ended_legs_;
    std::uint32_t unwanted_decodes_ = 0;
    io::Deferred free_ended_;
    Timer pulse_;  // while there is work
    Instant pulse_due_{};
    std::uint64_t turns_at_pulse_ = 0;
    bool draining_ = false;
    bool cut_off_ = false;  // shut_down() was called
};

}  // namespace sluice::pd
