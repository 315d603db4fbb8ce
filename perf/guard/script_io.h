// SPDX-License-Identifier: Apache-2.0
// An Io without a kernel: the proxy's clients and instances are scripts inside it.
//
// A client sends a request, waits for the whole answer, and sends the next; a prefill answers in
// the turn after its request came, a decode in the turn after that, streams one event a turn.
// Nothing is drawn, nothing fails, time is counted in turns: the proxy executes the same
// instructions every time. Under callgrind everything in here is left out of the count (Uncounted),
// so what remains is the proxy's own user space: loop, streams, HTTP, JSON, exchange.
#pragma once

#include <valgrind/callgrind.h>

#include <deque>
#include <map>
#include <string>
#include <vector>

#include "io/io.h"

namespace sluice::guard {

// Off: everything is counted, the scripts too, for a profile by function.
inline bool leave_scripts_out = true;

// Counting is on inside the loop's turn and off inside of the scripts.
class Uncounted {
public:
    Uncounted() { toggle(); }
    ~Uncounted() { toggle(); }
    Uncounted(const Uncounted&) = delete;
    Uncounted& operator=(const Uncounted&) = delete;

private:
    static void toggle() {
        if (leave_scripts_out) CALLGRIND_TOGGLE_COLLECT;
    }
};
using Counted = Uncounted;  // the other way round

struct Script {
    std::string request;                     // what a client sends
    std::string prefill_answer;              // whole
    std::vector<std::string> decode_answer;  // one piece a turn
};

class ScriptIo final : public io::Io {
public:
    static constexpr std::uint16_t kPrefillPort = 8100;
    static constexpr std::uint16_t kDecodePort = 8200;

    ScriptIo() : pool_(std::size_t{256} << 20) {}

    // -- the driver's; outside of a turn
    // `clients` connections that send `requests` in all.
    void begin(const Script& script, int clients, std::uint64_t requests);
    bool finished() const { return answered_ == wanted_; }
    std::uint64_t bad_answers() const { return bad_; }

    // -- io::Io
    BufferPool& buffers() override { return pool_; }
    const io::IoCounters& counters() const override { return counters_; }
    Instant now() const override { return now_; }
    std::uint32_t operations_in_flight() const override {
        return static_cast<std::uint32_t>(operations_.size());
    }
    Result<io::Socket> listen(const io::Address&, bool) override { return kListener; }
    Result<io::Address> local_address(io::Socket) override {
        return *io::Address::from_ip("10.0.0.1", 80);
    }
    Result<io::Socket> open(const io::Address& peer) override;
    void shutdown_send(io::Socket) override {}
    void close(io::Socket socket, bool reset) override;
    std::uint64_t acknowledged_bytes(io::Socket) override { return UINT64_MAX; }
    io::OpId accept(io::Socket listener, io::OpTarget& target) override;
    io::OpId connect(io::Socket socket, const io::Address& peer, io::OpTarget& target) override;
    io::OpId receive(io::Socket socket, io::OpTarget& target) override;
    io::OpId receive_into(io::Socket socket, BufferRef buffer, std::uint32_t offset,
                          std::uint32_t size, io::OpTarget& target) override;
    io::OpId send(io::Socket socket, const SliceQueue& queue, io::OpTarget& target) override;
    void cancel(io::OpId operation) override;
    void turn(Duration max_wait) override;
    void wake() override {}

private:
    static constexpr io::Socket kListener = 1;
    enum class Role { Client, Prefill, Decode };

    struct Peer {
        Role role = Role::Client;
        std::string heard;             // of the message being sent to it
        std::deque<std::string> says;  // one a turn
        int silent_turns = 0;          // before it says more
    };
    struct Operation {
        io::OpKind kind{};
        io::Socket socket = io::kNoSocket;
        io::OpTarget* target = nullptr;
        std::int32_t result = 0;
        bool done = false;
        BufferRef buffer;
        std::uint32_t offset = 0;
        std::uint32_t size = 0;
        SliceQueue sending;  // keeps its buffers
    };

    io::OpId start(io::OpKind kind, io::Socket socket, io::OpTarget& target);
    void hear(Peer& peer, const std::string& bytes);
    bool fill(Operation& operation, io::Completion& completion);
    void deliver(std::uint32_t index);
    void ask(Peer& client);

    BufferPool pool_;
    io::IoCounters counters_;
    Instant now_{std::chrono::seconds(1)};
    Script script_;
    std::uint64_t wanted_ = 0;
    std::uint64_t asked_ = 0;
    std::uint64_t answered_ = 0;
    std::uint64_t bad_ = 0;
    int clients_to_come_ = 0;
    io::Socket next_socket_ = 10;
    std::uint32_t next_operation_ = 1;
    std::map<io::Socket, Peer> peers_;
    std::map<std::uint32_t, Operation> operations_;
};

}  // namespace sluice::guard
