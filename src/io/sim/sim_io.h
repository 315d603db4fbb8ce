// SPDX-License-Identifier: Apache-2.0
// The second implementation of Io: one simulated thread's sockets and operations.
//
// It keeps to the ring's order of things. What is started or cancelled goes to the kernel at the
// next turn(); an operation ends there at once if it can, else when the network lets it; its
// completion is delivered by a turn(), perhaps a later one, perhaps after others that ended later.
// A cancel that comes too late changes nothing. An operation holds its buffers until its completion
// has been delivered. What io.h forbids is asserted: a second receive or send in flight on a
// socket, closing a socket with something in flight, changing bytes that are being sent, using a
// socket after its close.
//
// Threads: one, except wake(). Owns: its BufferPool, sockets and operations. Made by
// SimWorld::add_host().
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "io/io.h"
#include "io/sim/faults.h"
#include "io/sim/network.h"
#include "io/sim/timeline.h"
#include "io/sim/trace.h"

namespace sluice::io::sim {

class SimIo final : public Io, private SocketOwner {
public:
    SimIo(int host, Timeline& timeline, Network& network, Rng& rng, Trace& trace,
          const Faults& faults, std::size_t pool_bytes);
    ~SimIo() override;
    SimIo(const SimIo&) = delete;
    SimIo& operator=(const SimIo&) = delete;

    // -- Io
    BufferPool& buffers() override { return pool_; }
    const IoCounters& counters() const override { return counters_; }
    // The clock stands still during a turn.
    Instant now() const override { return timeline_.now(); }
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
    void wake() override { woken_.store(true, std::memory_order_relaxed); }

    // -- for the world
    int host() const override { return host_; }
    bool woken() const { return woken_.load(std::memory_order_relaxed); }
    // Something waits for a turn of this host. Completions that are late have their own time.
    bool due() const { return !submissions_.empty() || woken() || next_completion() <= now(); }
    Instant next_completion() const;
    void set_faults(const Faults& faults) { faults_ = &faults; }
    // 0: no limit. At the limit accept and open give -EMFILE.
    void set_sockets_max(std::size_t sockets) { sockets_max_ = sockets; }
    std::size_t sockets_open() const { return sockets_open_; }
    enum class Death : std::uint8_t { Crash, Reset, PowerCut };
    // Takes every socket off the network, at once; the program's objects still see theirs, as
    // broken ones.
    void sever(Death death);
    // What should not be there when everything has been closed and destroyed; empty if nothing.
    std::string leftovers() const;

private:
    enum class SocketState : std::uint8_t { Free, Fresh, Connecting, Connected, Listening };

    struct SocketEntry {
        SocketState state = SocketState::Free;
        std::shared_ptr<Endpoint> endpoint;
        std::shared_ptr<Listener> listener;
        OpId receive;
        OpId send;
        OpId other;  // accept or connect
        bool busy() const { return receive.valid() || send.valid() || other.valid(); }
    };

    struct Operation {
        OpKind kind{};
        OpTarget* target = nullptr;
        Socket socket = kNoSocket;
        bool submitted = false;
        bool ended = false;  // the last completion is on its way
        Instant last_due{};  // of its completions: they keep their order
        Address peer;
        BufferRef buffer;  // receive_into's
        std::uint32_t offset = 0;
        std::uint32_t size = 0;
        bool retrying = false;      // waits for a page
        std::vector<Slice> slices;  // being sent
        std::size_t total = 0;
        std::size_t limit = 0;  // of a send that will be short
        std::size_t sent = 0;
        std::uint64_t checksum = 0;
    };

    struct Submission {
        OpId operation;
        bool cancel = false;
    };

    struct Ready {
        OpId operation;
        Instant due;
        Completion completion;
    };

    // -- SocketOwner
    void on_acceptable(Socket listener) override;
    void on_connect_ended(Socket socket, int error) override;
    void on_readable(Socket socket) override;
    void on_writable(Socket socket) override;

    SocketEntry& entry(Socket socket);
    Result<Socket> take_socket();
    bool out_of_sockets() const { return sockets_max_ != 0 && sockets_open_ >= sockets_max_; }
    bool chance(double probability) { return probability > 0 && rng_.chance(probability); }
    Duration random_up_to(Duration most);

    OpId start(OpKind kind, Socket socket, OpTarget& target, OpId SocketEntry::*place);
    void submit(Submission submission);
    void progress(Operation& operation);
    void progress_accept(Operation& operation);
    void progress_receive(Operation& operation);
    void progress_send(Operation& operation);
    void begin_connect(Operation& operation);
    void apply_cancel(OpId id);
    void wait_for_page(Operation& operation);
    void post(Operation& operation, Completion completion);
    void end(Operation& operation, std::int32_t result, Slice bytes = {});
    void deliver(Ready& ready);
    void count(const Operation& operation, const Completion& completion);
    static std::uint64_t checksum_of(const Operation& operation);

    const int host_;
    Timeline& timeline_;
    Network& network_;
    Rng& rng_;
    Trace& trace_;
    const Faults* faults_;
    BufferPool pool_;  // before whatever holds its buffers
    IoCounters counters_;
    std::atomic<bool> woken_{false};
    std::vector<SocketEntry> sockets_;
    std::size_t sockets_open_ = 0;
    std::size_t sockets_max_ = 0;
    Slab<Operation> operations_{limits::kOperationsMax};
    std::vector<Submission> submissions_;
    std::vector<Ready> ready_;
};

}  // namespace sluice::io::sim
