// SPDX-License-Identifier: Apache-2.0
// One control connection between two nodes: hellos, messages, and whether the other side is alive.
//
// Who connects says Hello first, the other side only to one that it found good: version, token,
// shape. Nothing else is taken before. Both ping four times a second, and a peer that has said
// nothing for a second is lost: a stopped process is noticed as a dead one is. Threads: one. Owns:
// the stream. Costs: a ping is one small send. Errors: the link ends once with a Status; what the
// peer sent wrongly it is told in a Refusal.
#pragma once

#include <memory>

#include "io/stream.h"
#include "kv/message.h"

namespace sluice::node {

class Link;

class LinkEvents {
public:
    // What to say first, and whether the peer's own is good enough.
    virtual const kv::Hello& own_hello() const = 0;
    virtual kv::Status judge(Link& link, const kv::Hello& peer) = 0;
    virtual void on_link_up(Link& link) = 0;
    virtual void on_link_message(Link& link, kv::Message& message) = 0;
    // Once, also for a link that never came up. It may be sent to no more.
    virtual void on_link_lost(Link& link, const kv::Status& status) = 0;
    // Now, and only now, it may be destroyed.
    virtual void on_link_closed(Link& link) = 0;

protected:
    ~LinkEvents() = default;
};

struct LinkOptions {
    Duration heartbeat = kv::limits::kHeartbeat;
    Duration silence_max = kv::limits::kSilenceMax;
    Duration hello_timeout = kv::limits::kHelloTimeout;
};

class Link final : private io::StreamEvents {
public:
    Link(io::Loop& loop, LinkEvents& events, const LinkOptions& options);

    void open(io::Socket accepted);
    void connect(const io::Address& peer);

    bool up() const { return state_ == State::Up; }
    bool lost() const { return state_ == State::Lost; }
    const kv::Hello& peer() const { return peer_; }
    const io::Address& address() const { return address_; }
    std::uint64_t number = 0;  // the owner's name for it

    // False: too much is waiting to be sent, or the link is lost. A peer that does not read is
    // lost.
    bool send(const kv::Message& message);
    // Tells the peer why, and ends the link.
    void refuse(const kv::Status& status);
    void close(const kv::Status& status);

private:
    enum class State : std::uint8_t { Opening, Greeting, Up, Lost };

    void on_connected() override;
    void on_bytes(Slice bytes) override;
    void on_end() override;
    void on_broken(Error error) override;
    void on_closed() override { events_.on_link_closed(*this); }
    void greet();
    void take(std::string_view bytes);
    void on_hello(kv::Hello& hello);
    void on_tick();
    void lose(const kv::Status& status, bool after_sending = false);
    void lose_later(kv::Status status);
    void push(std::string bytes);

    io::Loop& loop_;
    LinkEvents& events_;
    LinkOptions options_;
    io::Stream stream_;
    kv::MessageReader reader_;
    State state_ = State::Opening;
    io::Address address_;
    kv::Hello peer_;
    std::optional<kv::Status> later_;
    Timer tick_;
    Instant heard_{};
    Instant began_{};
};

}  // namespace sluice::node
