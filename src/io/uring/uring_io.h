// SPDX-License-Identifier: Apache-2.0
// The product's Io: one io_uring per worker.
//
// A turn is one system call: it submits what was started, waits, and collects completions. Receives
// take pages from a ring of provided buffers, so an idle connection holds no memory; a page handed
// to the user is replaced at once. Sends are vectored with MSG_WAITALL, so the kernel, not we,
// continues a short one. user_data is slot + generation of the operation; what no longer matches is
// counted as stale and dropped.
//
// Threads: may be made on any thread; belongs to the thread of its first turn(). wake() from any.
// Owns: the ring, the pages, the operations. Costs: see shared limits (base/limits.h).
#pragma once

#include <atomic>
#include <memory>
#include <vector>

#include "base/limits.h"
#include "io/io.h"
#include "io/uring/capabilities.h"
#include "io/uring/operation.h"

struct io_uring;
struct io_uring_cqe;
struct io_uring_sqe;
struct io_uring_buf_ring;

namespace sluice::io {

struct UringOptions {
    UringCapabilities capabilities;
    std::size_t buffer_bytes_max = 1UL << 30;
};

class UringIo final : public Io {
public:
    static Result<std::unique_ptr<UringIo>> create(const UringOptions& options);
    ~UringIo() override;

    BufferPool& buffers() override { return buffers_; }
    const IoCounters& counters() const override { return counters_; }
    Instant now() const override { return now_; }
    std::uint32_t operations_in_flight() const override { return operations_.size(); }

    Result<Socket> listen(const Address& address, bool shared_port) override;
    Result<Address> local_address(Socket socket) override;
    Result<Socket> open(const Address& peer) override;
    void shutdown_send(Socket socket) override;
    void close(Socket socket, bool reset) override;
    std::uint64_t acknowledged_bytes(Socket socket) override;

    OpId accept(Socket listener, OpTarget& target) override;
    OpId connect(Socket socket, const Address& peer, OpTarget& target) override;
    OpId receive(Socket socket, OpTarget& target) override;
    OpId receive_into(Socket socket, BufferRef buffer, std::uint32_t offset, std::uint32_t size,
                      OpTarget& target) override;
    OpId send(Socket socket, const SliceQueue& queue, OpTarget& target) override;
    void cancel(OpId operation) override;
    void turn(Duration max_wait) override;
    void wake() override;

private:
    explicit UringIo(std::size_t buffer_bytes_max);
    Result<void> set_up(const UringCapabilities& capabilities);

    io_uring_sqe* next_sqe();
    Operation& start(OpKind kind, Socket socket, OpTarget& target);
    OpId id_of(const Operation& operation) const { return operations_.handle_of(operation); }
    void submit_receive(Operation& operation);
    void arm_wake();
    void enter(Duration max_wait);
    void deliver(const io_uring_cqe& cqe);
    void take_received_page(Operation& operation, const io_uring_cqe& cqe, Completion& completion);
    void refill_pages();
    bool retry_starved();
    std::unique_ptr<SendState> take_send_state();

    BufferPool buffers_;
    IoCounters counters_;
    Instant now_;
    std::unique_ptr<io_uring> ring_;
    bool ring_made_ = false;
    bool enabled_ = false;

    Slab<Operation> operations_;
    std::vector<std::unique_ptr<SendState>> spare_send_states_;
    std::vector<OpId> starved_;  // receives that found no page

    io_uring_buf_ring* page_ring_ = nullptr;
    std::vector<BufferRef> pages_;        // by buffer id; empty while the pool is exhausted
    std::vector<std::uint16_t> missing_;  // buffer ids without a page

    int wake_fd_ = -1;
    std::uint64_t wake_value_ = 0;
    std::atomic<bool> wake_pending_{false};
};

}  // namespace sluice::io
