// SPDX-License-Identifier: Apache-2.0
#include "relay/desk.h"

#include <algorithm>

namespace sluice::relay {

namespace {

constexpr std::string_view kPrefillFailed = "the prefill failed";

mooncake::RouterOptions router_options() {
    mooncake::RouterOptions options;
    options.connections_max = 8192;
    options.pending_bytes_max = 64 << 20;
    options.idle_timeout = std::chrono::seconds(10);  // nothing of it is pending
    return options;
}

std::uint64_t hash_of(std::string_view host, std::uint32_t port, std::uint32_t tp_rank) {
    std::uint64_t hash = 0xcbf29ce484222325ULL;
    const auto mix = [&](std::uint64_t byte) { hash = (hash ^ byte) * 0x100000001b3ULL; };
    for (const char c : host) mix(static_cast<std::uint8_t>(c));
    mix(port);
    mix(tp_rank);
    return hash;
}

}  // namespace

struct Desk::Pull {
    Handle peer;
    std::uint32_t listener = 0;
    std::uint32_t tp_rank = 0;
    bool peer_gone = false;
    bool queued = false;    // in dirty_
    std::uint32_t out = 0;  // hand-overs under way
    std::string raw;
    std::vector<Item> items;
};

// Items of one pull that were handed on together.
class Desk::HandOver final : public LinkEvents {
public:
    HandOver(Desk& desk, Handle pull, std::vector<std::uint16_t> items)
        : desk_(desk),
          pull_(pull),
          items_(std::move(items)),
          settle_(Delegate<void()>::to<&HandOver::on_settle>(*this)) {}

private:
    Item* find(Pull& pull, std::string_view request) {
        for (const std::uint16_t i : items_)
            if (pull.items[i].request == request) return &pull.items[i];
        return nullptr;
    }
    void on_link_response(const mooncake::Response& response, bool more) override {
        Pull* pull = desk_.pulls_.get(pull_);
        ASSERT(pull != nullptr);  // it waits for its hand-overs
        std::vector<std::string_view> ok, failed;
        bool whole = response.status != mooncake::Status::LayoutMiss;  // can be passed on
        const auto settle = [&](std::string_view request, bool good) {
            Item* item = find(*pull, request);
            if (item == nullptr || item->told != Told::No) {
                whole = false;
            } else {
                (good ? ok : failed).push_back(item->request);
            }
            if (item != nullptr && item->state == State::HandedOn) desk_.done(*pull, *item, good);
        };
        for (const std::string_view request : response.ok) settle(request, true);
        for (const std::string_view request : response.failed) settle(request, false);
        // Nothing more will come: whoever was not named has failed.
        for (const std::uint16_t i : items_) {
            Item& item = pull->items[i];
            if (more || item.state != State::HandedOn) continue;
            whole = false;
            if (item.told == Told::No) failed.push_back(item.request);
            desk_.done(*pull, item, false);
        }
        if (!more) --pull->out;
        const mooncake::Status status = desk_.status_of(*pull);
        if (whole) {
            desk_.respond(*pull, mooncake::write_response(response, status));
        } else if (!ok.empty() || !failed.empty()) {
            desk_.respond(*pull, mooncake::write_response(status, ok, failed, response.message));
        }
        if (!more) desk_.over(*this);
    }
    void on_link_broken(bool delivered) override {
        // What was never delivered is not written either.
        desk_.loop_.arm(settle_, delivered ? kSettleTime : Duration::zero());
    }
    void on_settle() {
        Pull* pull = desk_.pulls_.get(pull_);
        ASSERT(pull != nullptr);
        std::vector<std::string_view> failed;
        for (const std::uint16_t i : items_) {
            Item& item = pull->items[i];
            if (item.state != State::HandedOn) continue;
            if (item.told == Told::No) failed.push_back(item.request);
            desk_.done(*pull, item, false);
        }
        --pull->out;
        desk_.respond_failed(*pull, failed, "the prefill has gone");
        desk_.over(*this);
    }

    Desk& desk_;
    Handle pull_;
    std::vector<std::uint16_t> items_;
    Timer settle_;

    friend class Desk;
};

// An empty pull of our own.
class Desk::Release final : public LinkEvents {
public:
    explicit Release(Desk& desk) : desk_(desk) {}

private:
    void on_link_response(const mooncake::Response& response, bool more) override {
        const bool good = response.status != mooncake::Status::Error && !response.ok.empty();
        if (!counted_) (good ? desk_.metrics_.released : desk_.metrics_.unreleased).add();
        counted_ = true;
        if (more) desk_.links_.drop(*this);
        desk_.over(*this);
    }
    void on_link_broken(bool) override {
        if (!counted_) desk_.metrics_.unreleased.add();
        desk_.over(*this);
    }
    Desk& desk_;
    bool counted_ = false;
};

Desk::Desk(io::Loop& loop, Board& board, std::uint32_t worker, NoteSink& sink,
           Snapshot<Directory>::Reader& directory, RelayMetrics& metrics)
    : loop_(loop),
      board_(board),
      worker_(worker),
      sink_(sink),
      directory_(directory),
      metrics_(metrics),
      router_(loop, *this, router_options()),
      links_(loop),
      pulls_(kPullsMax),
      flush_(Delegate<void()>::to<&Desk::flush_dirty>(*this)),
      purge_(Delegate<void()>::to<&Desk::purge>(*this)) {}

Desk::~Desk() = default;

// -- arriving

void Desk::on_message(Handle peer, std::uint32_t listener, std::string_view message) {
    const auto read = mooncake::read_pull(message);
    if (!read) {
        metrics_.malformed.add();
        return router_.send(
            peer, mooncake::write_response(mooncake::Status::Error, {}, {}, read.error()));
    }
    metrics_.pulls.add();
    Pull* pull = stopped_ ? nullptr : pulls_.emplace();
    if (pull == nullptr || read->items.empty()) {
        std::vector<std::string_view> all;
        for (const auto& item : read->items) all.push_back(item.request);
        if (pull != nullptr) pulls_.erase(*pull);
        return router_.send(peer,
                            mooncake::write_response(mooncake::Status::Finish, {}, all,
                                                     all.empty() ? "" : "too many pulls wait"));
    }
    pull->peer = peer;
    pull->listener = listener;
    pull->tp_rank = read->tp_rank;
    pull->raw = message;
    router_.hold(peer, true);
    for (const auto& each : read->items) {
        Item& item = pull->items.emplace_back();
        item.request = each.request;
    }
    const std::uint64_t who = hash_of(read->host, read->port, read->tp_rank);
    for (std::uint16_t i = 0; i < pull->items.size(); ++i) {
        Item& item = pull->items[i];
        if (!read_transfer_id(read->items[i].transfer, item.transfer) ||
            item.transfer.worker >= board_.workers()) {
            metrics_.stale.add();
            fail(*pull, item);
            continue;
        }
        Note note;
        note.kind = Note::Kind::Ask;
        note.item = i;
        note.d_tp_rank = static_cast<std::uint16_t>(std::min(read->tp_rank, 0xffffU));
        note.d_tp_size = static_cast<std::uint16_t>(std::clamp(read->tp_size, 1U, 0xffffU));
        note.desk = worker_;
        const Handle handle = pulls_.handle_of(*pull);
        note.pull_slot = handle.index;
        note.pull_generation = handle.generation;
        note.listener = listener;
        note.peer = who;
        note.transfer = item.transfer;
        sink_.send_note(item.transfer.worker, note);
    }
}

void Desk::on_gone(Handle peer) {
    // A decode's message is one pull, so this is short.
    pulls_.for_each([&](Pull& pull) {
        if (!(pull.peer == peer)) return;
        pull.peer_gone = true;
        for (std::uint16_t i = 0; i < pull.items.size(); ++i) {
            Item& item = pull.items[i];
            if (item.state != State::Asked) continue;
            Note note;
            note.kind = Note::Kind::Withdraw;
            note.item = i;
            note.desk = worker_;
            const Handle handle = pulls_.handle_of(pull);
            note.pull_slot = handle.index;
            note.pull_generation = handle.generation;
            note.listener = pull.listener;
            note.transfer = item.transfer;
            item.state = State::Settled;
            sink_.send_note(item.transfer.worker, note);
        }
        if (!std::exchange(pull.queued, true)) dirty_.push_back(pulls_.handle_of(pull));
        loop_.defer(flush_);
    });
}

// -- verdicts

void Desk::take(const Note& note) {
    if (note.kind == Note::Kind::Release) return release(note);
    Pull* pull = pulls_.get({note.pull_slot, note.pull_generation});
    if (pull == nullptr) {
        // It has gone; who asked must not count it as handed on.
        if (note.kind == Note::Kind::Go) {
            Note back = note;
            back.kind = Note::Kind::Done;
            sink_.send_note(note.transfer.worker, back);
        }
        return;
    }
    ASSERT(note.item < pull->items.size());
    Item& item = pull->items[note.item];
    if (note.kind == Note::Kind::Go) return go(*pull, item, note);
    fail(*pull, item);
}

void Desk::go(Pull& pull, Item& item, const Note& note) {
    item.early = note.early;
    item.incarnation = note.incarnation;
    if (item.state != State::Asked) {
        item.state = State::HandedOn;  // the one who pulled has gone meanwhile
        return done(pull, item, false);
    }
    item.state = State::Go;
    if (!std::exchange(pull.queued, true)) dirty_.push_back(pulls_.handle_of(pull));
    loop_.defer(flush_);
}

void Desk::fail(Pull& pull, Item& item) {
    switch (item.state) {
        case State::Asked:
            item.state = State::Failed;
            break;
        case State::HandedOn:
            // Its prefill will never write: the decode need not wait for it, though its place is
            // taken until it answers.
            if (item.told != Told::No) return;
            item.told = Told::Due;
            ++dangling_;
            break;
        case State::Go:
        case State::Failed:
        case State::Settled:
            return;
    }
    if (!std::exchange(pull.queued, true)) dirty_.push_back(pulls_.handle_of(pull));
    loop_.defer(flush_);
}

void Desk::done(Pull& pull, Item& item, bool good) {
    ASSERT(item.state == State::HandedOn);
    item.state = State::Settled;
    if (item.told != Told::No) --dangling_;
    (good ? metrics_.completed : metrics_.failed).add();
    Note note;
    note.kind = Note::Kind::Done;
    note.early = item.early;
    note.good = good;
    note.listener = pull.listener;
    note.desk = worker_;
    const Handle handle = pulls_.handle_of(pull);
    note.pull_slot = handle.index;
    note.pull_generation = handle.generation;
    note.item = static_cast<std::uint16_t>(&item - pull.items.data());
    note.transfer = item.transfer;
    sink_.send_note(item.transfer.worker, note);
}

// -- answering and handing on, at the end of the turn: what was decided in it goes together

void Desk::flush_dirty() {
    for (const Handle handle : std::exchange(dirty_, {}))
        if (Pull* pull = pulls_.get(handle)) {
            pull->queued = false;
            flush(*pull);
        }
}

// The decode still waits for some of its items.
bool Desk::any_left(const Pull& pull) const {
    return std::ranges::any_of(pull.items, [](const Item& item) {
        return item.state == State::Asked || item.state == State::Go ||
               (item.state == State::HandedOn && item.told == Told::No);
    });
}

mooncake::Status Desk::status_of(const Pull& pull) const {
    return any_left(pull) ? mooncake::Status::Continue : mooncake::Status::Finish;
}

void Desk::flush(Pull& pull) {
    std::vector<std::string_view> failed;
    for (Item& item : pull.items) {
        if (item.state == State::Failed) {
            failed.push_back(item.request);
            item.state = State::Settled;
        } else if (item.told == Told::Due) {
            if (item.state == State::HandedOn) failed.push_back(item.request);
            item.told = Told::Yes;
        }
    }
    respond_failed(pull, failed, kPrefillFailed);
    while (true) {
        const auto next = std::ranges::find(pull.items, State::Go, &Item::state);
        if (next == pull.items.end()) break;
        hand_on(pull, next->incarnation);
    }
    erase_if_over(pull);
}

void Desk::hand_on(Pull& pull, std::uint64_t number) {
    const auto read = mooncake::read_pull(pull.raw);
    ASSERT(read.has_value());
    directory_.refresh();
    const Incarnation* incarnation = directory_->find(number);
    const PrefillWorker* worker = nullptr;
    if (incarnation != nullptr)
        for (const PrefillWorker& each : incarnation->workers)
            if (each.listener == pull.listener) worker = &each;
    std::vector<std::uint16_t> indices;
    std::vector<mooncake::PullItem> items;
    for (std::uint16_t i = 0; i < pull.items.size(); ++i) {
        Item& item = pull.items[i];
        if (item.state != State::Go || item.incarnation != number) continue;
        item.state = State::HandedOn;
        if (worker == nullptr || pull.peer_gone) {
            // That life of the prefill is over, or nobody waits.
            const std::string_view request = item.request;
            done(pull, item, false);
            respond_failed(pull, std::span(&request, 1), "the prefill has gone");
            continue;
        }
        metrics_.handed_on.add();
        if (item.early) metrics_.handed_early.add();
        indices.push_back(i);
        items.push_back(read->items[i]);
    }
    if (items.empty()) return;
    learn(pull.raw, read->tp_rank, read->tp_size);
    ++pull.out;
    hand_overs_.push_back(
        std::make_unique<HandOver>(*this, pulls_.handle_of(pull), std::move(indices)));
    links_.pull(worker->address, mooncake::write_pull(*read, items), *hand_overs_.back());
}

void Desk::respond(Pull& pull, std::string_view message) {
    if (!pull.peer_gone) router_.send(pull.peer, message);
}

void Desk::respond_failed(Pull& pull, std::span<const std::string_view> failed,
                          std::string_view why) {
    if (!failed.empty()) respond(pull, mooncake::write_response(status_of(pull), {}, failed, why));
}

void Desk::erase_if_over(Pull& pull) {
    if (pull.out > 0 || pull.queued || any_left(pull)) return;
    if (!pull.peer_gone) router_.hold(pull.peer, false);
    pulls_.erase(pull);
}

void Desk::over(HandOver& hand_over) {
    const auto found = std::ranges::find_if(
        hand_overs_, [&](const auto& each) { return each.get() == &hand_over; });
    ASSERT(found != hand_overs_.end());
    ended_.push_back(std::move(*found));  // it is on the stack
    hand_overs_.erase(found);
    loop_.defer(purge_);
    if (Pull* pull = pulls_.get(hand_over.pull_)) erase_if_over(*pull);
}

void Desk::over(Release& release) {
    const auto found =
        std::ranges::find_if(releases_, [&](const auto& each) { return each.get() == &release; });
    ASSERT(found != releases_.end());
    ended_releases_.push_back(std::move(*found));
    releases_.erase(found);
    loop_.defer(purge_);
}

void Desk::purge() {
    ended_.clear();
    ended_releases_.clear();
}

// -- releasing

// Only from a pull that was allowed: a stranger's message is no decode's layout.
void Desk::learn(std::string_view raw, std::uint32_t d_tp_rank, std::uint32_t d_tp_size) {
    if (layout_tp_size_ != d_tp_size) layouts_.clear();
    if (layouts_.contains(d_tp_rank) && loop_.now() - learned_ < kLayoutAge) return;
    learned_ = loop_.now();
    layout_tp_size_ = d_tp_size;
    if (layouts_.size() >= kDLayoutsMax && !layouts_.contains(d_tp_rank)) return;
    layouts_[d_tp_rank] = raw;
}

// For each decode rank that a worker of the prefill is paired with and that has not pulled.
void Desk::release(const Note& note) {
    directory_.refresh();
    const Incarnation* incarnation = directory_->find(note.incarnation);
    if (incarnation == nullptr) return;  // the blocks went with that life
    if (layouts_.empty()) {
        if (note.hops + 1U >= board_.workers() || stopped_) {
            metrics_.unreleased.add();
            return;
        }
        Note next = note;
        ++next.hops;
        return sink_.send_note(static_cast<std::uint32_t>((worker_ + 1) % board_.workers()), next);
    }
    if (note.p_worker >= incarnation->workers.size()) return;
    const PrefillWorker& worker = incarnation->workers[note.p_worker];
    const std::uint32_t p_size = incarnation->tp_size;
    const std::uint32_t d_size = layout_tp_size_;
    const std::uint32_t first =
        d_size >= p_size ? worker.tp_rank * (d_size / p_size) : worker.tp_rank / (p_size / d_size);
    const std::uint32_t count = d_size >= p_size ? d_size / p_size : 1;
    for (std::uint32_t rank = first; rank < first + count; ++rank) {
        if (rank < 64 && (note.peer >> rank & 1) != 0) continue;
        const auto layout = layouts_.find(rank);
        const auto like = layout == layouts_.end()
                              ? std::expected<mooncake::Pull, const char*>(std::unexpected("none"))
                              : mooncake::read_pull(layout->second);
        if (!like || stopped_) {
            metrics_.unreleased.add();
            continue;
        }
        releases_.push_back(std::make_unique<Release>(*this));
        links_.pull(
            worker.address,
            mooncake::write_empty_pull(*like, "sluice-release", write_transfer_id(note.transfer)),
            *releases_.back(), kReleaseTime);
    }
}

// -- end

void Desk::stop() {
    stopped_ = true;
    flush_.cancel();
    router_.shut_down();
    for (auto& hand_over : hand_overs_) {
        hand_over->settle_.cancel();
        links_.drop(*hand_over);
    }
    for (auto& release : releases_) links_.drop(*release);
    links_.stop();
    hand_overs_.clear();
    releases_.clear();
    // Early ones that were never answered would count for ever.
    pulls_.for_each([&](Pull& pull) {
        for (Item& item : pull.items)
            if (item.state == State::HandedOn) done(pull, item, false);
    });
    std::vector<Pull*> all;
    pulls_.for_each([&](Pull& pull) { all.push_back(&pull); });
    for (Pull* pull : all) pulls_.erase(*pull);
    dirty_.clear();
}

bool Desk::finished() const {
    return router_.finished() && links_.finished() && pulls_.size() == 0;
}

void Desk::note_gauges() {
    metrics_.open_pulls.set(pulls_.size());
    metrics_.dangling.set(dangling_);
    metrics_.connections.set(router_.connections() + links_.size());
}

}  // namespace sluice::relay
