// SPDX-License-Identifier: Apache-2.0
// P's promises: which transfers are published, who is pulling them, and when each promise ends.
//
// A lease begins with publish() and ends exactly once: when every paired consumer rank has pulled
// (or said that it no longer wants to), when it is released, or when its time is up and no transfer
// of it is under way. A pull that comes first waits, for a limited time. A publish may come layer
// by layer; who pulls is told each time there is more. A second live publish of an id is refused,
// so is a pull of one that has just ended, without waiting for nothing.
//
// Threads: one. Owns: the block lists. Costs: a few map operations a call. Errors: a Status. Events
// come from within the calls, after the table's own state is right again; they may call back.
#pragma once

#include <deque>
#include <set>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "base/time.h"
#include "kv/layout.h"

namespace sluice::kv {

// Named by the table's user, never twice among live ones.
using PullerId = std::uint64_t;

enum class LeaseEnd : std::uint8_t { Pulled, Released, Expired };

class LeaseEvents {
public:
    // More layers may be sent to this puller; the first time, its transfer has become known.
    virtual void on_more(PullerId puller) = 0;
    // The puller gets nothing (more): its wait or its lease ended. It is forgotten.
    virtual void on_puller_refused(PullerId puller, const Status& status) = 0;
    // The blocks are the publisher's again.
    virtual void on_lease_ended(const std::string& transfer, const BlocksByGroup& blocks,
                                LeaseEnd end) = 0;

protected:
    ~LeaseEvents() = default;
};

struct LeaseOptions {
    Duration abort_timeout = std::chrono::seconds(480);  // VLLM_MOONCAKE_ABORT_REQUEST_TIMEOUT
    std::size_t leases_max = limits::kLeasesMax;
    std::size_t waiting_max = limits::kWaitingPullsMax;
    std::size_t remembered_max = 4096;  // ended ids
};

class LeaseTable {
public:
    LeaseTable(LeaseEvents& events, const LeaseOptions& options)
        : events_(events), options_(options) {}
    LeaseTable(const LeaseTable&) = delete;
    LeaseTable& operator=(const LeaseTable&) = delete;

    // -- the publisher. Layers below `layers_end` are there; the lease's time begins now.
    Status publish(const std::string& transfer, BlocksByGroup blocks, std::uint32_t layers_end,
                   Instant now);
    Status more_layers(const std::string& transfer, std::uint32_t layers_end);
    // Live pulls of it are refused. An unknown id is no error: it may have ended by itself.
    void release(const std::string& transfer);

    // -- the pullers. `pullers`: how many consumer ranks this rank is paired with. If the transfer
    // is published on_more() comes from within this call. `deadline`: of the wait.
    Status pull(const std::string& transfer, PullerId puller, std::uint32_t pullers,
                Instant deadline);
    // It has everything, or wants no more: one rank less to wait for.
    void pulled(PullerId puller);
    // It failed: forgotten, and the lease goes on waiting.
    void forget(PullerId puller);
    const BlocksByGroup* blocks(PullerId puller) const;  // null: not known yet
    std::uint32_t layers_end(PullerId puller) const;

    void advance(Instant now);
    Instant next_deadline() const { return times_.empty() ? kNever : times_.begin()->first; }

    std::size_t live() const { return published_; }
    std::size_t pulling() const { return pullers_.size(); }
    std::size_t waiting() const { return waiting_; }
    std::uint64_t expired() const { return expired_; }

private:
    struct Lease {
        BlocksByGroup blocks;
        bool published = false;
        bool overdue = false;  // ends as soon as nobody pulls
        std::uint32_t layers_end = 0;
        std::uint32_t expected = 0;  // 0: nobody has said yet
        std::uint32_t done = 0;
        Instant deadline = kNever;
        std::vector<PullerId> active;  // waiting, if it is not published
    };
    struct Puller {
        std::string transfer;
        Instant deadline = kNever;  // of its wait
    };
    using Time = std::pair<Instant, std::string>;

    void end(const std::string& transfer, LeaseEnd why, const Status& for_pullers);
    void end_if_done(const std::string& transfer);
    // Takes a puller off its lease; false if it is not known.
    bool detach(PullerId puller, std::string& transfer);
    void remember(const std::string& transfer);
    void set_time(const std::string& transfer, Lease& lease);

    LeaseEvents& events_;
    LeaseOptions options_;
    std::unordered_map<std::string, Lease> leases_;
    std::unordered_map<PullerId, Puller> pullers_;
    std::set<Time> times_;  // of leases: the next moment at which something may end
    std::unordered_map<std::string, Instant> time_of_;
    std::unordered_set<std::string> ended_;
    std::deque<std::string> ended_order_;
    std::size_t published_ = 0;
    std::size_t waiting_ = 0;
    std::uint64_t expired_ = 0;
};

}  // namespace sluice::kv
