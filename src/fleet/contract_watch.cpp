// SPDX-License-Identifier: Apache-2.0
#include "fleet/contract_watch.h"

#include <algorithm>
#include <utility>

#include "fleet/url.h"
#include "fleet/version.h"

namespace sluice::fleet {

namespace {

constexpr std::size_t kVersionReplyMax = 16 * 1024;
constexpr std::size_t kLifeReplyMax = 64 * 1024;
constexpr std::uint32_t kSilencesForNixl = 2;  // rounds in a row, to sit out a start-up
constexpr Duration kUnansweredWaitMax = std::chrono::seconds(2);

http::UpstreamOptions probe_connections(const KeeperContext& context) {
    http::UpstreamOptions options;
    options.connect_timeout = context.options.probe_timeout;
    return options;
}

// An engine id of before is gone, or has another rank now: that life has ended.
bool is_restart(const std::vector<DataParallelRank>& before,
                const std::vector<DataParallelRank>& now) {
    const auto lives_on = [&](const DataParallelRank& old) {
        return std::ranges::any_of(now, [&](const DataParallelRank& each) {
            return each.rank == old.rank && each.engine_id == old.engine_id;
        });
    };
    return !std::ranges::all_of(before, lives_on);
}

}  // namespace

bool ContractWatch::wanted(const Instance& instance, KvConnector connector) {
    if (instance.role != Role::Prefill || connector == KvConnector::Nixl) return false;
    return !instance.bootstrap_url.empty() || connector == KvConnector::Mooncake;
}

ContractWatch::ContractWatch(KeeperContext& context, Instance& instance, http::UpstreamPool& api,
                             Delegate<void()> changed, Delegate<void()> asked)
    : context_(context),
      instance_(instance),
      api_pool_(api),
      changed_(changed),
      asked_(asked),
      bootstrap_pool_(context.loop, io::Address(), probe_connections(context)),
      lifeline_(context.loop, Delegate<void()>::to<&ContractWatch::lifeline_broke>(*this)),
      query_(context, Probe::Done::to<&ContractWatch::on_query>(*this)),
      version_(context, Probe::Done::to<&ContractWatch::on_version>(*this)),
      life_(context, Probe::Done::to<&ContractWatch::on_life>(*this)),
      timer_(Delegate<void()>::to<&ContractWatch::begin_round>(*this)) {
    if (!has_bootstrap()) return;
    const auto endpoint = parse_url(instance.bootstrap_url);
    ASSERT(endpoint.has_value());
    bootstrap_host_ = endpoint->authority();
    bootstrap_port_ = endpoint->port;
}

void ContractWatch::follow_address() {
    if (has_bootstrap()) {
        const io::Address& api = instance_.address;
        bootstrap_pool_.set_address(api.is_unix()
                                        ? *io::Address::from_ip("127.0.0.1", bootstrap_port_)
                                        : api.with_port(bootstrap_port_));
    }
    ask_now();
}

void ContractWatch::ask_now() {
    if (stopped_ || !instance_.address.valid()) return;  // follow_address() comes when it is known
    if (asking())
        ask_again_ = true;
    else
        context_.loop.arm(timer_, Duration::zero());
}

void ContractWatch::set_alive(bool alive) {
    const bool news = alive && !alive_;
    alive_ = alive;
    if (news && instance_.dialect == DialectKind::Unknown) ask_now();
}

void ContractWatch::begin_round() {
    // Doubts that come while the question is on its way need another one.
    doubts_ = instance_.state->ids_doubts.load(std::memory_order_acquire);
    lives_ = false;
    if (!has_bootstrap()) return ask_version();
    query_.get(bootstrap_pool_, {bootstrap_host_, "/query", kBootstrapReplyMax, false});
}

void ContractWatch::on_query(const ProbeAnswer& answer) {
    if (!answer.ok()) return unanswered(answer.describe());
    const auto reply = parse_bootstrap_reply(answer.body);
    if (!reply) return unanswered("sent a reply that cannot be used: " + reply.error());
    take_reply(*reply);
}

void ContractWatch::take_reply(const BootstrapReply& reply) {
    const bool agrees = last_reply_ == reply.fingerprint;
    last_reply_ = reply.fingerprint;
    unanswered_ = 0;
    told_.clear();
    set_dialect(DialectKind::Mooncake, "its bootstrap server answers");
    // A reply of the shape of an earlier complete one is complete at once: after a restart every
    // moment counts.
    const bool complete = !reply.ranks.empty() && (agrees || complete_shape_ == reply.shape);
    if (is_restart(instance_.ranks, reply.ranks)) {
        a_new_life_ = true;
        context_.log(instance_, "was restarted: its engine ids have changed");
        instance_.ranks.clear();
        // Nobody else noticed: a prefill of before is worth nothing now.
        std::uint32_t none_new = doubts_;
        if (instance_.ids_confirmed == doubts_ &&
            instance_.state->ids_doubts.compare_exchange_strong(none_new, doubts_ + 1))
            ++doubts_;
        changed_();
    }
    if (complete) complete_shape_ = reply.shape;
    if (complete && instance_.ranks != reply.ranks) {
        instance_.ranks = reply.ranks;
        context_.log(instance_, "has " + std::to_string(reply.ranks.size()) +
                                    " data-parallel rank(s), the first is " +
                                    reply.ranks.front().engine_id);
        changed_();
    }
    if (complete && std::exchange(instance_.ids_confirmed, doubts_) != doubts_) changed_();
    if (complete) lifeline_.hold(bootstrap_pool_.address(), std::exchange(a_new_life_, false));
    end_round(complete && agrees ? context_.options.bootstrap_refresh
                                 : context_.options.bootstrap_retry);
}

void ContractWatch::unanswered(const std::string& why) {
    last_reply_.reset();
    ++unanswered_;
    if (instance_.dialect == DialectKind::Mooncake && !instance_.ids_sure()) {
        // Dead, or alive without its bootstrap server? Asked in vain means the latter: what is dead
        // and comes back opens its API last.
        if (!lives_)
            return life_.get(api_pool_, {instance_.host_header, "/health", kLifeReplyMax, true});
        if (std::exchange(instance_.ids_asked_in_vain, doubts_) != doubts_) changed_();
    }
    if (context_.options.connector == KvConnector::Auto) {
        if (instance_.dialect == DialectKind::Unknown && alive_ && unanswered_ >= kSilencesForNixl)
            set_dialect(DialectKind::Nixl, "its bootstrap server does not answer (" + why + ")");
    } else if (instance_.dialect != DialectKind::Mooncake) {
        return ask_version();
    }
    if (instance_.dialect == DialectKind::Mooncake && std::exchange(told_, why) != why)
        context_.log(instance_, "has a bootstrap server, " + instance_.bootstrap_url +
                                    ", without a usable answer: " + why);
    end_round(retry_wait());
}

void ContractWatch::lifeline_broke() {
    if (stopped_) return;
    instance_.state->ids_doubts.fetch_add(1, std::memory_order_acq_rel);
    ask_now();
}

void ContractWatch::on_life(const ProbeAnswer& answer) {
    if (answer.status == 0) return end_round(retry_wait());
    lives_ = true;
    query_.get(bootstrap_pool_, {bootstrap_host_, "/query", kBootstrapReplyMax, false});
}

void ContractWatch::ask_version() {
    version_.get(api_pool_, {instance_.host_header, "/version", kVersionReplyMax, true});
}

void ContractWatch::on_version(const ProbeAnswer& answer) {
    const auto version = answer.ok() ? parse_version_reply(answer.body) : std::nullopt;
    if (!version) return end_round(retry_wait());
    const std::string name =
        "vLLM " + std::to_string(version->major) + "." + std::to_string(version->minor);
    if (speaks_sequential_mooncake(*version)) {
        set_dialect(DialectKind::MooncakeSequential, "it is " + name);
        return end_round(context_.options.bootstrap_refresh);
    }
    set_dialect(DialectKind::Unknown, "it is " + name);
    const std::string complaint =
        has_bootstrap()
            ? "cannot be used: it is " + name + ", and its bootstrap server, " +
                  instance_.bootstrap_url + ", does not answer"
            : "cannot be used: it is " + name + ", whose mooncake connector needs a bootstrap port";
    if (std::exchange(told_, complaint) != complaint) context_.log(instance_, complaint);
    end_round(has_bootstrap() ? retry_wait() : context_.options.bootstrap_refresh);
}

void ContractWatch::set_dialect(DialectKind dialect, std::string_view why) {
    if (instance_.dialect == dialect) return;
    instance_.dialect = dialect;
    if (dialect != DialectKind::Mooncake) instance_.ranks.clear();
    std::string line = "is taken for ";
    line += name_of(dialect);
    line += ": ";
    line += why;
    context_.log(instance_, line);
    changed_();
}

// A host that is down is not asked four times a second for ever.
Duration ContractWatch::retry_wait() const {
    // What was decided without a bootstrap server is only looked at now and then.
    if (instance_.dialect == DialectKind::Nixl ||
        instance_.dialect == DialectKind::MooncakeSequential)
        return context_.options.bootstrap_refresh;
    Duration wait = context_.options.bootstrap_retry;
    for (std::uint32_t i = 1; i < unanswered_ && wait < kUnansweredWaitMax; ++i) wait *= 2;
    return std::max(std::min(wait, kUnansweredWaitMax), context_.options.bootstrap_retry);
}

void ContractWatch::end_round(Duration next) {
    // Who asked during the round wants an answer of after that.
    if (std::exchange(ask_again_, false)) return context_.loop.arm(timer_, Duration::zero());
    context_.loop.arm(timer_, context_.jittered(next));
    asked_();
}

void ContractWatch::stop() {
    stopped_ = true;
    timer_.cancel();
    query_.cancel();
    version_.cancel();
    life_.cancel();
    lifeline_.let_go();
    bootstrap_pool_.drain();
}

}  // namespace sluice::fleet
