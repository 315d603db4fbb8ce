// SPDX-License-Identifier: Apache-2.0
#include "node/producer.h"

#include <algorithm>

namespace sluice::node {

using kv::Code;
using kv::LeaseEnd;
using kv::PullerId;
using kv::Status;

namespace {

kv::LeaseOptions lease_options(const NodeOptions& options) {
    kv::LeaseOptions leases = options.leases;
    leases.abort_timeout = options.abort_timeout;
    return leases;
}

}  // namespace

Producer::Producer(Hub& hub, kv::Pool& pool, ProducerEvents& events)
    : hub_(hub),
      pool_(pool),
      events_(events),
      table_(*this, lease_options(hub.options())),
      timer_(Delegate<void()>::to<&Producer::advance>(*this)) {}

void Producer::advance() {
    table_.advance(hub_.loop().now());
    rearm();
}

void Producer::rearm() {
    hub_.metrics().leases_live.set(table_.live());
    hub_.metrics().pulls_waiting.set(table_.waiting());
    const Instant next = table_.next_deadline();
    if (next == kNever) return timer_.cancel();
    hub_.loop().arm(timer_, std::max(Duration::zero(), next - hub_.loop().now()));
}

// -- the publisher

Status Producer::publish(const std::string& transfer, kv::BlocksByGroup blocks,
                         std::uint32_t layers_end) {
    if (ending_.contains(transfer))
        return {Code::AlreadyLive, "transfer \"" + transfer + "\" is just ending: use another id"};
    if (Status status = pool_.pin(blocks); !status.ok()) return status;
    const kv::BlocksByGroup pinned = blocks;
    Status status = table_.publish(transfer, std::move(blocks), layers_end, hub_.loop().now());
    if (!status.ok()) pool_.unpin(pinned);
    rearm();
    return status;
}

Status Producer::more_layers(const std::string& transfer, std::uint32_t layers_end) {
    return table_.more_layers(transfer, layers_end);
}

void Producer::release(const std::string& transfer) {
    table_.release(transfer);
    rearm();
}

// -- pulls

Producer::Leg* Producer::leg_of(Link& link, std::uint64_t pull) {
    const auto found = by_pull_.find({&link, pull});
    return found == by_pull_.end() ? nullptr : legs_.at(found->second).get();
}

void Producer::on_pull(Link& link, kv::Pull& pull) {
    const auto refuse = [&](const Status& status) {
        (void)link.send(kv::Failed{pull.pull, status});
    };
    if (leg_of(link, pull.pull) != nullptr)
        return link.close({Code::PeerFailed, "the peer used the number of a live pull"});
    if (legs_.size() >= kv::limits::kPullsMax)
        return refuse({Code::LimitReached, "the producer serves kPullsMax pulls already"});
    if (!pull.empty() && (pull.offer >= hub_.slots() || hub_.slot(pull.offer).endpoint.empty()))
        return refuse({Code::PeerFailed, "there is no such transport here"});
    const auto pullers = kv::pullers_of(hub_.shape().rank, link.peer().shape.rank);
    if (!pullers) return refuse(pullers.error());
    auto& route = routes_[{link.number, link.peer().node}];
    if (route == nullptr) {
        auto made = kv::make_route(hub_.shape(), link.peer().shape);
        if (!made) return refuse(made.error());
        route = std::make_shared<const kv::Route>(std::move(*made));
    }
    auto leg = std::make_unique<Leg>();
    leg->id = next_++;
    leg->link = &link;
    leg->node = link.peer().node;
    leg->route = route;
    leg->transfer = pull.transfer;
    leg->began = hub_.loop().now();
    const auto wait = std::min(Duration(std::chrono::milliseconds(
                                   std::min<std::uint64_t>(pull.wait_ms, std::uint64_t{1} << 40))),
                               hub_.options().publish_wait);
    leg->pull = std::move(pull);
    const PullerId id = leg->id;
    by_pull_[{&link, leg->pull.pull}] = id;
    Leg& started = *legs_.emplace(id, std::move(leg)).first->second;
    const Status status = table_.pull(started.transfer, id, *pullers, hub_.loop().now() + wait);
    if (!status.ok()) fail(started, status);
    rearm();
}

void Producer::on_more(PullerId puller) {
    Leg& leg = *legs_.at(puller);
    if (!leg.known_sent && leg.link != nullptr) {
        leg.known_sent = true;
        (void)leg.link->send(kv::Known{leg.pull.pull});
    }
    if (leg.over) return;
    if (leg.pull.empty()) {  // this rank needs nothing; counted when the table is ours again
        leg.landed = leg.over = true;
        table_.pulled(puller);
        return finish_if_quiet(leg);
    }
    post_more(leg);
}

void Producer::post_more(Leg& leg) {
    const auto peer = hub_.data_peer(leg.pull.offer, leg.node);
    if (!peer) return;  // on_peer_up() comes here again
    if (!leg.half) {
        auto half =
            kv::make_half(*leg.route, kv::Side::Producer, *table_.blocks(leg.id), leg.pull.counts);
        if (!half) return fail(leg, half.error());
        leg.half = std::move(*half);
    }
    const std::uint32_t end = kv::first_pair(*leg.route, table_.layers_end(leg.id));
    if (end <= leg.next_range) return;
    TransportSlot& slot = hub_.slot(leg.pull.offer);
    const auto ranges = ranges_for(slot, *leg.half, leg.next_range, end);
    transport::PostOptions options;
    options.first_range = leg.next_range;
    options.priority = leg.pull.priority;
    options.user = leg.id;
    const auto post =
        slot.transport->post(*peer, leg.pull.ticket, {ranges, leg.half->blocks}, options);
    if (!post && post.error().code == Errc::LimitReached) {
        if (std::ranges::find(full_, leg.id) == full_.end()) full_.push_back(leg.id);
        return;
    }
    if (!post) return fail(leg, {Code::PeerLost, "cannot send: " + describe(post.error())});
    leg.next_range = end;
    leg.posts.push_back(*post);
}

void Producer::on_peer_up(std::size_t slot, std::uint64_t node) {
    std::vector<PullerId> waiting;
    for (const auto& [id, leg] : legs_)
        if (!leg->over && leg->node == node && leg->pull.offer == slot && !leg->pull.empty() &&
            table_.blocks(id) != nullptr)
            waiting.push_back(id);
    for (const PullerId id : waiting)
        if (const auto found = legs_.find(id); found != legs_.end()) post_more(*found->second);
}

void Producer::retry_full() {
    for (std::size_t left = full_.size(); left > 0; --left) {
        const PullerId id = full_.front();
        full_.pop_front();
        const auto found = legs_.find(id);
        if (found != legs_.end() && !found->second->over) post_more(*found->second);
    }
}

// -- ends

void Producer::stop_posts(Leg& leg) {
    if (leg.posts.empty()) return;
    for (const transport::PostId post : std::vector<transport::PostId>(leg.posts))
        (void)hub_.slot(leg.pull.offer).transport->revoke(post);
}

void Producer::fail(Leg& leg, const Status& status) {
    if (leg.over) return;
    leg.over = true;
    leg.status = status;
    if (leg.link != nullptr) (void)leg.link->send(kv::Failed{leg.pull.pull, status});
    stop_posts(leg);
    table_.forget(leg.id);
    finish_if_quiet(leg);
    rearm();
}

void Producer::on_post(std::size_t slot, const transport::Completion& completion) {
    const auto found = legs_.find(completion.user);
    if (found == legs_.end()) return;
    Leg& leg = *found->second;
    std::erase(leg.posts, completion.post);
    if (completion.status != transport::Status::Delivered && !leg.over && !leg.landed) {
        leg.over = true;
        leg.status = status_of(completion.status);
        if (leg.link != nullptr) (void)leg.link->send(kv::Failed{leg.pull.pull, leg.status});
        stop_posts(leg);
        table_.forget(leg.id);
    }
    const bool all = leg.half && leg.next_range == leg.route->pairs.size() && leg.posts.empty();
    if (!leg.over && all) {
        leg.over = leg.landed = true;
        TransferMetrics& metrics = hub_.metrics().sent[slot];
        count_transfer(metrics, *leg.half, hub_.loop().now() - leg.began);
        table_.pulled(leg.id);
    }
    finish_if_quiet(leg);
    retry_full();
    rearm();
}

void Producer::on_landed(Link& link, const kv::Landed& landed) {
    Leg* leg = leg_of(link, landed.pull);
    if (leg != nullptr) leg->landed = true;  // whatever becomes of the transport's own answer
}

void Producer::on_abort(Link& link, const kv::Abort& abort) {
    Leg* leg = leg_of(link, abort.pull);
    if (leg == nullptr) {
        (void)link.send(kv::RevokeAck{abort.pull});  // it has ended already: nothing is read
        return;
    }
    leg->aborted = true;
    if (!leg->over) {
        leg->over = true;
        leg->status = {Code::Aborted, "the consumer gave up"};
        stop_posts(*leg);
        table_.pulled(leg->id);  // it wants no more
    }
    finish_if_quiet(*leg);
    rearm();
}

void Producer::on_link_lost(Link& link) {
    std::vector<PullerId> lost;
    for (auto it = by_pull_.lower_bound({&link, 0});
         it != by_pull_.end() && it->first.first == &link; ++it)
        lost.push_back(it->second);
    for (const PullerId id : lost) {
        Leg& leg = *legs_.at(id);
        by_pull_.erase({&link, leg.pull.pull});
        leg.link = nullptr;
        if (!leg.over) {
            leg.over = true;
            leg.status = {Code::PeerLost, "the consumer was lost"};
            stop_posts(leg);
            if (leg.landed)
                table_.pulled(id);
            else
                table_.forget(id);
        }
        finish_if_quiet(leg);
    }
    std::erase_if(routes_, [&](const auto& each) { return each.first.first == link.number; });
    rearm();
}

void Producer::on_puller_refused(PullerId puller, const Status& status) {
    const auto found = legs_.find(puller);
    if (found == legs_.end()) return;
    Leg& leg = *found->second;
    if (leg.over) return;
    leg.over = true;
    leg.status = status;
    if (leg.link != nullptr) (void)leg.link->send(kv::Failed{leg.pull.pull, status});
    stop_posts(leg);
    finish_if_quiet(leg);
}

void Producer::finish_if_quiet(Leg& leg) {
    if (!leg.over || !leg.posts.empty()) return;
    if (leg.aborted && leg.link != nullptr) (void)leg.link->send(kv::RevokeAck{leg.pull.pull});
    const auto& options = hub_.options();
    if (options.log_transfer) {
        const Duration took = hub_.loop().now() - leg.began;
        options.log_transfer("kv send \"" + leg.transfer + "\" " +
                             (leg.status.ok() ? "done" : name_of(leg.status.code)) + ", " +
                             std::to_string(leg.half ? leg.half->bytes : 0) + " bytes, " +
                             std::to_string(to_ms(took)) + " ms" +
                             (leg.status.ok() ? "" : ": " + leg.status.sentence));
    }
    if (leg.link != nullptr) by_pull_.erase({leg.link, leg.pull.pull});
    const std::string transfer = leg.transfer;
    const bool holding = leg.holding;
    std::erase(full_, leg.id);
    legs_.erase(leg.id);
    if (!holding) return;
    Ending& ending = ending_.at(transfer);
    if (--ending.legs == 0) let_go(transfer, ending);
}

// -- leases

void Producer::on_lease_ended(const std::string& transfer, const kv::BlocksByGroup& blocks,
                              LeaseEnd end) {
    NodeMetrics& metrics = hub_.metrics();
    (end == LeaseEnd::Pulled    ? metrics.leases_pulled
     : end == LeaseEnd::Expired ? metrics.leases_expired
                                : metrics.leases_released)
        .add();
    Ending ending{blocks, end, 0};
    for (const auto& [id, leg] : legs_)
        if (leg->transfer == transfer && !leg->posts.empty()) {
            leg->holding = true;
            ++ending.legs;
        }
    Ending& kept = ending_[transfer];
    kept = std::move(ending);
    if (kept.legs == 0) let_go(transfer, kept);
}

void Producer::let_go(const std::string& transfer, Ending& ending) {
    const std::string id = transfer;
    const Ending over = std::move(ending);
    ending_.erase(id);
    pool_.unpin(over.blocks);
    events_.on_lease_ended(id, over.blocks, over.end);
}

}  // namespace sluice::node
