// SPDX-License-Identifier: Apache-2.0
// The KV data plane: moves KV cache blocks from a prefill's memory into a decode's.
//
//   A prefill registers its KV tensors, publishes (transfer id, block ids) when a prompt is
//   computed, and gets its blocks back when every paired decode rank has them, when it releases
//   them, or after abort_timeout. A decode registers its own, and pulls (transfer id, where the
//   producer's workers are, its block ids). The pull ends once: landed; or failed, with a bitmap of
//   what landed; or aborted. When it has ended, no byte of it can land any more: the blocks are
//   free.
//
// Shapes. Ranks of either side hold a part of the heads (tensor parallel; sizes equal, or one
// divides the other) and of the layers (pipeline parallel; paired by layer name). Tokens a block,
// head size and element size must agree; HND and NHD may meet. When the two sides' block counts
// differ, the producer's last ones are taken.
// Threads. A Node owns a thread for its control connections and `sender_threads` pinned ones that
// copy. All functions may be called from any thread, also from the callbacks, which come on the
// node's thread and should be short. Registered memory stays the caller's and must outlive the
// node. Units: bytes; std::chrono. Errors are values: a Code and a sentence. Nothing throws but for
// lack of memory; nothing waits without a limit.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>

#include <sluice/kv_types.h>

namespace sluice::kv {

enum class LeaseEnding : std::uint8_t { Pulled, Released, Expired };

struct Options {
    Role role = Role::Both;
    std::string engine_id;           // told to peers; at most 256 bytes
    Rank rank;                       // of this worker
    std::uint32_t kv_heads = 0;      // of the whole model
    std::string token;               // the pool's secret, the same on all nodes; at most 32 bytes
    std::string host = "127.0.0.1";  // numeric; where it listens and how peers reach it
    std::uint16_t port = 0;          // of control connections; 0: one that the kernel picks
    std::vector<std::string> transports;  // "tcp", "shm", ...; empty: all that work
    unsigned sender_threads = 0;          // 0: 10, but never more than the cores
    std::vector<int> sender_cpus;         // pinned there; empty: the allowed ones in turn
    bool checksum = false;                // CRC32C of every frame
    std::chrono::milliseconds abort_timeout{480'000};  // VLLM_MOONCAKE_ABORT_REQUEST_TIMEOUT
    // A lease has ended: its blocks may be reused.
    std::function<void(const std::string& transfer, const BlocksByGroup& blocks, LeaseEnding end)>
        on_lease_ended;
    std::function<void(std::string_view line)> log;  // one line a transfer
};

// Where the workers of a producer are: their control addresses "10.0.0.2:41000" by tensor parallel
// and pipeline parallel rank, as its bootstrap server says.
struct Producer {
    std::string engine_id;  // empty: whoever answers there
    std::vector<std::vector<std::string>> workers;
};

enum class Urgency : std::uint8_t { Background, Normal, Urgent };

struct PullOptions {
    std::chrono::milliseconds deadline{540'000};
    Urgency urgency = Urgency::Normal;
};

struct PullResult {
    Status status;  // Ok: everything landed
    // By group: bit i % 64 of word i / 64 is set if the i-th of the blocks has landed.
    std::vector<std::vector<std::uint64_t>> landed;
    std::uint64_t bytes = 0;
    std::chrono::nanoseconds until_known{};  // until the producer had published
    std::chrono::nanoseconds took{};
    std::string transport;

    bool has_landed(std::size_t group, std::size_t i) const {
        return group < landed.size() && i / 64 < landed[group].size() &&
               (landed[group][i / 64] >> (i % 64) & 1) != 0;
    }
};

// A pull under way. Copies name the same one; it goes on when all are gone.
class PullHandle {
public:
    // Nothing if it has not ended by then.
    std::optional<PullResult> wait_for(std::chrono::milliseconds time) const;
    // Ends it, and returns when no byte of it can land any more.
    PullResult abort() const;

private:
    friend class Node;
    struct State;
    std::shared_ptr<State> state_;
};

inline constexpr std::uint32_t kAllLayers = UINT32_MAX;

class Node {
public:
    static Outcome<std::unique_ptr<Node>> create(const Options& options,
                                                 std::span<const Region> regions);
    ~Node();  // pulls end as Closed, fenced; leases end without a callback

    // "10.0.0.2:41000": what a bootstrap server is told (with tcp:// before it).
    const std::string& address() const;

    // -- a producer. Layers below `layers_end` are computed already; more_layers() says the rest.
    Status publish(const std::string& transfer, BlocksByGroup blocks,
                   std::uint32_t layers_end = kAllLayers);
    Status more_layers(const std::string& transfer, std::uint32_t layers_end);
    void release(const std::string& transfer);

    // -- a consumer. Without blocks: the producer is told that it may let go.
    Outcome<PullHandle> pull(const std::string& transfer, const Producer& producer,
                             BlocksByGroup blocks, const PullOptions& options = {});

    // Prometheus text.
    std::string metrics() const;
    // Which transport serves the pair of this node and the producer's at `address`, and why no
    // other.
    Outcome<std::string> explain(const std::string& address) const;

private:
    struct Impl;
    explicit Node(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

}  // namespace sluice::kv
