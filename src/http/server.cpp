// SPDX-License-Identifier: Apache-2.0
#include "http/server.h"

#include <algorithm>
#include <cerrno>

namespace sluice::http {

Server::Server(io::Loop& loop, RequestHandler& handler, const ServerOptions& options,
               std::uint32_t connections_max)
    : loop_(loop),
      texts_(loop.buffers()),
      handler_(handler),
      options_(options),
      // Multishot accept may deliver a few more than were wanted before its cancellation takes
      // hold.
      connections_(connections_max + limits::kCompletionEntries),
      connections_max_(connections_max),
      resume_(Delegate<void()>::to<&Server::resume_accepting>(*this)) {}

Server::~Server() { ASSERT(finished()); }

void Server::add_listener(io::Socket socket) {
    listeners_.push_back(std::make_unique<Listener>(*this, socket));
    listeners_.back()->arm();
}

bool Server::may_accept() const { return !draining_ && connections_.size() < connections_max_; }

void Server::accepted(io::Socket socket) {
    ++counters_.accepted;
    ServerConnection* connection =
        draining_ ? nullptr : connections_.emplace(loop_, texts_, handler_, *this, options_);
    if (connection == nullptr) {
        ++counters_.accept_failures;
        loop_.io().close(socket, true);
        return;
    }
    connection->open(socket);
    if (!may_accept()) pause_accepting();
}

void Server::on_connection_closed(ServerConnection& connection) {
    connections_.erase(connection);
    if (paused_) loop_.arm(resume_, Duration::zero());
}

void Server::pause_accepting() {
    if (paused_ || draining_) return;
    paused_ = true;
    ++counters_.accept_pauses;
    for (auto& listener : listeners_) listener->pause();
    loop_.arm(resume_, limits::kAcceptPause);
}

void Server::resume_accepting() {
    if (!paused_ || draining_) return;
    if (!may_accept()) {
        loop_.arm(resume_, limits::kAcceptPause);
        return;
    }
    paused_ = false;
    for (auto& listener : listeners_) listener->arm();
}

void Server::drain() {
    if (draining_) return;
    draining_ = true;
    resume_.cancel();
    // Closing may end listeners at once, which takes them out of the list.
    std::vector<Listener*> open;
    for (auto& listener : listeners_) open.push_back(listener.get());
    for (Listener* listener : open) listener->close();
    connections_.for_each([](ServerConnection& connection) { connection.drain(); });
}

void Server::shut_down() {
    drain();
    connections_.for_each([](ServerConnection& connection) { connection.shut_down(); });
}

void Server::listener_closed(Listener& listener) {
    std::erase_if(listeners_, [&](const auto& owned) { return owned.get() == &listener; });
}

// -- listener

void Server::Listener::arm() {
    if (!accept_.valid() && !closing_) accept_ = server_.loop_.io().accept(socket_, *this);
}

void Server::Listener::pause() {
    if (accept_.valid()) server_.loop_.io().cancel(accept_);
}

void Server::Listener::close() {
    if (closing_) return;
    closing_ = true;
    if (accept_.valid()) {
        server_.loop_.io().cancel(accept_);
        return;
    }
    server_.loop_.io().close(socket_, false);
    server_.listener_closed(*this);
}

void Server::Listener::on_completion(io::Completion& completion) {
    if (!completion.more) accept_ = {};
    if (completion.result >= 0) {
        server_.accepted(completion.result);
    } else if (completion.result != -ECANCELED) {
        ++server_.counters_.accept_failures;
        server_.pause_accepting();  // EMFILE, ENFILE, ENOBUFS, ENOMEM: later
    }
    if (completion.more) return;
    if (closing_) {
        server_.loop_.io().close(socket_, false);
        server_.listener_closed(*this);  // destroys this
    } else if (!server_.paused_) {
        arm();
    }
}

}  // namespace sluice::http
