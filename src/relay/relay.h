// SPDX-License-Identifier: Apache-2.0
// The control relay of one worker: it stands between a decode's pull and the prefill's worker.
//
// A decode is told our bootstrap address and an engine id of ours, so its pull comes here. It is
// held until the prefill's HTTP answer says that its blocks are ready, and is then handed on; the
// prefill writes straight into the decode, no byte of KV passes here. So no sender seat of a
// prefill is taken by a pull that waits, and when a prefill fails every pull that waits for it is
// answered at once, instead of after 8 to 540 s.
//
//   open()           a transfer with a name of its own; the decode's parameters
//   accept_likely()  from now on pulls may be handed on before the prefill's answer, as long as the
//                    prefill's worker holds few of those (RelayOptions::early of its 20 seats), so
//                    that the answer's way back costs no time
//   ready()          the prefill is done, its blocks wait
//   failed()         it never will be. `certain`: it said so itself, so it will not write either
//   close()          the attempt is over. Blocks that wait for nobody are freed by an empty pull
//
// A pull may arrive at any worker; the one that accepted it (desk.h) asks the owner, whose number
// is in the transfer id, through a ring. Invariants:
//   1. Every pull is answered exactly once, or its connection ends.
//   2. What was handed on is answered by the prefill, or when that can write no more.
//   3. A name that is not open any more, or has been pulled by the same decode before, is answered
//      with err_reqs at once.
// Threads: one; what workers share is in the board. Owns: transfers, the desk, the bootstrap
// server. Errors: if nothing can be listened on, open() answers nothing and the reason is logged.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "base/rng.h"
#include "http/server.h"
#include "relay/board.h"
#include "relay/desk.h"

namespace sluice::relay {

class TransferEvents {
public:
    // The prefill is ready and the decode was asked, yet nothing was pulled within the time that
    // options give. Not after close().
    virtual void on_no_pull() = 0;

protected:
    ~TransferEvents() = default;
};

// A prefill as the fleet knows it.
struct KnownPrefill {
    struct Rank {
        std::string engine_id;
        std::vector<PrefillWorker> workers;  // without listeners
    };
    std::uint32_t index = 0;
    std::vector<Rank> ranks;
};

class Relay final : private NoteSink, private http::RequestHandler {
public:
    static constexpr std::uint32_t kTransfersMax = 1 << 20;
    static constexpr std::size_t kPullsPerTransfer = 256;
    // A transfer whose pulls are all with the prefill when its attempt ends is remembered so long.
    static constexpr Duration kOrphanTime = std::chrono::seconds(120);
    // vLLM frees blocks that nobody pulled after 480 s; a pull behind that would take a seat.
    static constexpr Duration kReleaseWithin = std::chrono::seconds(300);

    Relay(io::Loop& loop, Board& board, std::uint32_t worker, Rng& rng);
    ~Relay();

    // Worker 0 makes the directory from the fleet; the others follow it.
    void follow(const std::vector<KnownPrefill>& prefills);
    // Between turns.
    void between_turns();

    struct Opened {
        Handle transfer;
        std::string transfer_id;
        std::string bootstrap_url;
        std::string engine_id;
    };
    // Nothing: this pair is driven directly.
    std::optional<Opened> open(TransferEvents& events, std::uint32_t prefill,
                               std::string_view engine_id, std::uint32_t decode);
    void accept_likely(Handle transfer);
    void ready(Handle transfer);
    void failed(Handle transfer, bool certain);
    // The decode was sent its request: its pull is due when the prefill is ready.
    void decode_sent(Handle transfer);
    // Something of it is with the prefill: cutting the prefill would leave that there.
    bool handed_on(Handle transfer);
    // Nobody has pulled, and this decode never has: it may be unable to reach us.
    bool way_doubtful(Handle transfer);
    // It cannot: drive it directly for a while.
    void block_way(Handle transfer, std::string_view decode_url);
    // `prefill_runs`: its leg has not ended. True: let it finish, and say so with prefill_over(),
    // for a prefill that was cut may have been done just before, and would hold its blocks.
    bool close(Handle transfer, bool prefill_runs = false);
    // `done`: it answered 200.
    void prefill_over(Handle transfer, bool done);

    const RelayMetrics& metrics() const { return metrics_; }
    // A prefill's worker still owes an answer.
    bool busy() const { return desk_.busy(); }
    void stop();
    bool finished() const;

private:
    enum class State : std::uint8_t { Pending, Ready, Failed };
    struct Seen {
        std::uint32_t desk = 0;
        Handle pull;
        std::uint16_t item = 0;
        std::uint32_t listener = 0;
        std::uint32_t d_tp_rank = 0;
        std::uint64_t who = 0;
        bool gone_on = false;
        bool early = false;
        bool done = false;
    };
    struct Transfer {
        Transfer(Relay& of, TransferEvents& its_events);
        void on_timer() { relay.expired(*this); }

        Relay& relay;
        TransferEvents* events;  // nullptr: closed
        State state = State::Pending;
        bool accept_likely = false;
        bool decode_sent = false;
        bool abandoned = false;  // closed, and its prefill runs
        std::uint32_t prefill = 0;
        std::uint32_t decode = 0;
        std::uint32_t tp_size = 1;  // of the prefill
        std::uint32_t workers = 1;
        std::uint32_t d_tp_size = 0;  // 0: not known
        std::uint64_t incarnation = 0;
        std::uint64_t secret[2] = {};
        Instant ready_at{};
        std::vector<Seen> seen;
        Timer timer;
    };

    // -- directory
    void make_directory(const std::vector<KnownPrefill>& prefills);
    void follow_directory();
    bool add_listener(const io::Address& address, std::uint32_t tag, bool bootstrap);

    // -- notes
    void send_note(std::uint32_t to, const Note& note) override;
    void take(const Note& note);
    void asked(const Note& note);
    void withdrawn(const Note& note);
    void done(const Note& note);
    void flush_notes();
    bool take_notes();

    Transfer* find(const TransferName& name);
    TransferName name_of(const Transfer& transfer) const;
    bool may_go_early(const Transfer& transfer) const;
    void answer(const Transfer& transfer, Seen& seen, Note::Kind kind, bool early);
    void expect_pull(Transfer& transfer);
    bool complete(const Transfer& transfer) const;
    void release(const Transfer& transfer);
    void expired(Transfer& transfer);

    // -- bootstrap
    void on_request(http::ServerConnection& connection) override;
    void on_client_gone(http::ServerConnection&) override {}

    io::Loop& loop_;
    Board& board_;
    std::uint32_t worker_;
    Rng& rng_;
    RelayMetrics metrics_;
    Snapshot<Directory>::Reader directory_;
    Desk desk_;
    http::Server bootstrap_;
    Slab<Transfer> transfers_;
    std::vector<std::vector<Note>> unsent_;  // by worker: its ring was full
    std::size_t listening_ = 0;              // of the directory's listeners
    bool bootstrap_listening_ = false;
    bool gave_up_ = false;    // worker 0: nothing can be listened on
    std::uint64_t life_ = 0;  // of this process
    std::uint64_t next_incarnation_ = 1;
    bool stopped_ = false;
};

}  // namespace sluice::relay
