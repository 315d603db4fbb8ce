// SPDX-License-Identifier: Apache-2.0
#include "node/consumer.h"

#include <algorithm>

namespace sluice::node {

using kv::Code;
using kv::Status;

Consumer::Consumer(Hub& hub, Links& links, kv::Pool& pool, ConsumerEvents& events)
    : hub_(hub),
      links_(links),
      pool_(pool),
      events_(events),
      start_(Delegate<void()>::to<&Consumer::start>(*this)) {}

kv::Outcome<PullId> Consumer::pull(PullRequest request) {
    if (request.transfer.empty() || request.transfer.size() > kv::limits::kTransferIdBytesMax)
        return kv::refuse(Code::BadOptions, "a transfer id has 1 to 256 bytes");
    if (pulls_.size() >= hub_.options().pulls_max)
        return kv::refuse(Code::LimitReached, std::to_string(pulls_.size()) +
                                                  " pulls are live; pulls_max is " +
                                                  std::to_string(hub_.options().pulls_max));
    const auto tp_size = static_cast<std::uint32_t>(request.producer.workers.size());
    if (tp_size == 0 || request.producer.workers.front().empty())
        return kv::refuse(Code::BadOptions, "the producer has no workers");
    const auto sources = kv::sources_of(hub_.shape().rank, tp_size, hub_.shape().kv_heads);
    if (!sources) return std::unexpected(sources.error());
    if (Status status = pool_.claim(request.blocks); !status.ok())
        return std::unexpected(std::move(status));

    auto made = std::make_unique<Pull>();
    Pull& pull = *made;
    pull.id = next_++;
    pull.owner = this;
    pull.began = hub_.loop().now();
    for (const kv::Source& source : *sources) {
        const auto& stages = request.producer.workers[source.tp_rank];
        for (std::uint32_t pp = 0; pp < stages.size(); ++pp) {
            auto leg = std::make_unique<Leg>();
            leg->pull = &pull;
            leg->number = next_++;
            leg->tp_rank = source.tp_rank;
            leg->pp_rank = pp;
            legs_.emplace(leg->number, leg.get());
            pull.legs.push_back(std::move(leg));
        }
    }
    pull.request = std::move(request);
    hub_.loop().arm(pull.deadline, pull.request.deadline);
    pulls_.emplace(pull.id, std::move(made));
    hub_.metrics().pulls_live.set(pulls_.size());
    starting_.push_back(pull.id);
    hub_.loop().defer(start_);
    return pull.id;
}

void Consumer::start() {
    for (const PullId id : std::exchange(starting_, {})) {
        // Looked up for each leg: one that fails may have ended the pull.
        for (std::size_t i = 0;; ++i) {
            const auto found = pulls_.find(id);
            if (found == pulls_.end() || found->second->ending || i == found->second->legs.size())
                break;
            reach(*found->second->legs[i]);
        }
    }
}

// -- reaching a producer rank

void Consumer::reach(Leg& leg) {
    const io::Address& address = leg.pull->request.producer.workers[leg.tp_rank][leg.pp_rank];
    leg.link = links_.link_to(address);
    if (leg.link == nullptr)
        return fail(*leg.pull, {Code::LimitReached, "too many peers; peers_max is " +
                                                        std::to_string(hub_.options().peers_max)});
    if (leg.link->up()) ask(leg);
}

void Consumer::on_link_up(Link& link) {
    std::vector<std::uint64_t> waiting;
    for (const auto& [number, leg] : legs_)
        if (leg->link == &link && !leg->asked && !leg->pull->ending) waiting.push_back(number);
    for (const std::uint64_t number : waiting)
        if (Leg* leg = leg_of(&link, number); leg != nullptr && !leg->pull->ending) ask(*leg);
}

// Every rank of the producer that we are paired with has something of ours: all of it together
// must be all of ours.
bool Consumer::covered(const Pull& pull) const {
    std::uint64_t have = 0;
    for (const auto& leg : pull.legs) {
        if (!leg->route) return true;  // not known yet
        have += leg->route->coverage;
    }
    return have == kv::coverage_wanted(hub_.shape());
}

void Consumer::ask(Leg& leg) {
    Pull& pull = *leg.pull;
    const kv::Hello& peer = leg.link->peer();
    const std::string& wanted = pull.request.producer.engine_id;
    if (!wanted.empty() && wanted != peer.engine_id)
        return fail(pull,
                    {Code::PeerRestarted, "engine \"" + peer.engine_id + "\" answers where \"" +
                                              wanted + "\" was: ask its bootstrap server again"});
    if (peer.role == kv::Role::Consumer)
        return fail(pull, {Code::BadRole, "the peer is a consumer: it has nothing to give"});
    if (peer.shape.rank.tp_rank != leg.tp_rank || peer.shape.rank.pp_rank != leg.pp_rank)
        return fail(pull,
                    {Code::ShapeMismatch,
                     "the producer's rank is another than was asked for: " + describe(peer.shape)});
    if (!leg.route) {
        auto route = kv::make_route(peer.shape, hub_.shape());
        if (!route) return fail(pull, route.error());
        leg.route = std::make_shared<const kv::Route>(std::move(*route));
        if (!covered(pull))
            return fail(
                pull, {Code::ShapeMismatch,
                       "the producer's ranks do not have all of this rank's layers and "
                       "heads. This one has " +
                           describe(hub_.shape()) + "; its last peer has " + describe(peer.shape)});
    }
    const kv::Counts counts = kv::counts_of(pull.request.blocks);
    const bool nothing = leg.route->pairs.empty() ||
                         std::ranges::all_of(counts, [](std::uint32_t n) { return n == 0; });
    kv::Pull message;
    message.pull = leg.number;
    message.transfer = pull.request.transfer;
    message.priority = pull.request.priority;
    // A second more than ours: our own deadline has the better sentence.
    message.wait_ms =
        1000 + static_cast<std::uint64_t>(
                   std::max(0.0, to_ms(pull.began + pull.request.deadline - hub_.loop().now())));
    message.counts = counts;
    if (!nothing) {
        const auto slot = links_.choose(peer);
        if (!slot)
            return fail(pull,
                        {Code::PeerFailed,
                         "the two nodes have no transport in common: see sluice doctor --kv"});
        leg.slot = *slot;
        if (!hub_.data_peer(leg.slot, peer.node)) {
            const Status status = links_.connect_data(leg.slot, *leg.link);
            if (!status.ok()) fail(pull, status);
            return;  // on_peer_up() comes here again
        }
        const Status status = open_landing(leg);
        if (!status.ok()) return fail(pull, status);
        message.ticket = leg.ticket;
        const auto offer =
            std::ranges::find(peer.offers, hub_.slot(leg.slot).name, &kv::Offer::transport);
        message.offer = static_cast<std::uint8_t>(offer - peer.offers.begin());
    }
    leg.asked = true;
    (void)leg.link->send(message);
}

Status Consumer::open_landing(Leg& leg) {
    TransportSlot& slot = hub_.slot(leg.slot);
    if (!leg.half) {
        auto half = kv::make_half(*leg.route, kv::Side::Consumer, leg.pull->request.blocks,
                                  kv::counts_of(leg.pull->request.blocks));
        if (!half) return half.error();
        leg.half = std::move(*half);
    }
    const auto ranges =
        ranges_for(slot, *leg.half, 0, static_cast<std::uint32_t>(leg.half->ranges.size()));
    const auto peer = hub_.data_peer(leg.slot, leg.link->peer().node);
    const auto ticket = slot.transport->open(*peer, {ranges, leg.half->blocks},
                                             {.deadline = kNever, .user = leg.number});
    if (!ticket)
        return {ticket.error().code == Errc::LimitReached ? Code::LimitReached : Code::PeerLost,
                "cannot open a landing: " + describe(ticket.error())};
    leg.ticket = *ticket;
    leg.open = true;
    return {};
}

void Consumer::on_peer_up(std::size_t slot, std::uint64_t node) {
    std::vector<std::uint64_t> waiting;
    for (const auto& [number, leg] : legs_)
        if (leg->link != nullptr && leg->link->up() && !leg->asked && !leg->pull->ending &&
            leg->route && leg->slot == slot && leg->link->peer().node == node)
            waiting.push_back(number);
    for (const std::uint64_t number : waiting)
        if (const auto found = legs_.find(number);
            found != legs_.end() && !found->second->pull->ending && !found->second->asked)
            ask(*found->second);
}

// -- what happens to it

Consumer::Leg* Consumer::leg_of(const Link* link, std::uint64_t number) {
    const auto found = legs_.find(number);
    return found != legs_.end() && found->second->link == link ? found->second : nullptr;
}

void Consumer::on_known(Link& link, const kv::Known& known) {
    Leg* leg = leg_of(&link, known.pull);
    if (leg == nullptr || !leg->asked || leg->known) return;
    leg->known = true;
    leg->pull->until_known = hub_.loop().now() - leg->pull->began;
    if (!leg->half) leg_done(*leg);  // nothing to move: that was all
}

void Consumer::on_failed(Link& link, const kv::Failed& failed) {
    Leg* leg = leg_of(&link, failed.pull);
    if (leg == nullptr || leg->done) return;
    Status status = failed.status;
    if (status.ok()) status.code = Code::PeerFailed;
    fail(*leg->pull, status);
}

void Consumer::on_landing(std::size_t slot, const transport::Completion& completion) {
    const auto found = legs_.find(completion.user);
    if (found == legs_.end() || found->second->slot != slot) return;
    Leg& leg = *found->second;
    leg.open = false;
    if (completion.status != transport::Status::Landed) {
        if (!leg.pull->ending) return fail(*leg.pull, status_of(completion.status));
        return finish_if_quiet(*leg.pull);
    }
    leg_done(leg);
}

void Consumer::leg_done(Leg& leg) {
    leg.done = true;
    if (leg.half && leg.link != nullptr) (void)leg.link->send(kv::Landed{leg.number});
    finish_if_quiet(*leg.pull);
}

void Consumer::on_link_lost(Link& link, const Status& status) {
    std::vector<std::uint64_t> lost;
    for (const auto& [number, leg] : legs_)
        if (leg->link == &link) lost.push_back(number);
    for (const std::uint64_t number : lost) {
        const auto found = legs_.find(number);
        if (found == legs_.end()) continue;
        Leg& leg = *found->second;
        leg.link = nullptr;
        if (!leg.done) fail(*leg.pull, status);
    }
}

void Consumer::on_peer_down(std::size_t slot, std::uint64_t node, const Status& status) {
    // Landings end by themselves; what waits for the connection does not.
    std::vector<PullId> waiting;
    for (const auto& [number, leg] : legs_)
        if (leg->slot == slot && leg->route && !leg->asked && leg->link != nullptr &&
            leg->link->up() && leg->link->peer().node == node)
            waiting.push_back(leg->pull->id);
    for (const PullId id : waiting)
        if (const auto found = pulls_.find(id); found != pulls_.end()) fail(*found->second, status);
}

void Consumer::on_deadline(Pull& pull) {
    fail(pull, {Code::Timeout, "transfer \"" + pull.request.transfer + "\" did not land within " +
                                   std::to_string(static_cast<long>(to_ms(pull.request.deadline))) +
                                   " ms"});
}

void Consumer::abort(PullId id) {
    const auto found = pulls_.find(id);
    if (found == pulls_.end()) return;
    hub_.metrics().aborts.add();
    fail(*found->second, {Code::Aborted, "abort() was called"});
}

void Consumer::fail_all(const Status& status) {
    std::vector<PullId> all;
    for (const auto& [id, pull] : pulls_) all.push_back(id);
    for (const PullId id : all)
        if (const auto found = pulls_.find(id); found != pulls_.end()) fail(*found->second, status);
}

// -- the end

void Consumer::fail(Pull& pull, const Status& status) {
    if (pull.ending) return;
    pull.ending = true;
    pull.status = status;
    pull.stopped = hub_.loop().now();
    pull.deadline.cancel();
    for (const auto& leg : pull.legs) {
        // The fence first, then the courtesy.
        if (leg->open) (void)hub_.slot(leg->slot).transport->revoke(leg->ticket);
        if (leg->asked && !leg->done && leg->link != nullptr)
            (void)leg->link->send(kv::Abort{leg->number});
    }
    finish_if_quiet(pull);
}

void Consumer::finish_if_quiet(Pull& pull) {
    bool all_done = true;
    for (const auto& leg : pull.legs) {
        if (leg->open) return;
        all_done &= leg->done;
    }
    if (!all_done && !pull.ending) return;
    const Instant now = hub_.loop().now();
    PullResult result;
    result.status = pull.status;
    result.until_known = pull.until_known;
    result.took = now - pull.began;
    const kv::Counts counts = kv::counts_of(pull.request.blocks);
    for (const std::uint32_t count : counts) result.landed.emplace_back((count + 63) / 64, 0);
    std::uint32_t index = 0;
    for (std::size_t group = 0; group < counts.size(); ++group)
        for (std::uint32_t i = 0; i < counts[group]; ++i, ++index) {
            bool landed = true;
            for (const auto& leg : pull.legs) {
                const bool moves = !leg->route || !leg->route->pairs.empty();
                if (moves)
                    landed &= leg->half && leg->ticket.slot != UINT32_MAX &&
                              hub_.slot(leg->slot).transport->block_landed(leg->ticket, index);
            }
            if (landed) result.landed[group][i / 64] |= std::uint64_t{1} << (i % 64);
        }
    NodeMetrics& metrics = hub_.metrics();
    for (const auto& leg : pull.legs) {
        legs_.erase(leg->number);
        if (!leg->half) continue;
        result.slot = leg->slot;
        TransferMetrics& of = metrics.received[leg->slot];
        if (leg->done) {
            result.bytes += leg->half->bytes;
            count_transfer(of, *leg->half, result.took - result.until_known);
        } else {
            of.failed.add();
        }
        if (leg->ticket.slot != UINT32_MAX) hub_.slot(leg->slot).transport->release(leg->ticket);
    }
    if (pull.ending) {
        metrics.abort_time.record(now - pull.stopped);
        if (now - pull.stopped > kv::limits::kAbortBound) metrics.aborts_late.add();
    }
    pool_.unclaim(pull.request.blocks);
    if (hub_.options().log_transfer)
        hub_.options().log_transfer(
            "kv pull \"" + pull.request.transfer + "\" " + name_of(result.status.code) + ", " +
            std::to_string(result.bytes) + " bytes, " + std::to_string(to_ms(result.took)) +
            " ms, of these " + std::to_string(to_ms(result.until_known)) + " until it was known" +
            (result.slot < kTransportsMax ? ", " + hub_.slot(result.slot).name : "") +
            (result.status.ok() ? "" : ": " + result.status.sentence));
    const PullId id = pull.id;
    pulls_.erase(id);
    metrics.pulls_live.set(pulls_.size());
    events_.on_pull_ended(id, result);
}

}  // namespace sluice::node
