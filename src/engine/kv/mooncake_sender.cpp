// SPDX-License-Identifier: Apache-2.0
#include "engine/kv/mooncake_sender.h"

#include <algorithm>

namespace sluice::engine {

namespace {

// vLLM has no limits here; these only keep a hostile peer from filling the memory.
constexpr std::size_t kTransfersMax = 1 << 18;
constexpr std::size_t kPullsQueuedMax = 1 << 16;

}  // namespace

// A transfer as this worker knows it. Pulls keep the entry they found, also when the map has lost
// it.
struct MooncakeSender::Entry {
    Entry(MooncakeSender& of, std::string id)
        : sender(of),
          transfer(std::move(id)),
          expiry(Delegate<void()>::to<&Entry::on_expiry>(*this)) {}
    void on_expiry() { sender.expired(*this); }

    MooncakeSender& sender;
    const std::string transfer;
    std::uint64_t p_request = 0;  // 0: a placeholder
    std::vector<BlockId> blocks;
    bool ready = false;
    std::uint32_t sent = 0;
    Timer expiry;
    std::vector<Pull*> waiting;
};

// A pull message with its seat, or in the queue for one.
class MooncakeSender::Pull {
public:
    Pull(MooncakeSender& sender, PullMessage message, std::unique_ptr<PullReplier> replier)
        : sender_(sender),
          message_(std::move(message)),
          replier_(std::move(replier)),
          timeout_(Delegate<void()>::to<&Pull::on_timeout>(*this)),
          transfer_(Delegate<void()>::to<&Pull::on_transferred>(*this)) {}
    ~Pull() { leave(); }

    // It has a seat from now on.
    void begin() {
        if (sender_.context_.has_fault(FaultKind::PullHang)) return;
        for (const PullItem& item : message_.items) {
            pending_.push_back({&item, sender_.entry_of(item.transfer)});
            pending_.back().entry->waiting.push_back(this);
        }
        next_round();
    }

    void entry_ready() {
        if (transfer_.armed())
            return;  // the round's batch is under way; this one comes with the next
        const bool any =
            std::ranges::any_of(pending_, [](const Pending& each) { return each.entry->ready; });
        if (!any) return;
        timeout_.cancel();
        sender_.context_.loop.arm(transfer_, sender_.context_.options.kv.transfer_time);
    }

private:
    struct Pending {
        const PullItem* item;
        std::shared_ptr<Entry> entry;
    };

    // Waits for any of what is left, each time as long as the abort time-out.
    void next_round() {
        if (pending_.empty()) return finish({});
        sender_.context_.loop.arm(timeout_, sender_.context_.options.kv.abort_request_timeout);
        entry_ready();
    }

    void on_transferred() {
        PullResponse response;
        // P tp ranks are a whole multiple of D's or the other way round: so many D ranks pull from
        // this worker.
        const std::uint32_t own = std::max(sender_.context_.options.tensor_parallel, 1U);
        const std::uint32_t pullers = std::max(message_.tp_size / own, 1U);
        std::vector<Pending> ready;
        std::erase_if(pending_, [&](Pending& each) {
            if (!each.entry->ready) return false;
            std::erase(each.entry->waiting, this);
            ready.push_back(std::move(each));
            return true;
        });
        for (const Pending& each : ready) sender_.settle(each.entry, *each.item, pullers, response);
        if (pending_.empty()) return finish(std::move(response));
        response.status = PullStatus::Continue;
        replier_->respond(response);
        next_round();
    }

    void on_timeout() {
        PullResponse response;
        for (const Pending& each : pending_) response.failed.push_back(each.item->request);
        response.message = "Timeout waiting for P side ready.";
        sender_.context_.counters.failed_transfers += response.failed.size();
        finish(std::move(response));
    }

    void finish(PullResponse response) {
        response.status = PullStatus::Finish;
        replier_->respond(response);
        leave();
        sender_.pull_ended(*this);
    }

    void leave() {
        timeout_.cancel();
        transfer_.cancel();
        for (Pending& each : pending_) std::erase(each.entry->waiting, this);
        pending_.clear();
    }

    MooncakeSender& sender_;
    const PullMessage message_;
    std::unique_ptr<PullReplier> replier_;
    std::vector<Pending> pending_;
    Timer timeout_;
    Timer transfer_;
};

MooncakeSender::MooncakeSender(const Context& context, SenderOwner& owner, std::uint32_t tp_rank)
    : context_(context),
      owner_(owner),
      tp_rank_(tp_rank),
      purge_(Delegate<void()>::to<&MooncakeSender::purge>(*this)) {}

MooncakeSender::~MooncakeSender() { stop(); }

void MooncakeSender::purge() { ended_.clear(); }

void MooncakeSender::stop() {
    stopped_ = true;
    purge_.cancel();
    seated_.clear();
    queue_.clear();
    ended_.clear();
    entries_.clear();
}

// -- the prefill side

std::shared_ptr<MooncakeSender::Entry> MooncakeSender::entry_of(const std::string& transfer) {
    auto& entry = entries_[transfer];
    if (!entry) entry = std::make_shared<Entry>(*this, transfer);
    return entry;
}

void MooncakeSender::expect(const std::string& transfer, std::uint64_t p_request) {
    const auto entry = entry_of(transfer);
    if (entry->p_request == 0) entry->p_request = p_request;
}

void MooncakeSender::ready(const std::string& transfer, std::uint64_t p_request,
                           const std::vector<BlockId>& blocks) {
    const auto found = entries_.find(transfer);
    if (found == entries_.end()) {
        // A request under the same id was sent and took the entry with it: nobody frees these
        // blocks any more.
        context_.log("KeyError: transfer " + transfer + " is not known");
        return;
    }
    Entry& entry = *found->second;
    entry.p_request = p_request;
    entry.blocks = blocks;
    entry.ready = true;
    context_.loop.arm(entry.expiry, context_.options.kv.abort_request_timeout);
    for (Pull* pull : std::vector<Pull*>(entry.waiting)) pull->entry_ready();
}

void MooncakeSender::drop(const std::string& transfer) {
    // Whoever waits for it holds the entry and is not told.
    if (entries_.erase(transfer) == 0)
        context_.log("KeyError: transfer " + transfer + " is not known");
}

void MooncakeSender::expired(Entry& entry) {
    ++context_.counters.expired;
    context_.log("transfer " + entry.transfer + " timed out, nobody fetched its blocks. Freeing");
    remove(entry);
}

// The request's blocks are free, as far as this worker is concerned.
void MooncakeSender::remove(Entry& entry) {
    const std::uint64_t p_request = entry.p_request;
    entry.expiry.cancel();
    const auto found = entries_.find(entry.transfer);
    if (found != entries_.end() && found->second.get() == &entry) entries_.erase(found);
    owner_.on_sender_done(p_request);
}

// -- pulls

bool MooncakeSender::refused(const PullMessage& message, PullReplier& replier) {
    const std::uint32_t own = context_.options.tensor_parallel;
    const std::uint32_t theirs = std::max(message.tp_size, 1U);
    const bool paired = own >= theirs
                            ? own % theirs == 0 && tp_rank_ / (own / theirs) == message.tp_rank
                            : theirs % own == 0 && message.tp_rank / (theirs / own) == tp_rank_;
    PullResponse response;
    response.status = PullStatus::Error;
    if (!paired) {
        response.message = "This D tp_rank " + std::to_string(message.tp_rank) +
                           " is not paired with P tp_rank " + std::to_string(tp_rank_);
    } else if (!message.has_layout) {
        // Also for an empty pull: what P holds for it stays held.
        response.message = "Object missing required field `kv_caches_base_addr`";
    } else if (entries_.size() + message.items.size() > kTransfersMax ||
               queue_.size() >= kPullsQueuedMax) {
        response.message = "too many transfers wait";
    } else if (context_.has_fault(FaultKind::PullFail)) {
        response.message = "Mooncake transfer engine returned -1";
    } else {
        return false;
    }
    ++context_.counters.failed_transfers;
    replier.respond(response);
    return true;
}

void MooncakeSender::on_pull(PullMessage message, std::unique_ptr<PullReplier> replier) {
    ++context_.counters.pulls_received;
    if (stopped_ || refused(message, *replier)) return;
    queue_.push_back(std::make_unique<Pull>(*this, std::move(message), std::move(replier)));
    fill_seats();
}

void MooncakeSender::fill_seats() {
    while (!queue_.empty() && seated_.size() < seats()) {
        seated_.push_back(std::move(queue_.front()));
        queue_.pop_front();
        seated_.back()->begin();
    }
}

void MooncakeSender::settle(const std::shared_ptr<Entry>& entry, const PullItem& item,
                            std::uint32_t pullers, PullResponse& response) {
    if (item.blocks > entry->blocks.size()) {
        response.failed.push_back(item.request);
        response.message = "P num blocks less than D";
        ++context_.counters.failed_transfers;
    } else {
        // P sends the last ones of its blocks, as many as D asked for.
        const std::uint64_t content =
            entry->blocks.empty() ? 0 : owner_.content_of(entry->blocks.back());
        response.ok.push_back({item.request, content});
    }
    if (++entry->sent < pullers) return;
    const auto found = entries_.find(entry->transfer);
    if (found == entries_.end() || found->second != entry)
        return;  // n > 1: served from the same entry
    if (item.blocks > 0) ++context_.counters.transfers;
    remove(*entry);
}

void MooncakeSender::pull_ended(Pull& pull) {
    const auto found =
        std::ranges::find_if(seated_, [&](const auto& each) { return each.get() == &pull; });
    ASSERT(found != seated_.end());
    ended_.push_back(std::move(*found));  // it is still on the stack
    seated_.erase(found);
    context_.loop.defer(purge_);
    fill_seats();
}

}  // namespace sluice::engine
