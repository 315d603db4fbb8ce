// SPDX-License-Identifier: Apache-2.0
// Where decodes' pulls arrive on one worker, wait, are handed on to the prefill's worker, and are
// answered.
//
//   Asked --Go--> HandedOn --P's response--> answered with it
//     |                \--connection breaks--> answered with err_reqs, kSettleTime later
//     \--Fail--> answered with err_reqs at once
// A pull may name several transfers; each item goes its own way, and every response but the last
// says CONTINUE. What is handed on is the decode's own message with only the items that are due.
//
// An item that was handed on is answered by us only when its prefill has failed for certain or its
// connection has broken: until then its blocks may still be written, and a decode that was told of
// a failure would give them to somebody else. kSettleTime lets bytes land that are on their way
// when a prefill dies. Threads: one. Owns: the router, the pulls, the links. Bounds: kPullsMax and
// the router's.
#pragma once

#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "mooncake/router.h"
#include "relay/board.h"
#include "relay/links.h"

namespace sluice::relay {

class NoteSink {
public:
    virtual void send_note(std::uint32_t to, const Note& note) = 0;

protected:
    ~NoteSink() = default;
};

class Desk final : private mooncake::RouterEvents {
public:
    static constexpr std::uint32_t kPullsMax = 32768;
    static constexpr std::size_t kDLayoutsMax = 64;  // decode tp ranks
    static constexpr Duration kSettleTime = std::chrono::milliseconds(10);
    static constexpr Duration kLayoutAge = std::chrono::seconds(10);  // then a newer one is kept
    static constexpr Duration kReleaseTime = std::chrono::seconds(5);

    Desk(io::Loop& loop, Board& board, std::uint32_t worker, NoteSink& sink,
         Snapshot<Directory>::Reader& directory, RelayMetrics& metrics);
    ~Desk();

    void add_listener(io::Socket socket, std::uint32_t tag) { router_.add_listener(socket, tag); }
    // Go, Fail or Release.
    void take(const Note& note);
    void warm(const io::Address& address) { links_.warm(address); }

    // Something is with a prefill's worker: a decode that loses its connection to us now keeps its
    // blocks for vLLM's time-out.
    bool busy() const { return !hand_overs_.empty() || !releases_.empty(); }

    void stop();
    bool finished() const;
    void note_gauges();

private:
    enum class State : std::uint8_t { Asked, Go, Failed, HandedOn, Settled };
    // HandedOn, and its prefill has failed since: the decode is told, and what the prefill may say
    // of it later is for nobody.
    enum class Told : std::uint8_t { No, Due, Yes };
    struct Item {
        State state = State::Asked;
        Told told = Told::No;
        bool early = false;
        TransferName transfer;
        std::uint64_t incarnation = 0;
        std::string request;  // the decode's name for it
    };
    struct Pull;
    class HandOver;
    class Release;

    void on_message(Handle peer, std::uint32_t listener, std::string_view message) override;
    void on_gone(Handle peer) override;
    void ask(Pull& pull, std::uint16_t item, std::uint64_t who);
    void go(Pull& pull, Item& item, const Note& note);
    void fail(Pull& pull, Item& item);
    void flush_dirty();
    void flush(Pull& pull);
    void hand_on(Pull& pull, std::uint64_t incarnation);
    void done(Pull& pull, Item& item, bool good);
    void respond(Pull& pull, std::string_view message);
    void respond_failed(Pull& pull, std::span<const std::string_view> failed, std::string_view why);
    mooncake::Status status_of(const Pull& pull) const;
    bool any_left(const Pull& pull) const;
    void erase_if_over(Pull& pull);
    void over(HandOver& hand_over);
    void over(Release& release);
    void release(const Note& note);
    void learn(std::string_view raw, std::uint32_t d_tp_rank, std::uint32_t d_tp_size);
    void purge();

    io::Loop& loop_;
    Board& board_;
    std::uint32_t worker_;
    NoteSink& sink_;
    Snapshot<Directory>::Reader& directory_;
    RelayMetrics& metrics_;
    mooncake::Router router_;
    Links links_;
    Slab<Pull> pulls_;
    std::vector<Handle> dirty_;
    io::Deferred flush_;
    std::vector<std::unique_ptr<HandOver>> hand_overs_;
    std::vector<std::unique_ptr<Release>> releases_;
    std::vector<std::unique_ptr<HandOver>> ended_;
    std::vector<std::unique_ptr<Release>> ended_releases_;
    io::Deferred purge_;
    // A decode's message of each of its tp ranks: what an empty pull is made of.
    std::map<std::uint32_t, std::string> layouts_;
    std::uint32_t layout_tp_size_ = 0;
    Instant learned_{};
    std::uint64_t dangling_ = 0;
    bool stopped_ = false;
};

}  // namespace sluice::relay
