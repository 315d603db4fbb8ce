// SPDX-License-Identifier: Apache-2.0
#include "kv/lease.h"

#include <algorithm>
#include <utility>

namespace sluice::kv {

namespace {

std::string quoted(const std::string& transfer) { return "transfer \"" + transfer + "\""; }

}  // namespace

// -- time

// A lease that is published ends at its deadline; one that is only waited for, at its pullers'.
void LeaseTable::set_time(const std::string& transfer, Lease& lease) {
    Instant next = kNever;
    if (lease.published) {
        next = lease.overdue ? kNever : lease.deadline;
    } else {
        for (const PullerId puller : lease.active)
            next = std::min(next, pullers_.at(puller).deadline);
    }
    const auto [known, fresh] = time_of_.try_emplace(transfer, kNever);
    if (known->second == next) return;
    if (known->second != kNever) times_.erase({known->second, transfer});
    known->second = next;
    if (next != kNever) times_.insert({next, transfer});
}

void LeaseTable::advance(Instant now) {
    while (!times_.empty() && times_.begin()->first <= now) {
        const std::string transfer = times_.begin()->second;
        Lease& lease = leases_.at(transfer);
        if (lease.published) {
            lease.overdue = true;
            set_time(transfer, lease);
            end_if_done(transfer);
            continue;
        }
        for (const PullerId puller : std::vector<PullerId>(lease.active)) {
            if (pullers_.at(puller).deadline > now) continue;
            std::string of;
            detach(puller, of);
            events_.on_puller_refused(
                puller, {Code::NotPublished, quoted(transfer) + " was not published in time"});
            if (!leases_.contains(transfer) || leases_.at(transfer).published) break;
        }
    }
}

// -- the publisher

Status LeaseTable::publish(const std::string& transfer, BlocksByGroup blocks,
                           std::uint32_t layers_end, Instant now) {
    if (transfer.empty() || transfer.size() > limits::kTransferIdBytesMax)
        return {Code::BadOptions,
                "a transfer id has 1 to " + std::to_string(limits::kTransferIdBytesMax) + " bytes"};
    const auto found = leases_.find(transfer);
    if (found != leases_.end() && found->second.published)
        return {Code::AlreadyLive, quoted(transfer) + " is published already"};
    if (published_ >= options_.leases_max)
        return {Code::LimitReached, std::to_string(published_) +
                                        " transfers are published; leases_max is " +
                                        std::to_string(options_.leases_max)};
    if (ended_.erase(transfer) != 0) ended_order_.erase(std::ranges::find(ended_order_, transfer));
    Lease& lease = leases_[transfer];
    lease.published = true;
    lease.blocks = std::move(blocks);
    lease.layers_end = layers_end;
    lease.deadline = options_.abort_timeout >= kForever ? kNever : now + options_.abort_timeout;
    ++published_;
    waiting_ -= lease.active.size();
    set_time(transfer, lease);
    for (const PullerId puller : std::vector<PullerId>(lease.active))
        if (pullers_.contains(puller)) events_.on_more(puller);
    end_if_done(transfer);
    return {};
}

Status LeaseTable::more_layers(const std::string& transfer, std::uint32_t layers_end) {
    const auto found = leases_.find(transfer);
    if (found == leases_.end() || !found->second.published)
        return {Code::NotPublished, quoted(transfer) + " is not published (any more)"};
    Lease& lease = found->second;
    if (layers_end <= lease.layers_end) return {};
    lease.layers_end = layers_end;
    for (const PullerId puller : std::vector<PullerId>(lease.active))
        if (pullers_.contains(puller)) events_.on_more(puller);
    return {};
}

void LeaseTable::release(const std::string& transfer) {
    const auto found = leases_.find(transfer);
    if (found == leases_.end() || !found->second.published) return;
    end(transfer, LeaseEnd::Released, {Code::Expired, quoted(transfer) + " was released"});
}

// -- the pullers

Status LeaseTable::pull(const std::string& transfer, PullerId puller, std::uint32_t pullers,
                        Instant deadline) {
    if (transfer.empty() || transfer.size() > limits::kTransferIdBytesMax)
        return {Code::BadOptions,
                "a transfer id has 1 to " + std::to_string(limits::kTransferIdBytesMax) + " bytes"};
    if (pullers_.contains(puller)) return {Code::AlreadyLive, "this pull is live already"};
    if (ended_.contains(transfer))
        return {Code::Expired, "the lease of " + quoted(transfer) + " has ended"};
    auto found = leases_.find(transfer);
    const bool known = found != leases_.end() && found->second.published;
    if (!known && waiting_ >= options_.waiting_max)
        return {Code::LimitReached, std::to_string(waiting_) +
                                        " pulls wait for their publish; waiting_max is " +
                                        std::to_string(options_.waiting_max)};
    Lease& lease = found != leases_.end() ? found->second : leases_[transfer];
    lease.active.push_back(puller);
    lease.expected = std::max(lease.expected, pullers);
    pullers_.emplace(puller, Puller{transfer, deadline});
    if (!known) {
        ++waiting_;
        set_time(transfer, lease);
        return {};
    }
    events_.on_more(puller);
    return {};
}

bool LeaseTable::detach(PullerId puller, std::string& transfer) {
    const auto found = pullers_.find(puller);
    if (found == pullers_.end()) return false;
    transfer = std::move(found->second.transfer);
    pullers_.erase(found);
    Lease& lease = leases_.at(transfer);
    std::erase(lease.active, puller);
    if (!lease.published) --waiting_;
    if (!lease.published && lease.active.empty() && lease.done == 0) {
        lease.active.clear();
        set_time(transfer, lease);
        time_of_.erase(transfer);
        leases_.erase(transfer);
    } else {
        set_time(transfer, lease);
    }
    return true;
}

void LeaseTable::pulled(PullerId puller) {
    const auto found = pullers_.find(puller);
    if (found == pullers_.end()) return;
    Lease& lease = leases_.at(found->second.transfer);
    if (lease.published) ++lease.done;  // one that gave up waiting is just forgotten
    std::string transfer;
    detach(puller, transfer);
    end_if_done(transfer);
}

void LeaseTable::forget(PullerId puller) {
    std::string transfer;
    if (detach(puller, transfer)) end_if_done(transfer);
}

const BlocksByGroup* LeaseTable::blocks(PullerId puller) const {
    const auto found = pullers_.find(puller);
    if (found == pullers_.end()) return nullptr;
    const Lease& lease = leases_.at(found->second.transfer);
    return lease.published ? &lease.blocks : nullptr;
}

std::uint32_t LeaseTable::layers_end(PullerId puller) const {
    const auto found = pullers_.find(puller);
    return found == pullers_.end() ? 0 : leases_.at(found->second.transfer).layers_end;
}

// -- the end

void LeaseTable::end_if_done(const std::string& transfer) {
    const auto found = leases_.find(transfer);
    if (found == leases_.end() || !found->second.published) return;
    const Lease& lease = found->second;
    if (lease.expected != 0 && lease.done >= lease.expected)
        return end(transfer, LeaseEnd::Pulled, {Code::Expired, quoted(transfer) + " was pulled"});
    if (!lease.overdue || !lease.active.empty()) return;
    ++expired_;
    end(transfer, LeaseEnd::Expired, {Code::Expired, quoted(transfer) + " has expired"});
}

void LeaseTable::end(const std::string& of, LeaseEnd why, const Status& for_pullers) {
    const std::string transfer = of;  // `of` may be part of what is erased
    auto node = leases_.extract(transfer);
    Lease& lease = node.mapped();
    --published_;
    if (const auto time = time_of_.find(transfer); time != time_of_.end()) {
        if (time->second != kNever) times_.erase({time->second, transfer});
        time_of_.erase(time);
    }
    for (const PullerId puller : lease.active) pullers_.erase(puller);
    remember(transfer);
    for (const PullerId puller : lease.active) events_.on_puller_refused(puller, for_pullers);
    events_.on_lease_ended(transfer, lease.blocks, why);
}

void LeaseTable::remember(const std::string& transfer) {
    if (options_.remembered_max == 0 || !ended_.insert(transfer).second) return;
    ended_order_.push_back(transfer);
    if (ended_order_.size() <= options_.remembered_max) return;
    ended_.erase(ended_order_.front());
    ended_order_.pop_front();
}

}  // namespace sluice::kv
