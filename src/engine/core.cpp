// SPDX-License-Identifier: Apache-2.0
#include "engine/core.h"

#include <algorithm>

#include "engine/kv/mooncake.h"
#include "engine/kv/nixl.h"
#include "engine/kv/peer_address.h"

namespace sluice::engine {

std::string host_of(const io::Address& address) {
    if (!address.valid() || address.is_unix()) return {};
    std::string host = address.text();
    host.resize(host.rfind(':'));
    if (host.starts_with('[')) host = host.substr(1, host.size() - 2);
    return host;
}

std::string reachable_host(const EngineOptions& options) {
    if (!options.host_ip.empty()) return options.host_ip;
    const std::string host = host_of(options.listen);
    return host.empty() || host == "0.0.0.0" || host == "::" ? "127.0.0.1" : host;
}

Core::Core(const Context& context)
    : context_(context),
      calls_(context.loop),
      channel_(context),
      registrar_(context.loop, calls_, {.timeout = context.options.kv.connector_timeout}),
      registration_timer_(Delegate<void()>::to<&Core::on_registration_timer>(*this)) {}

Core::~Core() = default;

Result<void> Core::start(std::uint16_t bootstrap_port) {
    const EngineOptions& options = context_.options;
    const bool mooncake = options.kv.connector == ConnectorKind::Mooncake;
    const std::string base =
        options.kv.engine_id.empty() ? random_uuid(context_.rng) : options.kv.engine_id;
    for (std::uint32_t rank = 0; rank < std::max(options.data_parallel, 1U); ++rank) {
        const std::string engine_id =
            options.data_parallel > 1 ? base + "_dp" + std::to_string(rank) : base;
        ranks_.push_back({std::make_unique<Scheduler>(context_, rank), nullptr, 0});
        Scheduler& scheduler = *ranks_.back().scheduler;
        if (mooncake) TRY(open_mooncake(scheduler, rank, engine_id));
        if (options.kv.connector == ConnectorKind::Nixl) TRY(open_nixl(scheduler, rank, engine_id));
    }
    if (mooncake && produces() && !options.kv.sequential && options.kv.external_bootstrap.empty())
        TRY(open_bootstrap(bootstrap_port));
    register_next();
    return {};
}

Result<void> Core::open_mooncake(Scheduler& scheduler, std::uint32_t rank,
                                 const std::string& engine_id) {
    auto connector =
        std::make_unique<MooncakeConnector>(context_, scheduler, calls_, channel_, engine_id);
    MooncakeConnector& opened = *connector;
    scheduler.set_connector(&opened);
    ranks_.back().connector = std::move(connector);
    if (!produces()) return {};
    const auto address = io::Address::from_ip(reachable_host(context_.options), 0);
    if (!address) return std::unexpected(address.error());
    const auto workers = opened.open(*address);
    if (!workers) return std::unexpected(workers.error());
    if (context_.options.kv.sequential) return {};
    for (std::uint32_t tp = 0; tp < workers->size(); ++tp)
        registrations_.push_back({engine_id, rank, tp, 0, tcp_url((*workers)[tp])});
    return {};
}

Result<void> Core::open_nixl(Scheduler& scheduler, std::uint32_t rank,
                             const std::string& engine_id) {
    auto connector = std::make_unique<NixlConnector>(context_, scheduler, channel_, engine_id);
    NixlConnector& opened = *connector;
    scheduler.set_connector(&opened);
    ranks_.back().connector = std::move(connector);
    const std::uint16_t base = context_.options.kv.nixl_port;
    const auto port = static_cast<std::uint16_t>(base == 0 ? 0 : base + rank);
    const auto address = io::Address::from_ip(reachable_host(context_.options), port);
    if (!address) return std::unexpected(address.error());
    const auto bound = opened.open(*address);
    if (!bound) return std::unexpected(bound.error());
    return {};
}

Result<void> Core::open_bootstrap(std::uint16_t port) {
    std::string host = host_of(context_.options.listen);
    if (host.empty()) host = reachable_host(context_.options);
    const auto address = io::Address::from_ip(host, port);
    if (!address) return std::unexpected(address.error());
    const auto socket = context_.loop.io().listen(*address, false);
    if (!socket) return std::unexpected(socket.error());
    bootstrap_ = std::make_unique<kv::BootstrapServer>(context_.loop);
    bootstrap_->open(*socket);
    const auto bound = context_.loop.io().local_address(*socket);
    if (!bound) return std::unexpected(bound.error());
    bootstrap_address_ = *bound;
    return {};
}

// -- registration

// One worker after the other, as they come up; all at once unless options say otherwise.
void Core::register_next() {
    if (bootstrap_ == nullptr && !registrations_.empty()) return register_outside();
    while (registered_ < registrations_.size()) {
        const auto entered = bootstrap_->enter(registrations_[registered_]);
        ASSERT(entered.has_value());  // a new register and our own workers
        ++registered_;
        if (context_.options.kv.registration_interval > Duration::zero()) {
            context_.loop.arm(registration_timer_, context_.options.kv.registration_interval);
            return;
        }
    }
}

void Core::on_registration_timer() { register_next(); }

void Core::register_outside() {
    const auto address = peer_address(context_.options.kv.external_bootstrap, "", context_.options);
    if (!address) return context_.die("ValueError: bootstrap_server_address cannot be resolved");
    registrar_.start(*address, context_.options.kv.external_bootstrap, registrations_,
                     [this](const std::expected<void, std::string>& ended) {
                         if (ended) {
                             registered_ = registrations_.size();
                             return;
                         }
                         context_.log(ended.error());
                         context_.die("RuntimeError: cannot register");
                     });
}

// -- end

void Core::stop() {
    registration_timer_.cancel();
    registrar_.cancel();
    if (bootstrap_ != nullptr) bootstrap_->stop();
    for (Rank& rank : ranks_)
        if (rank.connector) rank.connector->stop();
    calls_.stop();
    channel_.stop();
}

bool Core::finished() const {
    if (bootstrap_ != nullptr && !bootstrap_->finished()) return false;
    return calls_.finished() && channel_.finished();
}

void Core::fail_all() {
    for (Rank& rank : ranks_) rank.scheduler->fail_all();
}

// -- what others see

Scheduler& Core::least_busy() {
    const auto load = [](const Rank& rank) {
        const SchedulerCounts counts = rank.scheduler->counts();
        return counts.running + counts.waiting + counts.loading;
    };
    return *std::ranges::min_element(ranks_, {}, load)->scheduler;
}

std::string Core::engine_id(std::size_t rank) const {
    return rank < ranks_.size() && ranks_[rank].connector ? ranks_[rank].connector->engine_id()
                                                          : std::string();
}

SchedulerCounts Core::scheduler_counts() const {
    SchedulerCounts sum;
    for (const Rank& rank : ranks_) {
        const SchedulerCounts counts = rank.scheduler->counts();
        sum.running += counts.running;
        sum.waiting += counts.waiting;
        sum.loading += counts.loading;
        sum.blocks_used += counts.blocks_used;
        sum.blocks_total += counts.blocks_total;
    }
    return sum;
}

ConnectorCounts Core::connector_counts() const {
    ConnectorCounts sum;
    for (const Rank& rank : ranks_) {
        if (!rank.connector) continue;
        const ConnectorCounts counts = rank.connector->counts();
        sum.transfers_live += counts.transfers_live;
        sum.seats_taken += counts.seats_taken;
        sum.pulls_queued += counts.pulls_queued;
        sum.pulls_waiting += counts.pulls_waiting;
        sum.blocks_held += counts.blocks_held;
    }
    return sum;
}

}  // namespace sluice::engine
