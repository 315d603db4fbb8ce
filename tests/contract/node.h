// SPDX-License-Identifier: Apache-2.0
// One end of a transport in a test or benchmark: its memory, threads, and the wait for completions.
#pragma once

#include <sys/mman.h>

#include <cstring>
#include <deque>
#include <memory>
#include <optional>
#include <vector>

#include "base/cpu.h"
#include "base/event_fd.h"
#include "transport/senders.h"
#include "transport/table.h"
#include "transport/transport.h"

namespace sluice::transport {

// A pool as an engine has it: a memfd, so that every transport can use it.
class Memory {
public:
    explicit Memory(std::size_t bytes);
    ~Memory();
    Memory(const Memory&) = delete;
    Memory& operator=(const Memory&) = delete;

    std::span<std::byte> bytes() const { return {base_, size_}; }
    std::byte* at(std::size_t offset) const { return base_ + offset; }
    Region region() const { return {base_, size_, MemoryKind::Host, fd_, 0}; }

private:
    int fd_ = -1;
    std::byte* base_ = nullptr;
    std::size_t size_ = 0;
};

std::array<std::byte, 32> token(unsigned char first);
// For peers that are alive however slow the machine: only tests about silence notice any.
inline TransportOptions patient() {
    return {.token = token(1),
            .connect_timeout = std::chrono::seconds(60),
            .silence_max = std::chrono::seconds(60)};
}

class Node {
public:
    Node(std::string_view transport, TransportOptions options, SenderOptions senders = {});
    ~Node();

    Transport& operator*() { return *transport_; }
    Transport* operator->() { return transport_.get(); }
    Senders& senders() { return *senders_; }

    // The next completion of that kind; others that come meanwhile are kept. Nothing: `limit`
    // passed.
    std::optional<Completion> wait(Event event, Duration limit = std::chrono::seconds(20));
    // Everything that has come, without waiting.
    void poll();
    std::deque<Completion>& completions() { return completions_; }

private:
    EventFd kick_;
    Waker waker_;
    std::unique_ptr<Senders> senders_;
    std::unique_ptr<Transport> transport_;
    std::deque<Completion> completions_;
};

// Where the n-th node of this process listens.
Endpoint listen_endpoint(std::string_view transport);

inline int port_of(const Endpoint& endpoint) {
    return std::stoi(endpoint.substr(endpoint.rfind(':') + 1));
}

struct Pair {
    // A connection from `consumer` to `producer`, both ends up.
    bool connect(Node& consumer, Node& producer);
    Endpoint endpoint;
    PeerId at_consumer, at_producer;
};

}  // namespace sluice::transport
