// SPDX-License-Identifier: Apache-2.0
// What producer and consumer parts of a node share: its options, its counts, and its ways to peers.
// Threads: one, that of the node's loop; counters may be read from any.
#pragma once

#include <array>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "kv/lease.h"
#include "kv/message.h"
#include "node/link.h"
#include "obs/duration_histogram.h"
#include "obs/metrics.h"
#include "transport/transport.h"

namespace sluice::node {

struct NodeOptions {
    kv::Role role = kv::Role::Both;
    std::string engine_id;
    kv::Rank rank;
    std::uint32_t kv_heads = 0;  // of the whole model
    kv::Token token{};
    std::string host;                                    // see machine_name()
    std::uint64_t node = 0;                              // random, not zero
    Duration abort_timeout = std::chrono::seconds(480);  // of a lease
    Duration publish_wait = std::chrono::seconds(480);   // of a pull before its publish, at most
    kv::LeaseOptions leases;                             // its abort_timeout is the one above
    std::size_t pulls_max = kv::limits::kPullsMax;
    std::size_t peers_max = kv::limits::kPeersMax;
    LinkOptions link;
    std::function<void(std::string_view line)> log_transfer;  // one line each; may be empty
};

inline constexpr std::size_t kTransportsMax = 8;

struct TransferMetrics {  // of one transport
    obs::Counter transfers, failed, bytes;
    obs::Counter ranges_before, ranges_after;  // merging of neighbours
    obs::DurationHistogram time;
    obs::DurationHistogram time_per_gb;  // seconds a decimal gigabyte: the rate, upside down
};

struct NodeMetrics {
    std::array<TransferMetrics, kTransportsMax> received;  // by the node's transports
    std::array<TransferMetrics, kTransportsMax> sent;
    obs::DurationHistogram abort_time;  // until fenced
    obs::Counter aborts, aborts_late;   // late: after kAbortBound
    obs::Counter leases_live, leases_expired, leases_pulled, leases_released;
    obs::Counter pulls_live, pulls_waiting;
    obs::Counter peers, reconnects, restarts_seen, peers_lost;
    obs::Counter wrong_tokens, wrong_versions, wrong_shapes, peers_refused;
};

// A transport of this node, and where it listens.
struct TransportSlot {
    std::string name;
    transport::Transport* transport = nullptr;
    transport::Endpoint endpoint;              // empty: it does not
    std::vector<transport::RegionId> regions;  // by index of the node's regions
    std::string missing;                       // why it cannot be used; empty: it can
};

struct TransportPeer {
    std::size_t slot = 0;
    transport::PeerId peer;
};

// The node as its two parts see it.
class Hub {
public:
    virtual io::Loop& loop() = 0;
    virtual const NodeOptions& options() const = 0;
    virtual const kv::Shape& shape() const = 0;
    virtual NodeMetrics& metrics() = 0;
    virtual TransportSlot& slot(std::size_t index) = 0;
    virtual std::size_t slots() const = 0;
    // The transport's connection to that life of a peer; nullopt while there is none.
    virtual std::optional<transport::PeerId> data_peer(std::size_t slot, std::uint64_t node) = 0;

protected:
    ~Hub() = default;
};

// A half's ranges with the transport's own names for the regions.
inline std::vector<transport::Range> ranges_for(const TransportSlot& slot, const kv::Half& half,
                                                std::uint32_t first, std::uint32_t end) {
    std::vector<transport::Range> ranges(half.ranges.begin() + first, half.ranges.begin() + end);
    for (transport::Range& range : ranges) range.region = slot.regions[range.region];
    return ranges;
}

kv::Status status_of(transport::Status status);
// "TransferMetrics" of one that ended well.
void count_transfer(TransferMetrics& metrics, const kv::Half& half, Duration took);

}  // namespace sluice::node
