// SPDX-License-Identifier: Apache-2.0
// The prefill and decode instances: what is known of each, and how busy and healthy it is.
//
// An Instance is part of an immutable FleetSnapshot that the keeper replaces when something changes
// (an address, a restart with new engine ids). Its InstanceState is shared by all workers and
// outlives snapshots: the load counts must be exact over all workers for "least loaded" to mean
// anything, so they are the one place where workers write the same cache line, twice a leg.
// Threads: snapshots immutable; InstanceState atomic.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/limits.h"
#include "base/snapshot.h"
#include "base/time.h"
#include "io/address.h"

namespace sluice::fleet {

enum class Role : std::uint8_t { Prefill, Decode };
std::string_view name_of(Role role);

// How the KV hand-over is said in HTTP; found out per prefill instance when --kv-connector is auto.
enum class DialectKind : std::uint8_t { Unknown, Mooncake, MooncakeSequential, Nixl };
inline constexpr std::size_t kDialectKinds = static_cast<std::size_t>(DialectKind::Nixl) + 1;
std::string_view name_of(DialectKind kind);

// Passive and active health. Closed: in use. Open: not used until `retry_at`. HalfOpen: one request
// may try.
enum class Breaker : std::uint8_t { Closed, Open, HalfOpen };

struct alignas(64) InstanceState {
    // -- load, exact: raised when a leg is sent, lowered when it has ended
    std::atomic<std::int32_t> in_flight{0};
    // -- how often its engine ids came into doubt: something broke that breaks when it dies, so it
    // may have been restarted since. See Instance::ids_sure().
    std::atomic<std::uint32_t> ids_doubts{0};
    std::atomic<std::int64_t> pending_bytes{0};  // prompt bytes of prefills in flight
    // -- health (health.h)
    std::atomic<std::uint32_t> consecutive_failures{0};
    std::atomic<Breaker> breaker{Breaker::Closed};
    std::atomic<bool> reachable{true};  // active probes; false takes it out of use
    // -- asks of the keeper
    std::atomic<bool> refresh_wanted{false};  // ask its bootstrap server again
    // -- health again
    std::atomic<std::int64_t> retry_at_ns{0};    // Open: when to try again
    std::atomic<std::uint32_t> openings{0};      // in a row, for the back-off
    std::atomic<std::uint32_t> probe_ticket{0};  // of the present probe; one up at each opening
    // -- counted
    std::atomic<std::uint64_t> requests{0};
    std::atomic<std::uint64_t> failures{0};
    std::atomic<std::uint64_t> rank_cursor{0};  // round robin over dp ranks

    // Returns how often it was doubted, this time included.
    std::uint32_t doubt_ids() {
        const auto doubts = ids_doubts.fetch_add(1, std::memory_order_acq_rel) + 1;
        refresh_wanted.store(true, std::memory_order_release);
        return doubts;
    }
};
static_assert(sizeof(InstanceState) == 64, "a leg touches one cache line of its instance");

struct RankWorker {
    std::uint32_t tp_rank = 0;
    std::uint32_t pp_rank = 0;
    io::Address address;  // its side channel; !valid(): not numeric

    friend bool operator==(const RankWorker&, const RankWorker&) = default;
};

struct DataParallelRank {
    std::uint32_t rank = 0;
    // Printable ASCII without quotes and backslashes (bootstrap.h): may be written as it is.
    std::string engine_id;
    std::vector<RankWorker> workers = {};  // sorted

    friend bool operator==(const DataParallelRank&, const DataParallelRank&) = default;
};

struct Instance {
    std::uint32_t index = 0;  // within its role
    Role role = Role::Prefill;
    std::string url;          // as configured: "http://10.0.0.1:8010", "unix:/run/p.sock"
    std::string host_header;  // "10.0.0.1:8010"; "localhost" of a unix socket
    io::Address address;      // !valid(): the name does not resolve
    DialectKind dialect = DialectKind::Unknown;
    std::string bootstrap_url;  // "http://10.0.0.1:8998", empty if none
    // Of a mooncake prefill, complete and sorted; empty: not known yet.
    std::vector<DataParallelRank> ranks;
    std::shared_ptr<InstanceState> state;
    // The number of doubts after which the bootstrap server named these ranks, and after which it
    // was asked in vain. Part of the snapshot, so that nobody takes ids of before for confirmed.
    std::uint32_t ids_confirmed = 0;
    std::uint32_t ids_asked_in_vain = 0;

    // Whether the ranks are those of its present life, as far as anybody can know.
    bool ids_sure() const {
        return ids_confirmed == state->ids_doubts.load(std::memory_order_acquire);
    }
    // Whether the bootstrap server was asked in vain after it was doubted that often.
    bool ids_without_answer(std::uint32_t doubts) const {
        return static_cast<std::int32_t>(ids_asked_in_vain - doubts) >= 0;
    }

    bool usable() const {
        return address.valid() && state->reachable.load(std::memory_order_relaxed);
    }
};

struct FleetSnapshot {
    std::vector<Instance> prefill;
    std::vector<Instance> decode;
    std::string models_json;  // the merged answer to /v1/models; empty while unknown

    const std::vector<Instance>& of(Role role) const {
        return role == Role::Prefill ? prefill : decode;
    }
};

using Fleet = Snapshot<FleetSnapshot>;

}  // namespace sluice::fleet
