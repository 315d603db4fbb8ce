// SPDX-License-Identifier: Apache-2.0
#include "fleet/instance_watch.h"

#include <algorithm>
#include <utility>

#include "fleet/health.h"

namespace sluice::fleet {

namespace {

constexpr std::size_t kHealthReplyMax = 64 * 1024;  // vLLM's is empty, others talk
constexpr Duration kUnresolvedWaitMax = std::chrono::seconds(2);

http::UpstreamOptions probe_connections(const KeeperContext& context) {
    http::UpstreamOptions options;
    options.connect_timeout = context.options.probe_timeout;
    return options;
}

Endpoint endpoint_of(const Instance& instance) {
    auto endpoint = parse_url(instance.url);
    ASSERT(endpoint.has_value());  // make_fleet() let it in
    return std::move(*endpoint);
}

}  // namespace

InstanceWatch::InstanceWatch(KeeperContext& context, const Instance& first,
                             Delegate<void()> changed)
    : context_(context),
      instance_(first),
      changed_(changed),
      endpoint_(endpoint_of(first)),
      api_pool_(context.loop, first.address, probe_connections(context)),
      health_(context, Probe::Done::to<&InstanceWatch::on_health>(*this)),
      models_probe_(context, Probe::Done::to<&InstanceWatch::on_models>(*this)),
      health_timer_(Delegate<void()>::to<&InstanceWatch::probe_health>(*this)),
      models_timer_(Delegate<void()>::to<&InstanceWatch::ask_models>(*this)) {
    if (ContractWatch::wanted(first, context.options.connector))
        contract_.emplace(context, instance_, api_pool_, changed,
                          Delegate<void()>::to<&InstanceWatch::contract_asked>(*this));
}

// Only arms timers, so that the first operations are started from the loop's own thread.
void InstanceWatch::start() {
    if (!instance_.address.valid()) return;  // move_to() goes on
    context_.loop.arm(health_timer_, Duration::zero());
    context_.loop.arm(models_timer_, Duration::zero());
    if (contract_) contract_->follow_address();
}

void InstanceWatch::stop() {
    stopped_ = true;
    health_timer_.cancel();
    models_timer_.cancel();
    health_.cancel();
    models_probe_.cancel();
    api_pool_.drain();
    if (contract_) contract_->stop();
}

void InstanceWatch::poll() {
    if (!instance_.state->refresh_wanted.load(std::memory_order_relaxed)) return;
    instance_.state->refresh_wanted.store(false, std::memory_order_relaxed);
    if (contract_) contract_->ask_now();
}

// -- health

void InstanceWatch::probe_health() {
    if (context_.options.health_interval <= Duration::zero()) return succeeded();
    if (health_.active()) return;  // moved while asking; on_health() comes
    health_.get(api_pool_, {instance_.host_header, "/health", kHealthReplyMax, true});
}

void InstanceWatch::on_health(const ProbeAnswer& answer) {
    context_.loop.arm(health_timer_, context_.jittered(context_.options.health_interval));
    if (answer.status != 0 && answer.status < 500)
        succeeded();
    else
        failed(answer);
}

void InstanceWatch::succeeded() {
    failures_ = 0;
    const bool news = !std::exchange(alive_, true);
    if (contract_) contract_->set_alive(true);
    if (!instance_.state->reachable.load(std::memory_order_relaxed)) {
        // What comes back is often a new life with new engine ids; first see which.
        if (!contract_ || !contract_->has_bootstrap()) return readmit();
        if (!std::exchange(readmitting_, true)) contract_->ask_now();
    } else if (news) {
        context_.log(instance_, "is up");
        context_.loop.arm(models_timer_, Duration::zero());
    }
}

void InstanceWatch::failed(const ProbeAnswer& answer) {
    alive_ = false;
    readmitting_ = false;
    if (contract_) contract_->set_alive(false);
    if (answer.not_connected) try_other_address();
    if (++failures_ < context_.options.health_failures) return;
    if (!instance_.state->reachable.exchange(false, std::memory_order_relaxed)) return;
    context_.log(instance_, "is down: GET /health " + std::to_string(failures_) +
                                " times in a row: " + answer.describe());
    changed_();
}

void InstanceWatch::readmit() {
    readmitting_ = false;
    end_wait(*instance_.state, context_.loop.now());
    instance_.state->reachable.store(true, std::memory_order_relaxed);
    context_.log(instance_, "is up again");
    context_.loop.arm(models_timer_, Duration::zero());
    changed_();
}

void InstanceWatch::contract_asked() {
    if (readmitting_) readmit();
}

// -- models

void InstanceWatch::ask_models() {
    context_.loop.arm(models_timer_, context_.jittered(context_.options.models_interval));
    if (!alive_ || models_probe_.active()) return;
    models_probe_.get(api_pool_, {instance_.host_header, "/v1/models", kModelsReplyMax, true});
}

void InstanceWatch::on_models(const ProbeAnswer& answer) {
    if (answer.status == 0) return;  // health knows better what that means
    auto models = answer.ok()
                      ? parse_models(answer.body)
                      : std::expected<ModelList, std::string>(std::unexpected(answer.describe()));
    if (!models) {
        if (std::exchange(told_models_, models.error()) != models.error())
            context_.log(instance_, "has no usable answer to GET /v1/models: " + models.error());
        return;
    }
    told_models_.clear();
    if (same_models(models_, *models)) return;
    models_ = std::move(*models);
    changed_();
}

// -- names

bool InstanceWatch::take_name_due() {
    if (!is_name() || context_.loop.now() < resolve_at_) return false;
    const Duration interval = context_.options.resolve_interval;
    resolve_at_ =
        context_.loop.now() + context_.jittered(instance_.address.valid()
                                                    ? interval
                                                    : std::min(interval, kUnresolvedWaitMax));
    return true;
}

void InstanceWatch::take_name_answer(const Resolver::Answer& answer) {
    if (stopped_ || answer.host != endpoint_.host || answer.port != endpoint_.port) return;
    if (answer.addresses.empty()) {
        // An address that worked may well still work while the name server does not.
        if (!std::exchange(told_unresolved_, true))
            context_.log(instance_, "does not resolve: " + sluice::describe(answer.error));
        return;
    }
    if (std::exchange(told_unresolved_, false)) context_.log(instance_, "resolves again");
    addresses_ = answer.addresses;
    if (std::ranges::find(addresses_, instance_.address) == addresses_.end())
        move_to(addresses_.front());
}

void InstanceWatch::move_to(const io::Address& address) {
    const bool first = !instance_.address.valid();
    instance_.address = address;
    api_pool_.set_address(address);
    if (!first) context_.log(instance_, "is now at " + address.text());
    context_.loop.arm(health_timer_, Duration::zero());
    if (first) context_.loop.arm(models_timer_, Duration::zero());
    if (contract_) contract_->follow_address();
    changed_();
}

void InstanceWatch::try_other_address() {
    if (!is_name()) return;
    resolve_at_ = context_.loop.now();
    const auto current = std::ranges::find(addresses_, instance_.address);
    if (addresses_.size() < 2 || current == addresses_.end()) return;
    move_to(current + 1 == addresses_.end() ? addresses_.front() : *(current + 1));
}

}  // namespace sluice::fleet
