// SPDX-License-Identifier: Apache-2.0
// What a KvNode asks of a way to move blocks, and nothing else. One of these per transport and
// node.
//
// The receiver owns placement. It opens a *landing*: where the bytes of one transfer go in its own
// memory. That yields a ticket (slot and epoch), which the node hands to the sender in its own
// control message. The sender *posts* its side of the same batch against the ticket. Range i of
// both sides moves as many bytes, in the same order; no address leaves either side. A batch may be
// posted in parts (layer by layer): each post says which ranges of the landing it fills.
//
//   receiver: open -> ... -> one Completion (Landed, or why not) -> landed_units() -> release
//   sender:   post -> ... -> one Completion (Delivered, or why not); its memory is free then
//
// Fence. revoke() of a landing closes it: once it has answered true, or the landing's completion
// has come, no byte of it can land, whatever its peer, alive, stopped or dead, still sends. An
// answer of false means that a thread of ours is inside one copy right now, at most a slice long.
// revoke() of a post is the same for reading: the sender's memory is not read any more, or
// (receivers that copy by themselves: shm) what was read after it is never taken for landed.
// An epoch is never used twice by a node, so old bytes cannot enter a new landing in the same slot.
//
// Threads: one, the owner's; copying is done by Senders. Owns: its lanes and tables; the memory in
// registered regions stays the caller's. Costs: open and post O(ranges + blocks) copying, nothing
// allocated once tables have grown. Errors: values; LimitReached says that a table is full: try
// again when something has completed.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "base/result.h"
#include "base/slab.h"
#include "base/time.h"

namespace sluice::transport {

struct Capabilities {
    std::string_view name;
    bool fenced = false;           // revoke() holds against any peer
    bool token = false;            // nobody writes who has not shown the pool's token
    bool checksum = false;         // can carry CRC32C of every frame
    bool same_host_only = false;   // both ends on one machine
    bool needs_shared_fd = false;  // a sender's regions must be backed by a memfd (Region::fd)
    bool device_memory = false;
    bool foreign = false;          // others' wire: only where asked for by name
    double expected_gb_per_s = 0;  // decimal, one way, for explain(); 0 if nobody has measured it
};

enum class MemoryKind : std::uint8_t { Host, Device };

// Memory that blocks live in. Stays mapped until deregister_memory() has succeeded.
struct Region {
    std::byte* base = nullptr;
    std::uint64_t bytes = 0;
    MemoryKind kind = MemoryKind::Host;
    int fd = -1;                  // the memfd behind it, sealed against shrinking, or -1
    std::uint64_t fd_offset = 0;  // of `base` in it; a multiple of the page size
};
using RegionId = std::uint32_t;

// `count` pieces, this far apart.
struct Repeat {
    std::uint32_t count = 1;
    std::uint64_t stride = 0;
};

// One side of a strided move. For each block b of blocks[first_block, +block_count) of the batch,
// for each o below outer.count, for each i below inner.count: piece_bytes bytes at
//   region.base + offset + b * block_stride + o * outer.stride + i * inner.stride.
// Neighbours in memory are merged where they are; describing costs the same in any case.
struct Range {
    RegionId region = 0;
    std::uint32_t piece_bytes = 0;
    std::uint64_t offset = 0;
    std::uint64_t block_stride = 0;
    Repeat inner{};
    Repeat outer{};
    std::uint32_t first_block = 0;
    std::uint32_t block_count = 0;

    // May differ in shape between the two sides, never in size.
    std::uint32_t pieces() const { return inner.count * outer.count; }
    std::uint64_t block_bytes() const { return std::uint64_t{piece_bytes} * pieces(); }
    std::uint64_t bytes() const { return block_bytes() * block_count; }
};

// Copied by open() and post().
struct Batch {
    std::span<const Range> ranges;
    std::span<const std::uint32_t> blocks;  // ids that the ranges index
};

// Names a landing to the sender; the two numbers travel in the node's control message.
struct Ticket {
    std::uint32_t slot = UINT32_MAX;
    std::uint64_t epoch = 0;
    friend bool operator==(const Ticket&, const Ticket&) = default;
};
using PostId = Handle;
using PeerId = Handle;

// Higher first; within one, transfers take turns slice by slice. Low ones still get one turn in 16.
enum class Priority : std::uint8_t { Background, Normal, Urgent };

struct LandingOptions {
    Instant deadline = kNever;  // when passed: revoked, TimedOut
    std::uint64_t user = 0;     // comes back in the completion
};
struct PostOptions {
    std::uint32_t first_range = 0;  // of the landing; the post's range 0 fills it
    Priority priority = Priority::Normal;
    Instant deadline = kNever;
    std::uint64_t user = 0;
};

enum class Event : std::uint8_t { PeerUp, PeerDown, Landing, Post };

enum class Status : std::uint8_t {
    Landed,       // Landing: every byte is in its place
    Delivered,    // Post: the receiver has placed every byte and says so
    Revoked,      // our side gave up
    PeerRevoked,  // Post: the receiver has closed that landing, or never had it
    TimedOut,
    PeerLost,   // connection broke, or the peer was silent for too long
    Corrupt,    // a checksum did not match
    Refused,    // PeerDown: the hello: wrong token or version
    Violation,  // PeerDown: the peer's bytes are no protocol
};
std::string_view to_string(Status status);

struct alignas(64) Completion {
    Event event{};
    Status status{};
    Error error{Errc::Cancelled};  // PeerDown: what the kernel said, if it did
    std::uint64_t user = 0;
    PeerId peer;
    PostId post;                  // Event::Post
    Ticket ticket;                // Event::Landing
    std::uint64_t peer_node = 0;  // PeerUp, PeerDown: the peer process's number, new at each start
};
static_assert(sizeof(Completion) == 64);

// Where a peer listens: "10.0.0.2:7000", "[::1]:7000"; shm: the path of a unix socket.
using Endpoint = std::string;

struct TransportOptions {
    std::array<std::byte, 32> token{};  // the pool's; both ends have the same
    std::uint64_t node = 0;             // this process's number: random, not zero
    unsigned lanes_per_peer = 0;        // 0: one per sender thread
    bool checksum = false;              // CRC32C over each frame that we send
    std::uint32_t frame_bytes_max = 512 * 1024;
    Duration connect_timeout = std::chrono::seconds(2);
    Duration silence_max = std::chrono::seconds(1);  // then a peer counts as dead; 0: never.
    // Tests on loaded machines want it long.
};

struct TransportCounters {
    std::uint64_t bytes_sent = 0;
    std::uint64_t bytes_landed = 0;
    std::uint64_t bytes_dropped = 0;  // came for a landing that was closed
    std::uint64_t frames_sent = 0;
    std::uint64_t frames_landed = 0;
    std::uint64_t pieces_sent = 0;  // after merging
    std::uint64_t posts = 0;
    std::uint64_t landings = 0;
    std::uint64_t revoked = 0;
    std::uint64_t checksum_errors = 0;
    std::uint64_t tokens_refused = 0;
    std::uint64_t violations = 0;   // connections closed for bytes outside the protocol
    std::uint64_t stale_reads = 0;  // shm: copied, then found reused by its owner
    std::uint64_t connects = 0;
    std::uint64_t reconnects = 0;
    std::uint64_t peers_lost = 0;
};

class Transport {
public:
    virtual ~Transport() = default;

    virtual const Capabilities& capabilities() const = 0;

    // -- memory; before connecting, where a transport shares it with its peers (shm)
    virtual Result<RegionId> register_memory(const Region& region) = 0;
    // LimitReached while a landing or a post names it: revoke those first.
    virtual Result<void> deregister_memory(RegionId region) = 0;

    // -- peers; either end of a connection may post to the other
    // Answers the endpoint to tell others, with the port that the kernel chose.
    virtual Result<Endpoint> listen(const Endpoint& endpoint) = 0;
    // PeerUp or PeerDown follows; whoever is connected to gets a PeerUp of its own.
    virtual Result<PeerId> connect(const Endpoint& endpoint) = 0;
    // Everything with that peer ends as Revoked; no PeerDown follows.
    virtual void close(PeerId peer) = 0;

    // -- receiving
    virtual Result<Ticket> open(PeerId peer, const Batch& batch, const LandingOptions& options) = 0;
    // True: nothing lands any more, already now. The completion follows in both cases.
    virtual bool revoke(const Ticket& ticket) = 0;
    // What landed, for a landing whose completion has come and that was not released. A block has
    // ceil(block_bytes / kUnitBytesMax) units; units are counted range by range, block by block.
    virtual std::span<const std::uint64_t> landed_units(const Ticket& ticket) const = 0;
    // True for a block (the batch's i-th) whose every unit in every range has landed.
    virtual bool block_landed(const Ticket& ticket, std::uint32_t block_index) const = 0;
    virtual void release(const Ticket& ticket) = 0;

    // -- sending
    virtual Result<PostId> post(PeerId peer, const Ticket& ticket, const Batch& batch,
                                const PostOptions& options) = 0;
    virtual bool revoke(PostId post) = 0;

    // Completions, oldest first, and deadlines. Answers how many were written.
    virtual std::size_t poll(Instant now, std::span<Completion> out) = 0;
    // When poll() must run at the latest though nobody wakes the owner.
    virtual Instant next_deadline() const = 0;

    virtual TransportCounters counters() const = 0;
};

// -- limits, all of them tested
inline constexpr std::uint32_t kLandingsMax = 4096;  // open at a time
inline constexpr std::uint32_t kPostsMax = 4096;     // in flight at a time
inline constexpr std::uint32_t kPeersMax = 1024;
inline constexpr std::uint32_t kLanesPerPeerMax = 16;
inline constexpr std::uint32_t kRegionsMax = 1024;
inline constexpr std::uint32_t kRangesMax = 4096;      // of one batch
inline constexpr std::uint32_t kBlocksMax = 1u << 20;  // of one batch
inline constexpr std::uint64_t kUnitBytesMax = 256 * 1024;
inline constexpr std::uint64_t kUnitsMax = 1u << 28;  // of one batch: 32 MiB of bits
inline constexpr Duration kRevokeBound = std::chrono::milliseconds(50);

}  // namespace sluice::transport
