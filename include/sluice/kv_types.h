// SPDX-License-Identifier: Apache-2.0
// The values of the KV data plane's API: where KV blocks lie, who a node is, and what can go wrong.
//
// Units: bytes unless a name says otherwise; times are std::chrono. Block ids are the engine's:
// block b of a region starts at base + b * block_stride. Threads: values, any thread.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <expected>
#include <string>
#include <vector>

namespace sluice::kv {

using BlockId = std::uint32_t;
// The blocks of one request, in the order of its tokens, for each KV cache group of the model. Most
// models have one group; those that mix attention kinds have several, each with its own block
// table.
using BlocksByGroup = std::vector<std::vector<BlockId>>;

enum class MemoryKind : std::uint8_t { Host, Device };
// What a region holds of its layer. KeyValue: both, side by side for each token and head.
enum class Part : std::uint8_t { Key, Value, KeyValue };
// The order inside a block. Hnd: head, token, element. Nhd: token, head, element.
enum class Layout : std::uint8_t { Hnd, Nhd };

// One registered KV tensor: a layer's keys, values, or both, cut in blocks.
struct Region {
    MemoryKind memory = MemoryKind::Host;
    Part part = Part::KeyValue;
    Layout layout = Layout::Hnd;
    void* base = nullptr;           // of block 0; its first byte
    std::uint64_t bytes = 0;        // from base to the end of the last block's stride
    std::uint32_t block_bytes = 0;  // tokens x heads x head_size x element_bytes (x 2 for KeyValue)
    std::uint32_t block_stride = 0;  // from one block to the next; 0: block_bytes
    std::uint32_t layer = 0;         // its index in the model; a prefill publishes in this order
    std::string layer_name;          // what pairs a producer's layers with a consumer's
    std::uint32_t group = 0;         // KV cache group
    std::uint32_t kv_heads = 0;      // held by this rank
    std::uint32_t head_size = 0;     // elements
    std::uint32_t element_bytes = 0;
    // Host memory that other processes of this host can map (a memfd), for the shared memory
    // transport; -1: private memory, which other transports move.
    int memory_fd = -1;
    std::uint64_t memory_fd_offset = 0;
};

enum class Role : std::uint8_t { Producer, Consumer, Both };

// Which part of its instance a node is.
struct Rank {
    std::uint32_t tp_rank = 0, tp_size = 1;  // tensor parallel: heads are divided, or replicated
    std::uint32_t pp_rank = 0, pp_size = 1;  // pipeline parallel: layers are divided
    std::uint32_t dp_rank = 0;

    friend bool operator==(const Rank&, const Rank&) = default;
};

enum class Code : std::uint16_t {
    Ok,
    BadRegion,        // a region that contradicts itself or its neighbours
    BadOptions,       // an option outside its range
    BadRole,          // publish on a consumer, pull on a producer
    BadBlocks,        // a block id outside its region, twice in a list, or of a live transfer
    TooFewBlocks,     // the consumer wants more blocks than were published
    VersionMismatch,  // the peer speaks another version of the protocol
    ShapeMismatch,    // the peer's model or parallel layout does not fit
    WrongToken,       // the peer does not know the pool's token
    AlreadyLive,      // the transfer id is published or pulled already
    NotPublished,     // the producer's wait for a publish ended
    LimitReached,     // a named limit; the sentence says which
    Timeout,          // the deadline passed
    PeerLost,         // the connection broke, or the peer stopped answering
    PeerRestarted,    // another life of the peer answers at its address
    PeerFailed,       // the peer says that it cannot go on
    Aborted,          // abort() was called, here or at the peer
    Expired,          // the lease ended first
    Closed,           // the node is shutting down
    System,           // a call to the operating system failed
};

const char* name_of(Code code);  // e.g. "ShapeMismatch"

// How something ended: a code, and a sentence for people that says what to do about it.
struct Status {
    Code code = Code::Ok;
    std::string sentence;

    bool ok() const { return code == Code::Ok; }
};

template <class T>
using Outcome = std::expected<T, Status>;

inline std::unexpected<Status> refuse(Code code, std::string sentence) {
    return std::unexpected(Status{code, std::move(sentence)});
}

}  // namespace sluice::kv
