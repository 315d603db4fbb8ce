// SPDX-License-Identifier: Apache-2.0
// The listening side of the side channel: any number of listeners and their ZMTP connections.
//
// A connection is named by a handle, which takes the place of ZeroMQ's identity frame and goes
// stale when the connection has gone. Bounds: connections, the bytes of a message, bytes received
// by all connections together of messages not yet complete, and the time a connection may be silent
// while nothing of it is pending (hold() says that something is). At the connection limit accepting
// pauses. Threads: one. Owns: listeners and connections.
#pragma once

#include <memory>
#include <vector>

#include "base/slab.h"
#include "mooncake/peer.h"

namespace sluice::mooncake {

struct RouterOptions {
    std::uint32_t connections_max = 16384;
    std::size_t message_max = kMessageBytesMax;
    std::size_t pending_bytes_max = 256 << 20;
    Duration idle_timeout = kForever;  // of a connection without hold()
};

struct RouterCounters {
    std::uint64_t accepted = 0;
    std::uint64_t messages = 0;
    std::uint64_t refused = 0;  // at a bound
};

class RouterEvents {
public:
    // `listener`: the tag it was added with. The bytes are valid during the call.
    virtual void on_message(Handle peer, std::uint32_t listener, std::string_view message) = 0;
    virtual void on_gone(Handle) {}

protected:
    ~RouterEvents() = default;
};

class Router final {
public:
    Router(io::Loop& loop, RouterEvents& events, const RouterOptions& options = {});
    ~Router();

    // A listening socket, owned from now on.
    void add_listener(io::Socket socket, std::uint32_t tag = 0);
    // Without effect if it has gone.
    void send(Handle peer, std::string_view message);
    // Something of it is pending, once more or once less.
    void hold(Handle peer, bool more);
    void close(Handle peer);

    void shut_down();
    bool finished() const { return listeners_.empty() && connections_.size() == 0; }
    std::size_t connections() const { return connections_.size(); }
    const RouterCounters& counters() const { return counters_; }

private:
    class Listener;
    struct Connection final : PeerEvents {
        Connection(Router& of, std::uint32_t its_listener);
        void on_peer_message(Peer&, std::string_view message) override;
        void on_peer_gone(Peer&) override { router.gone(*this); }
        void on_peer_closed(Peer&) override { router.closed(*this); }
        void on_peer_bytes(Peer&, std::size_t buffered) override;
        void on_idle() { router.idle(*this); }

        Router& router;
        std::uint32_t listener;
        std::uint32_t held = 0;
        std::size_t buffered = 0;
        Timer idle;
        Peer peer;
    };

    void accepted(io::Socket socket, std::uint32_t tag);
    void gone(Connection& connection);
    void closed(Connection& connection);
    void idle(Connection& connection);
    void pause();
    void resume();
    void listener_closed(Listener& listener);

    io::Loop& loop_;
    RouterEvents& events_;
    RouterOptions options_;
    RouterCounters counters_;
    Slab<Connection> connections_;
    std::vector<std::unique_ptr<Listener>> listeners_;
    Timer resume_;
    std::size_t pending_bytes_ = 0;
    bool paused_ = false;
    bool stopped_ = false;
};

}  // namespace sluice::mooncake
