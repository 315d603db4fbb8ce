// SPDX-License-Identifier: Apache-2.0
#include "pd/proxy.h"

#include <algorithm>

#include "http/head_guard.h"
#include "pd/local_routes.h"

namespace sluice::pd {

namespace {

constexpr std::uint32_t kExchangesMax = 1 << 20;  // the admission limit is far below
constexpr std::uint32_t kLegsMax = 1 << 21;

// Of a worker. More are cut, whatever that costs P: D's room belongs to clients who are there.
constexpr std::uint32_t kUnwantedDecodesMax = 64;

// While there is work, every so often the gauges are copied for /metrics, and the lateness of the
// timer that does it is the loop's lag.
constexpr Duration kPulse = std::chrono::milliseconds(5);

// Compares in a time that does not depend on where the texts differ.
bool equal_secret(std::string_view a, std::string_view b) {
    if (a.size() != b.size()) return false;
    unsigned difference = 0;
    for (std::size_t i = 0; i < a.size(); ++i)
        difference |= static_cast<unsigned char>(a[i]) ^ static_cast<unsigned char>(b[i]);
    return difference == 0;
}

bool needs_key(Serve serve) {
    return serve == Serve::PrefillDecode || serve == Serve::OneDecode || serve == Serve::Models;
}

}  // namespace

Proxy::Proxy(io::Loop& loop, Shared& shared, std::uint64_t seed)
    : loop_(loop),
      shared_(shared),
      options_(shared.options),
      fleet_(shared.fleet),
      server_(loop, *this, shared.options.server, shared.options.connections_max),
      rng_(seed),
      budget_(shared.options.retry_budget),
      exchanges_(kExchangesMax),
      legs_(kLegsMax),
      free_ended_(Delegate<void()>::to<&Proxy::free_ended>(*this)),
      pulse_(Delegate<void()>::to<&Proxy::on_pulse>(*this)) {
    http::UpstreamOptions upstream;
    upstream.connect_timeout = options_.connect_timeout;
    upstream.idle_timeout = options_.upstream_keep_alive;
    for (const fleet::Role role : {fleet::Role::Prefill, fleet::Role::Decode}) {
        const auto r = static_cast<std::size_t>(role);
        for (const fleet::Instance& instance : fleet_->of(role))
            pools_[r].push_back(
                std::make_unique<http::UpstreamPool>(loop_, instance.address, upstream));
        metrics_.pools[r] = std::vector<PoolMetrics>(pools_[r].size());
    }
    if (shared_.access_log != nullptr) access_log_ = &shared_.access_log->add_writer();
    pace_.resize(fleet_->prefill.size());
    shared_.admission.add_worker(loop_.io());
    const std::uint32_t number = shared_.proxies++;
    if (shared_.relay == nullptr) return;
    relay_ = std::make_unique<relay::Relay>(loop_, *shared_.relay, number, rng_);
    follow_prefills();
}

Proxy::~Proxy() { ASSERT(finished()); }

void Proxy::drain() {
    draining_ = true;
    server_.drain();
    for (auto& pools : pools_)
        for (auto& pool : pools) pool->drain();
}

void Proxy::shut_down() {
    cut_off_ = true;
    drain();
    server_.shut_down();
    legs_.for_each([](Leg& leg) { leg.cancel(); });
    if (relay_ != nullptr && exchanges_.size() == 0) relay_->stop();
}

// Not before the last request of all workers, and of what their clients left behind the prefills
// and the pulls that these have: their decodes are told how they end.
bool Proxy::relay_may_stop() const {
    if (!draining_ || exchanges_.size() != 0 || shared_.admission.in_flight() != 0) return false;
    return cut_off_ || (legs_.size() == 0 && !relay_->busy());
}

bool Proxy::finished() const {
    if (!server_.finished() || exchanges_.size() != 0 || legs_.size() != 0) return false;
    if (relay_ != nullptr && !relay_->finished()) return false;
    for (const auto& pools : pools_)
        for (const auto& pool : pools)
            if (pool->open() != 0) return false;
    return true;
}

// -- requests

void Proxy::on_head(http::ServerConnection& client) {
    const http::RequestHead& head = client.request();
    const Route* route = find_route(head.path);
    const RequestPath path = path_of(route);
    if (route == nullptr) {
        note_end(&client, path, Outcome::ClientError, 404);
        return client.respond_error(404, "this path is not served here");
    }
    const bool method_fits =
        route->post ? head.method == "POST" : head.method == "GET" || head.method == "HEAD";
    if (!method_fits) {
        note_end(&client, path, Outcome::ClientError, 405);
        return client.respond_error(405, "this method is not allowed here",
                                    route->post ? "Allow: POST\r\n" : "Allow: GET, HEAD\r\n");
    }
    if (needs_key(route->serve) && !authorized(client)) {
        note_end(&client, path, Outcome::ClientError, 401);
        return client.respond_error(401, "a valid API key is needed (Authorization: Bearer ...)",
                                    "WWW-Authenticate: Bearer\r\n");
    }
}

bool Proxy::authorized(const http::ServerConnection& client) const {
    if (options_.api_keys.empty()) return true;
    auto given = client.request().fields.find(http::FieldId::Authorization).value_or("");
    // Anthropic's clients send their key in a field of its own.
    constexpr std::string_view kScheme = "Bearer ";
    if (given.size() > kScheme.size() &&
        http::equals_ignoring_case(given.substr(0, kScheme.size()), kScheme)) {
        given.remove_prefix(kScheme.size());
    } else {
        given = client.request().fields.find("x-api-key").value_or("");
    }
    bool known = false;
    for (const std::string& key : options_.api_keys) known |= equal_secret(given, key);
    return known;
}

void Proxy::on_request(http::ServerConnection& client) {
    const Route* route = find_route(client.request().path);
    if (route->serve != Serve::PrefillDecode && route->serve != Serve::OneDecode)
        return serve_locally(client, *route);
    Exchange* exchange = exchanges_.emplace(*this, client, *route);
    if (exchange == nullptr) {
        note_end(&client, path_of(route), Outcome::Overload, 503);
        return client.respond_error(503, "too many requests are being served",
                                    "Retry-After: 1\r\n");
    }
    client.set_context(exchange);
    exchange->begin();
}

void Proxy::on_client_gone(http::ServerConnection& client) {
    auto* exchange = static_cast<Exchange*>(client.context());
    if (exchange != nullptr && !exchange->done()) exchange->client_gone();
}

void Proxy::on_drained(http::ServerConnection& client) {
    auto* exchange = static_cast<Exchange*>(client.context());
    if (exchange != nullptr && !exchange->done()) exchange->client_drained();
}

void Proxy::on_refused(std::uint16_t status) {
    metrics_.refused_heads.add();
    note_end(nullptr, RequestPath::Unknown, Outcome::ClientError, status);
}

void Proxy::note_end(http::ServerConnection* client, RequestPath path, Outcome outcome,
                     std::uint16_t status) {
    metrics_.count(path, outcome);
    const std::uint32_t sample = log_wanted(outcome);
    if (sample == 0) return;
    AccessRecord record;
    record.ended = loop_.now();
    record.timeline.status = status;
    record.sample = sample;
    record.outcome = outcome;
    if (client != nullptr) {
        record.timeline.received = client->request_began();
        record.path.set(client->request().path);
        const auto id = client->request().fields.find(http::FieldId::XRequestId);
        if (id && id->size() <= kRequestIdMax && http::is_token(*id)) record.request_id.set(*id);
    }
    log(record);
}

void Proxy::serve_locally(http::ServerConnection& client, const Route& route) {
    // Nothing known of the models yet: an engine answers for itself.
    if (route.serve == Serve::Models && fleet_->models_json.empty()) {
        Exchange* exchange = exchanges_.emplace(*this, client, route);
        if (exchange == nullptr) {
            note_end(&client, RequestPath::Local, Outcome::Overload, 503);
            return client.respond_error(503, "too many requests are being served");
        }
        client.set_context(exchange);
        return exchange->begin();
    }
    // Counted before it is answered: the answer's end may begin the next request.
    LocalRoutes local(*this, client);
    const bool unready = route.serve == Serve::Ready && !local.can_serve();
    note_end(&client, RequestPath::Local, unready ? Outcome::Unavailable : Outcome::Ok,
             unready ? 503 : 200);
    local.serve(route.serve);
}

// -- admission

void Proxy::enqueue(Exchange& exchange) {
    if (waiting_.empty() && shared_.admission.try_enter()) return exchange.admitted();
    if (!shared_.admission.try_queue()) return exchange.turned_away();
    waiting_.push_back(exchange);
    exchange.queued();
}

void Proxy::admit_waiting() {
    while (Exchange* exchange = waiting_.front()) {
        if (!shared_.admission.try_enter()) return;
        exchange->unlink();
        shared_.admission.leave_queue();
        exchange->admitted();
    }
}

void Proxy::leave(Exchange& exchange, bool was_admitted) {
    if (exchange.linked()) {
        exchange.unlink();
        shared_.admission.leave_queue();
    }
    if (!was_admitted) return;
    shared_.admission.leave();
    // Workers that drain serve each other's pulls until the last request has ended.
    if (draining_ && shared_.relay != nullptr && shared_.admission.in_flight() == 0)
        for (std::size_t i = 0; i < shared_.relay->workers(); ++i) shared_.relay->wake(i);
    if (waiting_.empty()) shared_.admission.wake_waiting_workers(loop_.io());
    // This worker's own waiters get their turn when the loop is quiescent.
}

// -- instances

bool Proxy::can_serve(const fleet::Instance& instance, bool with_dialect) const {
    if (!instance.usable()) return false;
    if (!with_dialect) return true;
    if (dialect_of(instance.dialect) == nullptr) return false;
    // Recognised as mooncake, but its bootstrap server has not yet named its ranks.
    return instance.dialect != fleet::DialectKind::Mooncake || !instance.ranks.empty();
}

// The instances that may be chosen, from the best kind that there is any of. What failed this
// request before is avoided while there is another; an open breaker diverts requests only while
// there is somewhere to divert them to.
std::size_t Proxy::find_candidates(fleet::Role role, std::uint64_t excluded, std::uint64_t lost,
                                   bool with_dialect, std::span<std::uint16_t> found) const {
    struct Kind {
        std::uint64_t avoided;
        bool heed_breakers;
    };
    const Kind kinds[] = {{excluded | lost, true}, {excluded, false}, {lost, true}, {0, false}};
    for (const Kind& kind : kinds) {
        std::size_t count = 0;
        for (const fleet::Instance& instance : fleet_->of(role)) {
            if ((kind.avoided >> instance.index & 1) != 0) continue;
            if (!can_serve(instance, with_dialect)) continue;
            if (kind.heed_breakers && !fleet::may_try(*instance.state, loop_.now())) continue;
            if (kind.heed_breakers && with_dialect &&
                instance.dialect == fleet::DialectKind::Mooncake && !instance.ids_sure())
                continue;
            found[count++] = static_cast<std::uint16_t>(instance.index);
        }
        if (count > 0) return count;
    }
    return 0;
}

Proxy::Pick Proxy::pick(fleet::Role role, std::uint64_t excluded, std::string_view affinity_key,
                        bool with_dialect) {
    const std::vector<fleet::Instance>& instances = fleet_->of(role);
    const Instant now = loop_.now();
    std::uint16_t candidates[limits::kInstancesMax];
    std::uint64_t lost = 0;  // another request took the half-open probe first
    while (true) {
        const std::size_t count = find_candidates(role, excluded, lost, with_dialect, candidates);
        if (count == 0) return {};
        fleet::PickContext context;
        context.candidates = std::span(candidates, count);
        context.turn = picks_[static_cast<int>(role)]++;
        context.affinity_key = affinity_key;
        context.rng = &rng_;
        const auto policy = fleet::policy_of(role == fleet::Role::Prefill ? options_.prefill_policy
                                                                          : options_.decode_policy);
        const fleet::Instance& chosen =
            instances[count == 1 ? candidates[0] : policy(instances, context)];
        // Without an alternative the breaker is passed over; otherwise a half-open one lets one
        // request through.
        if (!fleet::may_try(*chosen.state, now)) return {&chosen, 0};
        if (const fleet::Claim claim = fleet::claim(*chosen.state, now))
            return {&chosen, claim.ticket};
        lost |= 1ULL << chosen.index;
    }
}

http::UpstreamPool& Proxy::pool(fleet::Role role, std::uint32_t index) {
    return *pools_[static_cast<int>(role)][index];
}

Leg* Proxy::new_leg(LegEvents& events, const Pick& pick) {
    Leg* leg = legs_.emplace(loop_, *this, events, *pick.instance, pick.ticket);
    ASSERT(leg != nullptr);  // two a request, and requests are limited
    return leg;
}

bool Proxy::let_finish(Leg& decode) {
    if (unwanted_decodes_ >= kUnwantedDecodesMax) return false;
    ++unwanted_decodes_;
    metrics_.decodes_detached.add();
    decode.set_reading(true);
    decode.detach(options_.request_timeout);
    return true;
}

void Proxy::let_prefill_finish(Leg& prefill) {
    metrics_.prefills_detached.add();
    if (prefill.late()) return prefill.detach(options_.request_timeout);
    prefill.detach();
}

void Proxy::report(fleet::InstanceState& state, fleet::Outcome outcome, std::uint32_t ticket) {
    if (outcome == fleet::Outcome::Failure) state.failures.fetch_add(1, std::memory_order_relaxed);
    fleet::report(state, outcome, loop_.now(), options_.health, ticket);
}

// -- ends: objects are freed when nothing of theirs is on the stack

void Proxy::leg_ended(Leg& leg) {
    if (leg.transfer().valid() && relay_ != nullptr)
        relay_->prefill_over(leg.transfer(), leg.answered() && leg.status() < 300);
    if (leg.detached() && leg.role() == fleet::Role::Decode) --unwanted_decodes_;
    ended_legs_.push_back(&leg);
    loop_.defer(free_ended_);
}

void Proxy::exchange_done(Exchange& exchange) {
    done_exchanges_.push_back(&exchange);
    loop_.defer(free_ended_);
}

void Proxy::free_ended() {
    for (Exchange* exchange : done_exchanges_) exchanges_.erase(*exchange);
    done_exchanges_.clear();
    for (Leg* leg : ended_legs_) legs_.erase(*leg);
    ended_legs_.clear();
    // The relay ends between turns behind the last exchange, and nothing else may make another turn.
    if (draining_ && relay_ != nullptr && exchanges_.size() == 0) loop_.io().wake();
}

// -- between turns

void Proxy::between_turns() {
    if (fleet_.refresh()) follow_fleet();
    if (relay_ != nullptr) {
        relay_->between_turns();
        if (relay_may_stop()) relay_->stop();
    }
    if (!waiting_.empty()) admit_waiting();
    // The turn that the pulse itself made is no work.
    if (!pulse_.armed() && loop_.io().counters().turns != turns_at_pulse_) {
        pulse_due_ = loop_.now() + kPulse;
        loop_.arm(pulse_, kPulse);
    }
}

void Proxy::on_pulse() {
    metrics_.loop_lag.record(loop_.now() - pulse_due_);
    turns_at_pulse_ = loop_.io().counters().turns;
    note_gauges();
}

void Proxy::follow_fleet() {
    for (const fleet::Role role : {fleet::Role::Prefill, fleet::Role::Decode})
        for (const fleet::Instance& instance : fleet_->of(role))
            if (instance.address.valid()) pool(role, instance.index).set_address(instance.address);
    exchanges_.for_each([](Exchange& exchange) { exchange.fleet_changed(); });
    if (relay_ != nullptr) follow_prefills();
}

void Proxy::follow_prefills() {
    std::vector<relay::KnownPrefill> known;
    for (const fleet::Instance& instance : fleet_->prefill) {
        const Dialect* dialect = dialect_of(instance.dialect);
        if (dialect == nullptr || !dialect->can_be_relayed()) continue;
        relay::KnownPrefill& prefill = known.emplace_back();
        prefill.index = instance.index;
        for (const fleet::DataParallelRank& rank : instance.ranks) {
            relay::KnownPrefill::Rank& each = prefill.ranks.emplace_back();
            each.engine_id = rank.engine_id;
            for (const fleet::RankWorker& worker : rank.workers)
                if (worker.address.valid())
                    each.workers.push_back({worker.tp_rank, worker.pp_rank, worker.address, 0});
            // A worker that we cannot reach would have nobody stand for it.
            if (each.workers.size() != rank.workers.size()) each.workers.clear();
        }
    }
    relay_->follow(known);
}

void Proxy::note_gauges() {
    for (std::size_t role = 0; role < std::size(pools_); ++role)
        for (std::size_t i = 0; i < pools_[role].size(); ++i) {
            const http::UpstreamPool& pool = *pools_[role][i];
            PoolMetrics& noted = metrics_.pools[role][i];
            noted.open.set(pool.open());
            noted.idle.set(pool.idle());
            noted.connects.set(pool.counters().connects);
            noted.connect_failures.set(pool.counters().connect_failures);
            noted.reuses.set(pool.counters().reuses);
            noted.stale.set(pool.counters().stale_replaced);
        }
    const io::IoCounters& io = loop_.io().counters();
    BufferPool& buffers = loop_.buffers();
    metrics_.exchanges.set(exchanges_.size());
    metrics_.legs.set(legs_.size());
    metrics_.client_connections.set(server_.connections());
    metrics_.operations.set(loop_.io().operations_in_flight());
    metrics_.buffers.set(buffers.buffers_in_use());
    metrics_.buffer_bytes.set(buffers.bytes_in_use());
    metrics_.buffer_refusals.set(buffers.refusals());
    metrics_.accepts.set(server_.counters().accepted);
    metrics_.accept_pauses.set(server_.counters().accept_pauses);
    metrics_.turns.set(io.turns);
    metrics_.sends.set(io.sends);
    metrics_.receives.set(io.receives);
    metrics_.socket_bytes_in.set(io.bytes_in);
    metrics_.socket_bytes_out.set(io.bytes_out);
    metrics_.no_buffers.set(io.no_buffers);
    metrics_.ring_overflows.set(io.overflows);
}

}  // namespace sluice::pd
