// SPDX-License-Identifier: Apache-2.0
// The producer's part of a node: leases, and the legs that carry them to consumers.
//
// A leg is one consumer rank's pull. Once its transfer is published the leg posts the ranges of the
// layers that are there, more as more are published, and ends when the transport has said so for
// every post. A lease's blocks are the publisher's again only when no leg reads them any more.
// Threads: one. Owns: leases, legs, pins. Errors: legs fail by a Failed message.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <unordered_map>

#include "kv/pool.h"
#include "node/transfer.h"

namespace sluice::node {

class ProducerEvents {
public:
    // The blocks may be reused: nothing reads them any more.
    virtual void on_lease_ended(const std::string& transfer, const kv::BlocksByGroup& blocks,
                                kv::LeaseEnd end) = 0;

protected:
    ~ProducerEvents() = default;
};

class Producer final : private kv::LeaseEvents {
public:
    Producer(Hub& hub, kv::Pool& pool, ProducerEvents& events);

    kv::Status publish(const std::string& transfer, kv::BlocksByGroup blocks,
                       std::uint32_t layers_end);
    kv::Status more_layers(const std::string& transfer, std::uint32_t layers_end);
    void release(const std::string& transfer);

    // -- from the node
    void on_pull(Link& link, kv::Pull& pull);
    void on_landed(Link& link, const kv::Landed& landed);
    void on_abort(Link& link, const kv::Abort& abort);
    void on_link_lost(Link& link);
    void on_peer_up(std::size_t slot, std::uint64_t node);
    void on_post(std::size_t slot, const transport::Completion& completion);

    const kv::LeaseTable& leases() const { return table_; }
    std::size_t legs() const { return legs_.size(); }

private:
    struct Leg {
        kv::PullerId id = 0;
        Link* link = nullptr;  // null: lost
        std::uint64_t node = 0;
        kv::Pull pull;
        std::shared_ptr<const kv::Route> route;
        std::string transfer;
        std::optional<kv::Half> half;
        std::uint32_t next_range = 0;
        std::vector<transport::PostId> posts;  // in flight
        kv::Status status;                     // why it fails
        bool known_sent = false;
        bool landed = false;
        bool aborted = false;
        bool over = false;     // it only waits for its posts
        bool holding = false;  // ... and its ended lease waits for it
        Instant began{};
    };
    struct Ending {
        kv::BlocksByGroup blocks;
        kv::LeaseEnd end{};
        std::size_t legs = 0;  // that still read
    };

    void on_more(kv::PullerId puller) override;
    void on_puller_refused(kv::PullerId puller, const kv::Status& status) override;
    void on_lease_ended(const std::string& transfer, const kv::BlocksByGroup& blocks,
                        kv::LeaseEnd end) override;

    void advance();
    void rearm();
    void post_more(Leg& leg);
    void fail(Leg& leg, const kv::Status& status);
    void stop_posts(Leg& leg);
    void finish_if_quiet(Leg& leg);
    void retry_full();
    void let_go(const std::string& transfer, Ending& ending);
    Leg* leg_of(Link& link, std::uint64_t pull);

    Hub& hub_;
    kv::Pool& pool_;
    ProducerEvents& events_;
    kv::LeaseTable table_;
    std::unordered_map<kv::PullerId, std::unique_ptr<Leg>> legs_;
    std::map<std::pair<const Link*, std::uint64_t>, kv::PullerId> by_pull_;
    std::map<std::string, Ending> ending_;  // leases that ended while legs were reading
    std::map<std::pair<std::uint64_t, std::uint64_t>, std::shared_ptr<const kv::Route>> routes_;
    std::deque<kv::PullerId> full_;  // the transport's table was full
    kv::PullerId next_ = 1;
    Timer timer_;
};

}  // namespace sluice::node
