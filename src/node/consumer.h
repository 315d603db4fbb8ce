// SPDX-License-Identifier: Apache-2.0
// The consumer's part of a node: pulls, and the legs that fetch each from its producer ranks.
//
// A pull claims its blocks, reaches every producer rank that it is paired with, opens one landing
// for each that has bytes for it, and asks. It ends exactly once, after every landing is closed:
// from then on no byte of it can land, so its blocks are free. A leg that fails ends the others.
// Threads: one. Owns: pulls, claims. Errors: a PullResult.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <unordered_map>

#include "kv/pool.h"
#include "node/transfer.h"

namespace sluice::node {

using PullId = std::uint64_t;

// Where the workers of a producer instance are, as its bootstrap server says.
struct ProducerInstance {
    std::string engine_id;                          // empty: whoever answers
    std::vector<std::vector<io::Address>> workers;  // by tp rank, pp rank
};

struct PullRequest {
    std::string transfer;
    ProducerInstance producer;
    kv::BlocksByGroup blocks;  // where they go; none: tell the producer that it may let go
    Duration deadline = std::chrono::seconds(540);
    transport::Priority priority = transport::Priority::Normal;
};

struct PullResult {
    kv::Status status;  // Ok: landed
    // Which blocks have landed from every rank; as many words as the blocks of the group need.
    std::vector<std::vector<std::uint64_t>> landed;
    std::uint64_t bytes = 0;
    Duration until_known{};  // the publish was known everywhere
    Duration took{};
    std::size_t slot = SIZE_MAX;  // the transport, of its last leg
};

// Links to producers, by address; made when asked for, and again when they were lost.
class Links {
public:
    // Null: too many peers.
    virtual Link* link_to(const io::Address& address) = 0;
    // Starts the transport's connection to that peer if there is none.
    virtual kv::Status connect_data(std::size_t slot, Link& link) = 0;
    // Which of our transports carries bytes from that peer.
    virtual std::optional<std::size_t> choose(const kv::Hello& peer) = 0;

protected:
    ~Links() = default;
};

class ConsumerEvents {
public:
    virtual void on_pull_ended(PullId pull, const PullResult& result) = 0;

protected:
    ~ConsumerEvents() = default;
};

class Consumer {
public:
    Consumer(Hub& hub, Links& links, kv::Pool& pool, ConsumerEvents& events);

    // on_pull_ended() follows, never from within this call.
    kv::Outcome<PullId> pull(PullRequest request);
    // Fences it: on_pull_ended(Aborted) follows as soon as nothing can land any more; at once as a
    // rule, within kAbortBound in any case. An unknown pull is no error.
    void abort(PullId pull);

    // -- from the node
    void on_link_up(Link& link);
    void on_link_lost(Link& link, const kv::Status& status);
    void on_peer_up(std::size_t slot, std::uint64_t node);
    void on_peer_down(std::size_t slot, std::uint64_t node, const kv::Status& status);
    void on_known(Link& link, const kv::Known& known);
    void on_failed(Link& link, const kv::Failed& failed);
    void on_revoke_ack(Link&, const kv::RevokeAck&) {}
    void on_landing(std::size_t slot, const transport::Completion& completion);

    void fail_all(const kv::Status& status);
    std::size_t live() const { return pulls_.size(); }

private:
    struct Pull;
    struct Leg {
        Pull* pull = nullptr;
        std::uint64_t number = 0;  // on the wire
        Link* link = nullptr;      // null: not reached, or lost
        std::uint32_t tp_rank = 0, pp_rank = 0;
        std::shared_ptr<const kv::Route> route;
        std::optional<kv::Half> half;  // none: nothing to move
        std::size_t slot = 0;
        transport::Ticket ticket;
        bool open = false;   // the landing's completion has not come
        bool asked = false;  // the producer has our Pull
        bool known = false;
        bool done = false;
    };
    struct Pull {
        PullId id = 0;
        PullRequest request;
        std::vector<std::unique_ptr<Leg>> legs;
        kv::Status status;
        bool ending = false;
        Instant began{}, stopped{};
        Duration until_known{};
        Consumer* owner = nullptr;
        void on_deadline() { owner->on_deadline(*this); }
        Timer deadline{Delegate<void()>::to<&Pull::on_deadline>(*this)};
    };

    void start();
    void reach(Leg& leg);
    void ask(Leg& leg);
    kv::Status open_landing(Leg& leg);
    void on_deadline(Pull& pull);
    void leg_done(Leg& leg);
    void fail(Pull& pull, const kv::Status& status);
    void finish_if_quiet(Pull& pull);
    bool covered(const Pull& pull) const;
    Leg* leg_of(const Link* link, std::uint64_t number);

    Hub& hub_;
    Links& links_;
    kv::Pool& pool_;
    ConsumerEvents& events_;
    std::unordered_map<PullId, std::unique_ptr<Pull>> pulls_;
    std::unordered_map<std::uint64_t, Leg*> legs_;  // by number
    std::vector<PullId> starting_;
    io::Deferred start_;
    std::uint64_t next_ = 1;
};

}  // namespace sluice::node
