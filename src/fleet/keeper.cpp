// SPDX-License-Identifier: Apache-2.0
#include "fleet/keeper.h"

#include <algorithm>
#include <utility>

#include "base/assert.h"
#include "fleet/hash.h"
#include "fleet/instance_watch.h"

namespace sluice::fleet {

namespace {

// How soon a worker's wish is seen. Names at start are waited for more eagerly.
constexpr Duration kPollInterval = std::chrono::milliseconds(50);
constexpr Duration kNamePollInterval = std::chrono::milliseconds(5);

// Differs between processes and not between runs of a simulation.
std::uint64_t seed_of(io::Loop& loop, const FleetSnapshot& fleet) {
    auto seed = static_cast<std::uint64_t>(loop.now().time_since_epoch().count());
    for (const Role role : {Role::Prefill, Role::Decode})
        for (const Instance& instance : fleet.of(role)) seed = hash_bytes(instance.url, seed);
    return seed;
}

}  // namespace

struct Keeper::Impl {
    Impl(io::Loop& loop_in, Fleet& fleet_in, Resolver& resolver_in, const KeeperOptions& options)
        : loop(loop_in),
          fleet(fleet_in),
          resolver(resolver_in),
          context(loop_in, options, seed_of(loop_in, *fleet_in.load())),
          poll_timer(Delegate<void()>::to<&Impl::poll>(*this)),
          publish_later(Delegate<void()>::to<&Impl::publish>(*this)) {
        const auto first = fleet.load();
        for (const Role role : {Role::Prefill, Role::Decode})
            for (const Instance& instance : first->of(role))
                watches.push_back(std::make_unique<InstanceWatch>(
                    context, instance, Delegate<void()>::to<&Impl::changed>(*this)));
    }

    void poll();
    void changed();
    void publish();
    std::string merged_models(const std::string& before) const;

    io::Loop& loop;
    Fleet& fleet;
    Resolver& resolver;
    KeeperContext context;
    std::vector<std::unique_ptr<InstanceWatch>> watches;  // the prefills in order, then the decodes
    Timer poll_timer;
    io::Deferred publish_later;
    std::size_t names_asked = 0;  // and not answered
    bool stopped = false;
};

void Keeper::Impl::poll() {
    for (const auto& watch : watches) {
        watch->poll();
        if (!watch->take_name_due()) continue;
        ++names_asked;
        resolver.ask(watch->endpoint().host, watch->endpoint().port);
    }
    for (const Resolver::Answer& answer : resolver.take_answers()) {
        // Two instances of one name and port (a prefill and a decode) share an answer.
        names_asked = 0;
        for (const auto& watch : watches) watch->take_name_answer(answer);
    }
    loop.arm(poll_timer, names_asked > 0 ? kNamePollInterval : kPollInterval);
}

void Keeper::Impl::changed() {
    if (!stopped) loop.defer(publish_later);
}

void Keeper::Impl::publish() {
    const auto before = fleet.load();
    auto next = std::make_shared<FleetSnapshot>();
    for (const auto& watch : watches) {
        const Instance& instance = watch->instance();
        (instance.role == Role::Prefill ? next->prefill : next->decode).push_back(instance);
    }
    next->models_json = merged_models(before->models_json);
    const auto same = [](const Instance& a, const Instance& b) {
        return a.address == b.address && a.dialect == b.dialect && a.ranks == b.ranks &&
               a.ids_confirmed == b.ids_confirmed && a.ids_asked_in_vain == b.ids_asked_in_vain;
    };
    // Up and down are in the shared state; they matter here for what they do to the models.
    if (next->models_json == before->models_json &&
        std::ranges::equal(next->prefill, before->prefill, same) &&
        std::ranges::equal(next->decode, before->decode, same))
        return;
    fleet.publish(std::move(next));
    if (context.options.on_published) context.options.on_published();
}

// Of the instances that serve. While none does, the last answer stands: models do not come and go
// with a restart.
std::string Keeper::Impl::merged_models(const std::string& before) const {
    std::vector<const ModelList*> lists;
    // A decode's entry before a prefill's: its limits are those that a client meets.
    for (const Role role : {Role::Decode, Role::Prefill})
        for (const auto& watch : watches)
            if (watch->instance().role == role && watch->instance().usable())
                lists.push_back(&watch->models());
    std::string merged = merge_models(lists);
    return merged.empty() ? before : merged;
}

Keeper::Keeper(io::Loop& loop, Fleet& fleet, Resolver& resolver, const KeeperOptions& options)
    : impl_(std::make_unique<Impl>(loop, fleet, resolver, options)) {}

Keeper::~Keeper() { ASSERT(finished()); }

void Keeper::start() {
    for (const auto& watch : impl_->watches) watch->start();
    impl_->loop.arm(impl_->poll_timer, Duration::zero());
}

void Keeper::stop() {
    if (std::exchange(impl_->stopped, true)) return;
    impl_->poll_timer.cancel();
    impl_->publish_later.cancel();
    for (const auto& watch : impl_->watches) watch->stop();
}

bool Keeper::finished() const {
    for (const auto& watch : impl_->watches)
        if (!watch->finished()) return false;
    return true;
}

}  // namespace sluice::fleet
