// SPDX-License-Identifier: Apache-2.0
// What a worker asks of the operating system, and nothing else: sockets, operations on them, time,
// wake-ups.
//
// There are two of these: io/uring (the product) and io/sim (deterministic, seeded, with faults).
// Everything above is written once and runs on both.
//
// An operation is started with a target and ends with exactly one completion whose `more` is false,
// delivered from within turn(). It owns its buffers until then: what the caller does meanwhile
// cannot move or free bytes that the kernel is using. Cancelling is a request, not an end: the
// completion still comes. A socket is closed only when nothing is in flight on it (stream.h does:
// cancel, drain, close).
//
// Threads: the thread that made it, except wake(). Costs: one virtual call an operation; a send is
// ~4 us. Errors: completions carry -errno.
#pragma once

#include <cstdint>

#include "base/result.h"
#include "base/slab.h"
#include "base/time.h"
#include "io/address.h"
#include "mem/buffer.h"
#include "mem/slice_queue.h"

namespace sluice::io {

using Socket = std::int32_t;
inline constexpr Socket kNoSocket = -1;

enum class OpKind : std::uint8_t { Accept, Connect, Receive, Send };

struct Completion {
    OpKind kind{};
    bool more = false;        // Accept: further completions of this operation follow
    std::int32_t result = 0;  // bytes, a new Socket, 0, or -errno
    Slice bytes;              // Receive: what arrived; empty at the end of the stream
};

class OpTarget {
public:
    virtual void on_completion(Completion& completion) = 0;

protected:
    ~OpTarget() = default;
};

// Names an operation in flight; harmless when it has ended.
using OpId = Handle;

struct IoCounters {
    std::uint64_t turns = 0;
    std::uint64_t enters = 0;  // system calls of the loop
    std::uint64_t accepts = 0;
    std::uint64_t connects = 0;
    std::uint64_t receives = 0;
    std::uint64_t sends = 0;
    std::uint64_t short_sends = 0;
    std::uint64_t bytes_in = 0;
    std::uint64_t bytes_out = 0;
    std::uint64_t no_buffers = 0;  // ENOBUFS: a receive waited for a page
    std::uint64_t stale = 0;       // completions whose operation had gone
    std::uint64_t overflows = 0;   // completion queue overflows
};

class Io {
public:
    virtual ~Io() = default;

    virtual BufferPool& buffers() = 0;
    virtual const IoCounters& counters() const = 0;

    // The time at the start of this turn.
    virtual Instant now() const = 0;
    virtual std::uint32_t operations_in_flight() const = 0;

    // -- at once
    // `shared_port`: other workers listen on the same address and the kernel spreads connections.
    virtual Result<Socket> listen(const Address& address, bool shared_port) = 0;
    virtual Result<Address> local_address(Socket socket) = 0;
    // A socket that can connect to `peer`.
    virtual Result<Socket> open(const Address& peer) = 0;
    // Ends our direction of the stream; the peer reads the end after what was sent.
    virtual void shutdown_send(Socket socket) = 0;
    // Requires: nothing in flight on it. With `reset`, the peer sees a broken connection, not an
    // end.
    virtual void close(Socket socket, bool reset) = 0;
    // Bytes of ours that the peer's kernel has acknowledged, since the connection began. UINT64_MAX
    // if unknown.
    virtual std::uint64_t acknowledged_bytes(Socket socket) = 0;

    // -- operations
    virtual OpId accept(Socket listener, OpTarget& target) = 0;
    virtual OpId connect(Socket socket, const Address& peer, OpTarget& target) = 0;
    // Receives into a page taken when bytes arrive, so that an idle connection holds none.
    virtual OpId receive(Socket socket, OpTarget& target) = 0;
    // Receives at most `size` bytes into `buffer` at `offset`.
    virtual OpId receive_into(Socket socket, BufferRef buffer, std::uint32_t offset,
                              std::uint32_t size, OpTarget& target) = 0;
    // Sends the first slices of `queue` (up to kSendSlicesMax) in one vectored send. The queue is
    // not changed: on completion the caller pops `result` bytes.
    virtual OpId send(Socket socket, const SliceQueue& queue, OpTarget& target) = 0;
    virtual void cancel(OpId operation) = 0;

    // Submits what was started, waits up to `max_wait` for completions or a wake-up, delivers them.
    virtual void turn(Duration max_wait) = 0;

    // From any thread: makes the current or next turn() return.
    virtual void wake() = 0;
};

}  // namespace sluice::io
