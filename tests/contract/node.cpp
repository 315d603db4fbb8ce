// SPDX-License-Identifier: Apache-2.0
#include "contract/node.h"

#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <string>

#include "base/assert.h"

namespace sluice::transport {

Memory::Memory(std::size_t bytes) : size_(bytes) {
    fd_ = memfd_create("kv-pool", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    ASSERT(fd_ >= 0);
    ASSERT(ftruncate(fd_, static_cast<off_t>(bytes)) == 0);
    ASSERT(fcntl(fd_, F_ADD_SEALS, F_SEAL_SHRINK) == 0);
    void* mapped = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd_, 0);
    ASSERT(mapped != MAP_FAILED);
    base_ = static_cast<std::byte*>(mapped);
}

Memory::~Memory() {
    munmap(base_, size_);
    ::close(fd_);
}

std::array<std::byte, 32> token(unsigned char first) {
    std::array<std::byte, 32> result{};
    for (std::size_t i = 0; i < result.size(); ++i) result[i] = std::byte(first + i);
    return result;
}

Node::Node(std::string_view transport, TransportOptions options, SenderOptions senders)
    : kick_(*EventFd::create()), waker_(Delegate<void()>::to<&EventFd::set>(kick_)) {
    if (options.node == 0) options.node = random_seed() | 1;
    auto started = Senders::start(senders, waker_);
    ASSERT(started);
    senders_ = std::move(*started);
    const TransportKind* kind = find_transport(transport);
    ASSERT(kind != nullptr);
    transport_ = kind->make(*senders_, options);
}

Node::~Node() = default;

void Node::poll() {
    std::array<Completion, 32> out;
    while (const std::size_t count = transport_->poll(MonotonicClock::now(), out))
        completions_.insert(completions_.end(), out.begin(), out.begin() + count);
}

std::optional<Completion> Node::wait(Event event, Duration limit) {
    const Instant end = MonotonicClock::now() + limit;
    for (;;) {
        poll();
        for (auto it = completions_.begin(); it != completions_.end(); ++it) {
            if (it->event != event) continue;
            const Completion found = *it;
            completions_.erase(it);
            return found;
        }
        const Instant now = MonotonicClock::now();
        if (now >= end) return std::nullopt;
        waker_.prepare_to_sleep();
        if (senders_->idle())
            kick_.wait(std::min(end, std::max(now, transport_->next_deadline())) - now);
        waker_.awake();
    }
}

Endpoint listen_endpoint(std::string_view transport) {
    static std::atomic<unsigned> next{0};
    if (transport == "shm")
        return "/tmp/sluice-test-" + std::to_string(getpid()) + "-" +
               std::to_string(next.fetch_add(1)) + ".sock";
    return "127.0.0.1:0";
}

bool Pair::connect(Node& consumer, Node& producer) {
    if (endpoint.empty()) {
        const auto listening = producer->listen(listen_endpoint(producer->capabilities().name));
        if (!listening) return false;
        endpoint = *listening;
    }
    const auto id = consumer->connect(endpoint);
    if (!id) return false;
    at_consumer = *id;
    // Accepting needs the producer's owner too, and who is connected back to the consumer's: each
    // polls until both are up, whichever is first.
    bool there = false, here = false;
    for (const Instant end = MonotonicClock::now() + std::chrono::seconds(20);
         MonotonicClock::now() < end;) {
        if (!there) {
            const auto up = producer.wait(Event::PeerUp, std::chrono::milliseconds(1));
            there = up.has_value();
            if (there) at_producer = up->peer;
        } else {
            producer.poll();
        }
        if (!here) here = consumer.wait(Event::PeerUp, std::chrono::milliseconds(1)).has_value();
        if (there && here) return true;
    }
    return false;
}

}  // namespace sluice::transport
