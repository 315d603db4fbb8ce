// SPDX-License-Identifier: Apache-2.0
#include "mooncake/router.h"

#include <algorithm>
#include <cerrno>

namespace sluice::mooncake {

class Router::Listener final : private io::OpTarget {
public:
    Listener(Router& router, io::Socket socket, std::uint32_t tag)
        : router_(router), socket_(socket), tag_(tag) {}

    void arm() {
        if (!accept_.valid() && !closing_) accept_ = router_.loop_.io().accept(socket_, *this);
    }
    void pause() {
        if (accept_.valid()) router_.loop_.io().cancel(accept_);
    }
    void close() {
        closing_ = true;
        if (accept_.valid()) return router_.loop_.io().cancel(accept_);
        end();
    }

private:
    void on_completion(io::Completion& completion) override {
        if (!completion.more) accept_ = {};
        if (completion.result >= 0) {
            router_.accepted(completion.result, tag_);
        } else if (completion.result != -ECANCELED) {
            router_.pause();  // out of descriptors or memory: later
        }
        if (completion.more) return;
        if (closing_) return end();
        if (!router_.paused_) arm();
    }
    void end() {
        router_.loop_.io().close(socket_, false);
        router_.listener_closed(*this);  // destroys this
    }

    Router& router_;
    io::Socket socket_;
    std::uint32_t tag_;
    io::OpId accept_;
    bool closing_ = false;
};

Router::Connection::Connection(Router& of, std::uint32_t its_listener)
    : router(of),
      listener(its_listener),
      idle(Delegate<void()>::to<&Connection::on_idle>(*this)),
      peer(of.loop_, SocketType::Router, *this, of.options_.message_max) {}

void Router::Connection::on_peer_message(Peer&, std::string_view message) {
    ++router.counters_.messages;
    router.loop_.arm(idle, router.options_.idle_timeout);
    router.events_.on_message(router.connections_.handle_of(*this), listener, message);
}

// One large message is nobody's business; all of them together are.
void Router::Connection::on_peer_bytes(Peer&, std::size_t now_buffered) {
    router.pending_bytes_ += now_buffered - buffered;
    buffered = now_buffered;
    if (router.pending_bytes_ <= router.options_.pending_bytes_max) return;
    ++router.counters_.refused;
    peer.close_now();
    router.gone(*this);
}

Router::Router(io::Loop& loop, RouterEvents& events, const RouterOptions& options)
    : loop_(loop),
      events_(events),
      options_(options),
      // An accept may deliver a few more before its cancellation takes hold.
      connections_(options.connections_max + limits::kCompletionEntries),
      resume_(Delegate<void()>::to<&Router::resume>(*this)) {}

Router::~Router() { ASSERT(finished()); }

void Router::add_listener(io::Socket socket, std::uint32_t tag) {
    listeners_.push_back(std::make_unique<Listener>(*this, socket, tag));
    listeners_.back()->arm();
}

void Router::accepted(io::Socket socket, std::uint32_t tag) {
    ++counters_.accepted;
    Connection* connection = stopped_ ? nullptr : connections_.emplace(*this, tag);
    if (connection == nullptr) {
        ++counters_.refused;
        return loop_.io().close(socket, true);
    }
    connection->peer.open(socket);
    loop_.arm(connection->idle, options_.idle_timeout);
    if (connections_.size() >= options_.connections_max) pause();
}

void Router::pause() {
    if (paused_ || stopped_) return;
    paused_ = true;
    for (auto& listener : listeners_) listener->pause();
    loop_.arm(resume_, limits::kAcceptPause);
}

void Router::resume() {
    if (!paused_ || stopped_) return;
    if (connections_.size() >= options_.connections_max)
        return loop_.arm(resume_, limits::kAcceptPause);
    paused_ = false;
    for (auto& listener : listeners_) listener->arm();
}

void Router::send(Handle peer, std::string_view message) {
    if (Connection* connection = connections_.get(peer)) connection->peer.send(message);
}

void Router::hold(Handle peer, bool more) {
    Connection* connection = connections_.get(peer);
    if (connection == nullptr) return;
    connection->held += more ? 1U : -1U;
    loop_.arm(connection->idle, connection->held > 0 ? kForever : options_.idle_timeout);
}

void Router::close(Handle peer) {
    if (Connection* connection = connections_.get(peer)) connection->peer.close();
}

void Router::idle(Connection& connection) { connection.peer.close(); }

void Router::gone(Connection& connection) {
    connection.idle.cancel();
    events_.on_gone(connections_.handle_of(connection));
}

void Router::closed(Connection& connection) {
    pending_bytes_ -= connection.buffered;
    connections_.erase(connection);
    if (paused_) loop_.arm(resume_, Duration::zero());
}

void Router::listener_closed(Listener& listener) {
    std::erase_if(listeners_, [&](const auto& each) { return each.get() == &listener; });
}

void Router::shut_down() {
    if (std::exchange(stopped_, true)) return;
    resume_.cancel();
    std::vector<Listener*> open;
    for (auto& listener : listeners_) open.push_back(listener.get());
    for (Listener* listener : open) listener->close();
    connections_.for_each([](Connection& connection) { connection.peer.close(); });
}

}  // namespace sluice::mooncake
