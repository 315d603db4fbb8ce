// SPDX-License-Identifier: Apache-2.0
// What the relay's workers share: who stands behind which address, the rings between the workers,
// and the counts that must be exact over all of them.
//
// The directory is made by worker 0 from the fleet and published as a snapshot. A prefill's rank in
// one life of it is an Incarnation, with an engine id of our own that is never used again, since a
// decode keeps what a bootstrap server said of an id for ever. Its workers are reached at
// listeners of ours, one for each (prefill, tp rank, pp rank), which outlive incarnations: what a
// message means is decided by its transfer ids.
// Threads: as each member says. Owns: all of it; outlives the relays.
#pragma once

#include <atomic>
#include <array>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/snapshot.h"
#include "base/spsc_ring.h"
#include "base/time.h"
#include "io/io.h"
#include "obs/metrics.h"

namespace sluice::relay {

struct RelayOptions {
    bool enabled = false;
    io::Address listen;       // of bootstrap and side channels; port 0: ephemeral ones
    std::string host;         // what decodes must use; empty: the host of `listen`
    std::uint32_t early = 8;  // pulls that a prefill worker may hold before it is known to be done
    Duration way_timeout = std::chrono::seconds(2);    // for the first pull of a decode
    Duration pull_timeout = std::chrono::seconds(30);  // ... of one that has pulled before
    Duration probe_again = std::chrono::seconds(60);   // of a decode that is driven directly
    std::function<void(std::string_view)> log;
};

struct PrefillWorker {
    std::uint32_t tp_rank = 0;
    std::uint32_t pp_rank = 0;
    io::Address address;         // its side channel
    std::uint32_t listener = 0;  // ours that stands for it
};

struct Incarnation {
    std::uint64_t number = 0;  // never used twice
    std::uint32_t prefill = 0;
    std::string engine_id;  // the prefill's own
    std::string relay_id;   // ours
    std::uint32_t tp_size = 1;
    std::uint32_t pp_size = 1;
    std::vector<PrefillWorker> workers;
};

struct RelayListener {
    std::uint32_t prefill = 0;
    std::uint32_t tp_rank = 0;
    std::uint32_t pp_rank = 0;
    io::Address address;
};

struct Directory {
    io::Address bootstrap;
    std::vector<RelayListener> listeners;   // only grows
    std::vector<Incarnation> incarnations;  // those of the present

    const Incarnation* find(std::uint64_t number) const;
    const Incarnation* find(std::uint32_t prefill, std::string_view engine_id) const;
    const Incarnation* find_relay_id(std::string_view relay_id) const;
};

// A transfer as its id names it: the worker that owns it, its slot there, and 128 random bits.
struct TransferName {
    std::uint32_t worker = 0;
    std::uint32_t slot = 0;
    std::uint32_t generation = 0;
    std::uint64_t secret[2] = {};
};
std::string write_transfer_id(const TransferName& name);
bool read_transfer_id(std::string_view text, TransferName& name);

// From worker to worker.
struct Note {
    enum class Kind : std::uint8_t {
        Ask,       // desk to owner: a pull of this transfer has come
        Withdraw,  // desk to owner: who pulled has gone
        Done,      // desk to owner: the prefill's worker has answered it
        Go,        // owner to desk: hand it on
        Fail,      // owner to desk: answer it
        Release,   // to whoever knows a layout: free the prefill's blocks
    };
    Kind kind = Kind::Ask;
    bool early = false;  // Go: before the prefill is known to be done; Done: it was
    bool good = false;   // Done
    std::uint8_t hops = 0;
    std::uint16_t item = 0;       // of the desk's pull
    std::uint16_t d_tp_rank = 0;  // Ask
    std::uint16_t d_tp_size = 1;  // Ask
    std::uint16_t p_worker = 0;   // Release: index in the incarnation
    std::uint32_t desk = 0;       // worker
    std::uint32_t pull_slot = 0;
    std::uint32_t pull_generation = 0;
    std::uint32_t listener = 0;     // Ask, Done
    std::uint64_t peer = 0;         // Ask: hash of who pulled; Release: D ranks served
    std::uint64_t incarnation = 0;  // Go, Release
    TransferName transfer;
};
static_assert(sizeof(Note) <= 96);

// What one worker counts.
struct RelayMetrics {
    obs::Counter transfers;     // opened
    obs::Counter pulls;         // messages of decodes
    obs::Counter handed_on;     // requests given to the prefill
    obs::Counter handed_early;  // ... before its answer
    obs::Counter completed;     // the prefill said ok
    obs::Counter failed;        // ... or not
    obs::Counter refused;       // answered by us: the prefill failed
    obs::Counter stale;         // answered by us: unknown, late or second
    obs::Counter released;      // prefills' blocks freed by an empty pull
    obs::Counter unreleased;    // ... could not be
    obs::Counter malformed;
    obs::Counter way_blocked;  // a decode found unable to reach us
    // as they are now
    obs::Counter open_transfers;
    obs::Counter open_pulls;
    obs::Counter dangling;  // given to a prefill that has failed since: they take a seat there
    obs::Counter connections;
};

class Board {
public:
    static constexpr std::size_t kPrefillsMax = 64;
    static constexpr std::size_t kDecodesMax = 64;
    static constexpr std::size_t kRing = 256;

    Board(const RelayOptions& options, std::size_t workers);

    const RelayOptions& options() const { return options_; }
    std::size_t workers() const { return rings_.size(); }
    Snapshot<Directory>& directory() { return directory_; }

    // -- the ring from one worker to another
    SpscRing<Note>& ring(std::size_t from, std::size_t to) { return *rings_[to][from]; }
    // Before the workers run.
    void set_io(std::size_t worker, io::Io& io, const RelayMetrics& metrics);
    void wake(std::size_t worker) {
        if (io_[worker] != nullptr) io_[worker]->wake();
    }
    const std::vector<const RelayMetrics*>& metrics() const { return metrics_; }

    // -- any thread
    // Pulls given early to a prefill and not answered.
    std::array<std::atomic<std::int32_t>, kPrefillsMax> early{};
    struct Way {
        std::atomic<bool> proven{false};             // it has pulled from us
        std::atomic<std::int64_t> blocked_until{0};  // ns; driven directly until then
    };
    std::array<Way, kDecodesMax> ways;

private:
    RelayOptions options_;
    Snapshot<Directory> directory_;
    std::vector<std::vector<std::unique_ptr<SpscRing<Note>>>> rings_;  // [to][from]
    std::vector<io::Io*> io_;
    std::vector<const RelayMetrics*> metrics_;
};

}  // namespace sluice::relay
