// SPDX-License-Identifier: Apache-2.0
#include "relay/relay.h"

#include <algorithm>
#include <bit>
#include <cstdio>

#include "kv/bootstrap.h"

namespace sluice::relay {

namespace {

http::ServerOptions bootstrap_options() {
    http::ServerOptions options;
    options.head_timeout = std::chrono::seconds(5);
    options.idle_timeout = std::chrono::seconds(5);
    options.body_bytes_max = 1024;
    return options;
}
constexpr std::uint32_t kBootstrapConnectionsMax = 1024;

std::string host_of(const io::Address& address) {
    const std::string text = address.text();
    return text.substr(0, text.rfind(':'));
}

std::int64_t nanoseconds(Instant when) { return when.time_since_epoch().count(); }

}  // namespace

Relay::Transfer::Transfer(Relay& of, TransferEvents& its_events)
    : relay(of), events(&its_events), timer(Delegate<void()>::to<&Transfer::on_timer>(*this)) {}

Relay::Relay(io::Loop& loop, Board& board, std::uint32_t worker, Rng& rng)
    : loop_(loop),
      board_(board),
      worker_(worker),
      rng_(rng),
      directory_(board.directory()),
      desk_(loop, board, worker, *this, directory_, metrics_),
      bootstrap_(loop, *this, bootstrap_options(), kBootstrapConnectionsMax),
      transfers_(kTransfersMax),
      unsent_(board.workers()),
      life_(rng()) {
    board_.set_io(worker, loop.io(), metrics_);
}

Relay::~Relay() { ASSERT(finished()); }

// -- directory

bool Relay::add_listener(const io::Address& address, std::uint32_t tag, bool bootstrap) {
    const auto socket = loop_.io().listen(address, true);
    if (!socket) {
        if (board_.options().log)
            board_.options().log("the KV relay cannot listen on " + address.text() + ": " +
                                 describe(socket.error()) + "; decodes are driven directly");
        return false;
    }
    if (bootstrap) {
        bootstrap_.add_listener(*socket);
    } else {
        desk_.add_listener(*socket, tag);
    }
    return true;
}

void Relay::follow(const std::vector<KnownPrefill>& prefills) {
    if (worker_ == 0 && !stopped_) make_directory(prefills);
    follow_directory();
}

// Engine ids and addresses of lives that are over go, listeners stay.
void Relay::make_directory(const std::vector<KnownPrefill>& prefills) {
    if (gave_up_) return;
    const std::shared_ptr<const Directory> before = board_.directory().load();
    auto next = std::make_shared<Directory>(*before);
    next->incarnations.clear();
    const io::Address& base = board_.options().listen;
    std::uint16_t port = base.port();
    // Listens here at once, so that the port is known to be ours before anybody is told of it.
    const auto open = [&](std::uint32_t tag, bool bootstrap) -> std::optional<io::Address> {
        const std::string host = host_of(base);
        const bool v6 = host.starts_with('[');
        const auto wanted = io::Address::from_ip(
            v6 ? std::string_view(host).substr(1, host.size() - 2) : std::string_view(host),
            port == 0 ? std::uint16_t{0}
                      : static_cast<std::uint16_t>(port + (bootstrap ? 0 : 1 + tag)));
        const auto socket = wanted ? loop_.io().listen(*wanted, true)
                                   : Result<io::Socket>(std::unexpected(wanted.error()));
        if (!socket) {
            gave_up_ = true;
            if (board_.options().log)
                board_.options().log("the KV relay cannot listen on " +
                                     (wanted ? wanted->text() : host) + ": " +
                                     describe(socket.error()) +
                                     "; decodes are driven directly (see --kv-relay-listen)");
            return std::nullopt;
        }
        const auto bound = loop_.io().local_address(*socket);
        if (bootstrap) {
            bootstrap_.add_listener(*socket);
        } else {
            desk_.add_listener(*socket, tag);
        }
        return bound ? std::optional(*bound) : std::nullopt;
    };
    for (const KnownPrefill& prefill : prefills) {
        if (prefill.index >= Board::kPrefillsMax) continue;
        for (const KnownPrefill::Rank& rank : prefill.ranks) {
            if (rank.workers.empty()) continue;
            if (const Incarnation* known = before->find(prefill.index, rank.engine_id)) {
                next->incarnations.push_back(*known);
                continue;
            }
            if (!next->bootstrap.valid()) {
                const auto bound = open(0, true);
                if (!bound) return;
                next->bootstrap = *bound;
                bootstrap_listening_ = true;
            }
            Incarnation made;
            made.number = next_incarnation_++;
            made.prefill = prefill.index;
            made.engine_id = rank.engine_id;
            char id[64];
            std::snprintf(id, sizeof id, "sluice-%016llx-%llu",
                          static_cast<unsigned long long>(life_),
                          static_cast<unsigned long long>(made.number));
            made.relay_id = id;
            for (PrefillWorker worker : rank.workers) {
                made.tp_size = std::max(made.tp_size, worker.tp_rank + 1);
                made.pp_size = std::max(made.pp_size, worker.pp_rank + 1);
                const auto same = [&](const RelayListener& each) {
                    return each.prefill == prefill.index && each.tp_rank == worker.tp_rank &&
                           each.pp_rank == worker.pp_rank;
                };
                const auto found = std::ranges::find_if(next->listeners, same);
                worker.listener = static_cast<std::uint32_t>(found - next->listeners.begin());
                if (found == next->listeners.end()) {
                    const auto bound = open(worker.listener, false);
                    if (!bound) return;
                    next->listeners.push_back(
                        {prefill.index, worker.tp_rank, worker.pp_rank, *bound});
                    listening_ = next->listeners.size();
                }
                made.workers.push_back(worker);
            }
            next->incarnations.push_back(std::move(made));
        }
    }
    const auto number_of = [](const Incarnation& each) { return each.number; };
    if (std::ranges::equal(next->incarnations, before->incarnations, {}, number_of, number_of))
        return;
    board_.directory().publish(std::move(next));
    for (std::size_t to = 1; to < board_.workers(); ++to) board_.wake(to);
}

void Relay::follow_directory() {
    directory_.refresh();
    if (worker_ == 0 || stopped_ || gave_up_) return;
    if (!bootstrap_listening_ && directory_->bootstrap.valid())
        bootstrap_listening_ = add_listener(directory_->bootstrap, 0, true);
    for (; listening_ < directory_->listeners.size(); ++listening_)
        (void)add_listener(directory_->listeners[listening_].address,
                           static_cast<std::uint32_t>(listening_), false);
}

// What a bootstrap server would say of one engine id. Who does not know one learns nothing.
void Relay::on_request(http::ServerConnection& connection) {
    directory_.refresh();
    std::string_view path = connection.request().path;
    constexpr std::string_view kQuery = "/query";
    const Incarnation* found = nullptr;
    if (connection.request().method == "GET" && path.starts_with('/') && path.ends_with(kQuery) &&
        path.size() > 1 + kQuery.size()) {
        path = path.substr(1, path.size() - 1 - kQuery.size());
        found = directory_->find_relay_id(path);
    }
    if (found == nullptr)
        return connection.respond(404, "application/json", R"({"detail":"Not Found"})");
    kv::BootstrapEntries entries;
    kv::RegisteredEngine& engine = entries[0];
    engine.engine_id = found->relay_id;
    const std::string& told = board_.options().host;
    for (const PrefillWorker& worker : found->workers) {
        const io::Address& ours = directory_->listeners[worker.listener].address;
        engine.workers[worker.tp_rank][worker.pp_rank] =
            "tcp://" + (told.empty() ? host_of(ours) : told) + ":" + std::to_string(ours.port());
    }
    connection.respond(200, "application/json", kv::write_bootstrap_entries(entries));
}

// -- notes between workers

void Relay::send_note(std::uint32_t to, const Note& note) {
    if (to == worker_) return take(note);
    if (unsent_[to].empty() && board_.ring(worker_, to).try_push(note)) return board_.wake(to);
    unsent_[to].push_back(note);  // at most what pulls and transfers there are
}

void Relay::flush_notes() {
    for (std::uint32_t to = 0; to < unsent_.size(); ++to) {
        std::vector<Note>& waiting = unsent_[to];
        if (waiting.empty()) continue;
        const std::size_t sent = board_.ring(worker_, to).push_some(waiting);
        waiting.erase(waiting.begin(), waiting.begin() + static_cast<std::ptrdiff_t>(sent));
        if (sent > 0) board_.wake(to);
    }
}

bool Relay::take_notes() {
    bool any = false;
    for (std::uint32_t from = 0; from < board_.workers(); ++from) {
        if (from == worker_) continue;
        Note note;
        while (board_.ring(from, worker_).try_pop(note)) {
            any = true;
            take(note);
        }
    }
    return any;
}

void Relay::between_turns() {
    follow_directory();
    flush_notes();
    if (board_.workers() > 1 && take_notes()) flush_notes();
    metrics_.open_transfers.set(transfers_.size());
    desk_.note_gauges();
}

void Relay::take(const Note& note) {
    switch (note.kind) {
        case Note::Kind::Ask:
            return asked(note);
        case Note::Kind::Withdraw:
            return withdrawn(note);
        case Note::Kind::Done:
            return done(note);
        case Note::Kind::Go:
        case Note::Kind::Fail:
        case Note::Kind::Release:
            return desk_.take(note);
    }
}

// -- the owner's side

Relay::Transfer* Relay::find(const TransferName& name) {
    Transfer* transfer = transfers_.get({name.slot, name.generation});
    if (transfer == nullptr || transfer->secret[0] != name.secret[0] ||
        transfer->secret[1] != name.secret[1])
        return nullptr;
    return transfer;
}

TransferName Relay::name_of(const Transfer& transfer) const {
    const Handle handle = transfers_.handle_of(transfer);
    return {worker_, handle.index, handle.generation, {transfer.secret[0], transfer.secret[1]}};
}

std::optional<Relay::Opened> Relay::open(TransferEvents& events, std::uint32_t prefill,
                                         std::string_view engine_id, std::uint32_t decode) {
    const Incarnation* incarnation = directory_->find(prefill, engine_id);
    if (incarnation == nullptr || stopped_ || decode >= Board::kDecodesMax) return std::nullopt;
    if (board_.ways[decode].blocked_until.load(std::memory_order_relaxed) >
        nanoseconds(loop_.now()))
        return std::nullopt;
    Transfer* transfer = transfers_.emplace(*this, events);
    if (transfer == nullptr) return std::nullopt;
    metrics_.transfers.add();
    transfer->prefill = prefill;
    transfer->decode = decode;
    transfer->incarnation = incarnation->number;
    transfer->tp_size = incarnation->tp_size;
    transfer->workers = static_cast<std::uint32_t>(incarnation->workers.size());
    // By the time the prefill is done there is a connection to hand its pull on with.
    for (const PrefillWorker& worker : incarnation->workers) desk_.warm(worker.address);
    transfer->secret[0] = rng_();
    transfer->secret[1] = rng_();
    const std::string& told = board_.options().host;
    const io::Address& bootstrap = directory_->bootstrap;
    Opened opened;
    opened.transfer = transfers_.handle_of(*transfer);
    opened.transfer_id = write_transfer_id(name_of(*transfer));
    opened.bootstrap_url = "http://" + (told.empty() ? host_of(bootstrap) : told) + ":" +
                           std::to_string(bootstrap.port()) + "/" + incarnation->relay_id;
    opened.engine_id = incarnation->relay_id;
    return opened;
}

bool Relay::may_go_early(const Transfer& transfer) const {
    if (transfer.events == nullptr) return true;  // its other pulls are with the prefill already
    return transfer.accept_likely &&
           board_.early[transfer.prefill].load(std::memory_order_relaxed) <
               static_cast<std::int32_t>(board_.options().early * transfer.workers);
}

void Relay::answer(const Transfer& transfer, Seen& seen, Note::Kind kind, bool early) {
    Note note;
    note.kind = kind;
    note.early = early;
    note.item = seen.item;
    note.pull_slot = seen.pull.index;
    note.pull_generation = seen.pull.generation;
    note.listener = seen.listener;
    note.incarnation = transfer.incarnation;
    note.transfer = name_of(transfer);
    if (kind == Note::Kind::Go) {
        seen.gone_on = true;
        seen.early = early;
        if (early) board_.early[transfer.prefill].fetch_add(1, std::memory_order_relaxed);
    }
    send_note(seen.desk, note);
}

void Relay::asked(const Note& note) {
    const auto refuse = [&](obs::Counter& why) {
        why.add();
        Note fail = note;
        fail.kind = Note::Kind::Fail;
        send_note(note.desk, fail);
    };
    Transfer* transfer = find(note.transfer);
    if (transfer == nullptr || transfer->seen.size() >= kPullsPerTransfer)
        return refuse(metrics_.stale);
    // A listener of another prefill: somebody plays.
    if (note.listener >= directory_->listeners.size() ||
        directory_->listeners[note.listener].prefill != transfer->prefill)
        return refuse(metrics_.stale);
    // The same decode again: its first pull was given up, or has been answered.
    for (const Seen& seen : transfer->seen)
        if (seen.listener == note.listener && seen.who == note.peer) return refuse(metrics_.stale);
    if (transfer->state == State::Failed || transfer->abandoned) return refuse(metrics_.refused);
    Board::Way& way = board_.ways[transfer->decode];
    if (!way.proven.load(std::memory_order_relaxed)) {
        way.proven.store(true, std::memory_order_relaxed);
        way.blocked_until.store(0, std::memory_order_relaxed);
    }
    if (transfer->events != nullptr) transfer->timer.cancel();
    transfer->d_tp_size = note.d_tp_size;
    Seen& seen = transfer->seen.emplace_back();
    seen.desk = note.desk;
    seen.pull = {note.pull_slot, note.pull_generation};
    seen.item = note.item;
    seen.listener = note.listener;
    seen.d_tp_rank = note.d_tp_rank;
    seen.who = note.peer;
    if (transfer->state == State::Ready) return answer(*transfer, seen, Note::Kind::Go, false);
    if (may_go_early(*transfer)) answer(*transfer, seen, Note::Kind::Go, true);
}

void Relay::withdrawn(const Note& note) {
    Transfer* transfer = find(note.transfer);
    if (transfer == nullptr) return;
    const Handle pull{note.pull_slot, note.pull_generation};
    std::erase_if(transfer->seen, [&](const Seen& seen) {
        return !seen.gone_on && seen.desk == note.desk && seen.pull == pull &&
               seen.item == note.item;
    });
}

void Relay::done(const Note& note) {
    if (note.early && note.listener < directory_->listeners.size())
        board_.early[directory_->listeners[note.listener].prefill].fetch_sub(
            1, std::memory_order_relaxed);
    Transfer* transfer = find(note.transfer);
    if (transfer == nullptr) return;
    const Handle pull{note.pull_slot, note.pull_generation};
    for (Seen& seen : transfer->seen)
        if (seen.desk == note.desk && seen.pull == pull && seen.item == note.item) seen.done = true;
    if (transfer->events == nullptr && complete(*transfer)) transfers_.erase(*transfer);
}

// Every pair of ranks has pulled, and was answered.
bool Relay::complete(const Transfer& transfer) const {
    const std::uint32_t each =
        transfer.d_tp_size > transfer.tp_size ? transfer.d_tp_size / transfer.tp_size : 1;
    return transfer.seen.size() >= std::size_t{transfer.workers} * each &&
           std::ranges::all_of(transfer.seen, [](const Seen& seen) { return seen.done; });
}

void Relay::accept_likely(Handle handle) {
    Transfer* transfer = transfers_.get(handle);
    if (transfer == nullptr || transfer->state != State::Pending) return;
    transfer->accept_likely = true;
    for (std::size_t i = 0; i < transfer->seen.size(); ++i)
        if (!transfer->seen[i].gone_on && may_go_early(*transfer))
            answer(*transfer, transfer->seen[i], Note::Kind::Go, true);
}

void Relay::ready(Handle handle) {
    Transfer* transfer = transfers_.get(handle);
    if (transfer == nullptr || transfer->state != State::Pending) return;
    transfer->state = State::Ready;
    transfer->ready_at = loop_.now();
    for (std::size_t i = 0; i < transfer->seen.size(); ++i)
        if (!transfer->seen[i].gone_on) answer(*transfer, transfer->seen[i], Note::Kind::Go, false);
    expect_pull(*transfer);
}

void Relay::decode_sent(Handle handle) {
    Transfer* transfer = transfers_.get(handle);
    if (transfer == nullptr) return;
    transfer->decode_sent = true;
    expect_pull(*transfer);
}

void Relay::expect_pull(Transfer& transfer) {
    if (transfer.events == nullptr || transfer.state != State::Ready || !transfer.decode_sent ||
        !transfer.seen.empty())
        return;
    const bool proven = board_.ways[transfer.decode].proven.load(std::memory_order_relaxed);
    loop_.arm(transfer.timer,
              proven ? board_.options().pull_timeout : board_.options().way_timeout);
}

void Relay::failed(Handle handle, bool certain) {
    Transfer* transfer = transfers_.get(handle);
    if (transfer == nullptr || transfer->state != State::Pending) return;
    transfer->state = State::Failed;
    for (std::size_t i = 0; i < transfer->seen.size(); ++i) {
        Seen& seen = transfer->seen[i];
        if (seen.done || (seen.gone_on && !certain)) continue;
        metrics_.refused.add();
        answer(*transfer, seen, Note::Kind::Fail, false);
        if (!seen.gone_on) seen.done = true;
    }
}

bool Relay::handed_on(Handle handle) {
    const Transfer* transfer = transfers_.get(handle);
    return transfer != nullptr &&
           std::ranges::any_of(transfer->seen, [](const Seen& seen) { return seen.gone_on; });
}

bool Relay::way_doubtful(Handle handle) {
    const Transfer* transfer = transfers_.get(handle);
    return transfer != nullptr && transfer->seen.empty() &&
           !board_.ways[transfer->decode].proven.load(std::memory_order_relaxed);
}

void Relay::block_way(Handle handle, std::string_view decode_url) {
    const Transfer* transfer = transfers_.get(handle);
    if (transfer == nullptr) return;
    Board::Way& way = board_.ways[transfer->decode];
    const std::int64_t until = nanoseconds(loop_.now() + board_.options().probe_again);
    const bool first = way.blocked_until.exchange(until, std::memory_order_relaxed) == 0;
    way.proven.store(false, std::memory_order_relaxed);
    metrics_.way_blocked.add();
    if (!first || !board_.options().log) return;
    std::string line(decode_url);
    line += " does not reach the KV relay: it is driven directly from now on. Let it connect to " +
            directory_->bootstrap.text();
    for (const RelayListener& each : directory_->listeners)
        if (each.prefill == transfer->prefill) line += " and " + each.address.text();
    board_.options().log(line + ", or say with --kv-relay-host what address it must use");
}

// The attempt is over, however it ended.
bool Relay::close(Handle handle, bool prefill_runs) {
    Transfer* transfer = transfers_.get(handle);
    if (transfer == nullptr || transfer->events == nullptr) return false;
    transfer->events = nullptr;
    transfer->timer.cancel();
    for (std::size_t i = 0; i < transfer->seen.size(); ++i) {
        Seen& seen = transfer->seen[i];
        if (seen.gone_on || seen.done) continue;
        metrics_.refused.add();
        seen.done = true;
        answer(*transfer, seen, Note::Kind::Fail, false);
    }
    const bool gone_on =
        std::ranges::any_of(transfer->seen, [](const Seen& seen) { return seen.gone_on; });
    if (transfer->state == State::Ready) release(*transfer);
    // Other ranks of the decode may still come, and the prefill goes on.
    if (transfer->state == State::Pending && gone_on && !complete(*transfer) && !stopped_) {
        loop_.arm(transfer->timer, kOrphanTime);
        return false;
    }
    transfer->abandoned =
        transfer->state == State::Pending && !gone_on && prefill_runs && !stopped_;
    if (transfer->abandoned) {
        loop_.arm(transfer->timer, kReleaseWithin);
        return true;
    }
    transfers_.erase(*transfer);
    return false;
}

void Relay::prefill_over(Handle handle, bool done) {
    Transfer* transfer = transfers_.get(handle);
    if (transfer == nullptr || !transfer->abandoned) return;
    transfer->ready_at = loop_.now();
    if (done) {
        transfer->seen.clear();  // all were answered by us
        release(*transfer);
    }
    transfers_.erase(*transfer);
}

// For each worker of the prefill: whoever of the decode's ranks has not pulled from it.
void Relay::release(const Transfer& transfer) {
    if (complete(transfer) || stopped_ || loop_.now() - transfer.ready_at > kReleaseWithin) return;
    directory_.refresh();
    const Incarnation* incarnation = directory_->find(transfer.incarnation);
    if (incarnation == nullptr) return;
    for (std::size_t i = 0; i < incarnation->workers.size(); ++i) {
        Note note;
        note.kind = Note::Kind::Release;
        note.p_worker = static_cast<std::uint16_t>(i);
        note.incarnation = transfer.incarnation;
        note.transfer = name_of(transfer);
        for (const Seen& seen : transfer.seen)
            if (seen.gone_on && seen.listener == incarnation->workers[i].listener &&
                seen.d_tp_rank < 64)
                note.peer |= 1ULL << seen.d_tp_rank;
        const std::uint32_t each =
            transfer.d_tp_size > transfer.tp_size ? transfer.d_tp_size / transfer.tp_size : 1;
        if (static_cast<std::uint32_t>(std::popcount(note.peer)) >= each) continue;
        desk_.take(note);
    }
}

void Relay::expired(Transfer& transfer) {
    if (transfer.events == nullptr) return transfers_.erase(transfer);
    transfer.events->on_no_pull();
}

// -- end

void Relay::stop() {
    if (std::exchange(stopped_, true)) return;
    desk_.stop();
    bootstrap_.shut_down();
    std::vector<Transfer*> orphans;
    transfers_.for_each([&](Transfer& transfer) {
        if (transfer.events == nullptr) orphans.push_back(&transfer);
    });
    for (Transfer* orphan : orphans) transfers_.erase(*orphan);
}

bool Relay::finished() const {
    return desk_.finished() && bootstrap_.finished() && transfers_.size() == 0;
}

}  // namespace sluice::relay
