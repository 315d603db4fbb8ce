// SPDX-License-Identifier: Apache-2.0
#include "io/sim/network.h"


#include <algorithm>
#include <cerrno>
#include <cstring>

namespace sluice::io::sim {

namespace {

constexpr std::size_t kSegmentMax = 16 * 1024;

}  // namespace

Network::~Network() {
    // Two endpoints hold each other.
    for (auto& [number, endpoint] : endpoints_) endpoint->peer.reset();
}

const Faults& Network::faults_between(int a, int b) const {
    const auto found = links_.find(ordered(a, b));
    return found == links_.end() ? faults_ : found->second;
}

Duration Network::latency(const Endpoint& endpoint, int other_host) {
    if (endpoint.is_unix) return Duration::zero();
    const Faults& link = faults_between(endpoint.host, other_host);
    return Duration(static_cast<std::int64_t>(
        rng_.between(static_cast<std::uint64_t>(link.latency_min.count()),
                     static_cast<std::uint64_t>(link.latency_max.count()))));
}

Network::EndpointRef Network::make_endpoint(SocketOwner* owner, Socket socket, int host,
                                            const Address& local) {
    auto endpoint = std::make_shared<Endpoint>();
    endpoint->number = next_number_++;
    endpoint->owner = owner;
    endpoint->socket = socket;
    endpoint->host = host;
    endpoint->local = local;
    endpoint->is_unix = local.is_unix();
    endpoint->last_arrival = timeline_.now();
    endpoints_[endpoint->number] = endpoint;
    return endpoint;
}

Network::EndpointRef Network::ref_of(const Endpoint& endpoint) const {
    const auto found = endpoints_.find(endpoint.number);
    ASSERT(found != endpoints_.end());
    return found->second;
}

// ---- sending and receiving

int Network::send(Endpoint& from, std::string_view bytes) {
    if (from.send_error != 0) return -std::exchange(from.send_error, EPIPE);
    if (from.end_sent || from.gone) return -EPIPE;
    if (from.is_unix && from.peer->closed) return -EPIPE;
    const Faults& link = faults_between(from.host, from.peer->host);
    const std::size_t window = std::max<std::size_t>(link.window_bytes, 1);
    const std::size_t room = window - std::min(window, from.outstanding);
    const std::size_t taken = std::min(room, bytes.size());
    for (std::size_t done = 0; done < taken;) {
        const std::size_t part = std::min(taken - done, kSegmentMax);
        put_on_wire(from, Segment::Kind::Bytes, std::string(bytes.substr(done, part)));
        done += part;
        if (from.is_unix || link.reset <= 0 || !rng_.chance(link.reset)) continue;
        trace_.add(timeline_.now(), from.host, "network resets", from.socket);
        put_on_wire(from, Segment::Kind::Reset, {});
        lose_tail(*from.peer);
        put_on_wire(*from.peer, Segment::Kind::Reset, {});
        return static_cast<int>(done);
    }
    return static_cast<int>(taken);
}

int Network::receive(Endpoint& at, char* bytes, std::size_t size) {
    if (at.unread() > 0) {
        const std::size_t taken = std::min(size, at.unread());
        std::memcpy(bytes, at.received.data() + at.read, taken);
        at.read += taken;
        if (at.unread() == 0) {
            at.received.clear();
            at.read = 0;
        }
        Endpoint* sender = at.peer.get();
        if (sender == nullptr) return static_cast<int>(taken);
        sender->outstanding -= taken;
        if (sender->owner != nullptr && !sender->gone) sender->owner->on_writable(sender->socket);
        return static_cast<int>(taken);
    }
    if (at.end_received) return 0;
    if (at.receive_error != 0) return -std::exchange(at.receive_error, 0);
    ASSERT(at.gone);
    return 0;
}

void Network::shutdown_send(Endpoint& from) {
    if (from.end_sent || from.gone || !from.established) return;
    from.end_sent = true;
    put_on_wire(from, Segment::Kind::End, {});
}

void Network::close(Endpoint& endpoint, bool reset) {
    ASSERT(!endpoint.closed);
    endpoint.closed = true;
    endpoint.owner = nullptr;
    if (endpoint.established && !endpoint.gone) {
        const bool unread = endpoint.unread() > 0;
        if (unread || (reset && !endpoint.is_unix)) {
            if (!endpoint.is_unix && reset) lose_tail(endpoint);
            endpoint.end_sent = true;
            put_on_wire(endpoint, Segment::Kind::Reset, {});
            endpoint.gone = true;
        } else {
            shutdown_send(endpoint);
        }
    }
    endpoint.received.clear();
    endpoint.read = 0;
    forget_if_over(endpoint);
}

void Network::vanish(Endpoint& endpoint) {
    endpoint.closed = true;
    endpoint.vanished = true;
    endpoint.owner = nullptr;
    endpoint.wire.clear();
    endpoint.received.clear();
    endpoint.read = 0;
    if (endpoint.peer != nullptr) watch_silence(endpoint.peer);
    forget_if_over(endpoint);
}

// ---- the wire

void Network::put_on_wire(Endpoint& from, Segment::Kind kind, std::string bytes) {
    const Instant arrives =
        std::max(from.last_arrival, timeline_.now() + latency(from, from.peer->host));
    from.last_arrival = arrives;
    if (kind == Segment::Kind::Reset) from.peer_told = true;
    from.outstanding += bytes.size();
    from.wire.push_back({kind, arrives, std::move(bytes)});
    schedule_delivery(ref_of(from));
}

// A reset overtakes what has not yet arrived, or some of it.
void Network::lose_tail(Endpoint& from) {
    std::size_t lost = rng_.below(from.wire.size() + 1);
    for (; lost > 0 && from.wire.back().kind != Segment::Kind::Reset; --lost) {
        from.outstanding -= from.wire.back().bytes.size();
        from.wire.pop_back();
    }
}

void Network::schedule_delivery(const EndpointRef& from) {
    if (from->delivery_scheduled || from->wire.empty()) return;
    from->delivery_scheduled = true;
    timeline_.schedule(from->wire.front().arrives, [this, from] { deliver_due(from); });
}

void Network::deliver_due(const EndpointRef& from) {
    from->delivery_scheduled = false;
    if (from->peer == nullptr || from->wire.empty()) return;
    if (is_cut(from->host, from->peer->host)) {
        held_back_.push_back(from);
        return;
    }
    if (from->wire.front().arrives <= timeline_.now()) {
        Segment segment = std::move(from->wire.front());
        from->wire.pop_front();
        deliver(*from, segment);
    }
    schedule_delivery(from);
    forget_if_over(*from);
}

void Network::deliver(Endpoint& from, Segment& segment) {
    Endpoint& to = *from.peer;
    const auto size = segment.bytes.size();
    if (to.vanished && hosts_down_.contains(to.host)) {
        trace_.add(timeline_.now(), to.host, "lost at a dark host", to.socket,
                   static_cast<std::int64_t>(size));
        return;
    }
    switch (segment.kind) {
        case Segment::Kind::Bytes:
            trace_.add(timeline_.now(), to.host, "bytes arrive", to.socket,
                       static_cast<std::int64_t>(size));
            if (to.closed || to.gone) {
                from.outstanding -= size;
                // A socket that has ended answers bytes with a reset.
                to.gone = true;
                if (!to.peer_told) put_on_wire(to, Segment::Kind::Reset, {});
                return;
            }
            to.received += segment.bytes;
            from.acknowledged += size;
            break;
        case Segment::Kind::End:
            trace_.add(timeline_.now(), to.host, "end arrives", to.socket);
            if (!to.gone) to.end_received = true;
            break;
        case Segment::Kind::Reset:
            trace_.add(timeline_.now(), to.host, "reset arrives", to.socket);
            // After the peer's end was read a reset is an EPIPE for who sends, and nothing for who
            // reads.
            to.peer_told = true;
            deliver_break(to, to.end_received ? EPIPE : ECONNRESET);
            if (to.end_received) to.receive_error = 0;
            break;
    }
    if (to.owner != nullptr) to.owner->on_readable(to.socket);
}

void Network::deliver_break(Endpoint& to, int error) {
    if (to.gone) return;
    to.gone = true;
    // What was not yet on its way never will be; a reset that is goes on.
    std::erase_if(to.wire, [](const Segment& each) { return each.kind != Segment::Kind::Reset; });
    to.receive_error = to.send_error = error;
    if (to.owner != nullptr) to.owner->on_writable(to.socket);
}

// Nothing comes from the other side any more.
void Network::watch_silence(const EndpointRef& endpoint) {
    if (endpoint->is_unix || endpoint->peer == nullptr) return;
    const Duration wait = faults_between(endpoint->host, endpoint->peer->host).silence_max;
    if (wait >= kForever / 2) return;
    timeline_.schedule_after(wait, [this, endpoint] { end_silence(endpoint); });
}

void Network::end_silence(const EndpointRef& endpoint) {
    if (endpoint->closed || endpoint->gone || endpoint->peer == nullptr) return;
    const Endpoint& peer = *endpoint->peer;
    if (!peer.vanished && !is_cut(endpoint->host, peer.host)) return;
    // A machine that started again knows nothing of the connection, and says so.
    const bool answered = peer.vanished && !hosts_down_.contains(peer.host);
    trace_.add(timeline_.now(), endpoint->host, answered ? "reset arrives" : "silence",
               endpoint->socket);
    deliver_break(*endpoint, answered ? ECONNRESET : ETIMEDOUT);
    if (endpoint->owner != nullptr) endpoint->owner->on_readable(endpoint->socket);
}

// Both programs have closed and nothing travels: nobody will ask again.
void Network::forget_if_over(Endpoint& endpoint) {
    const auto found = endpoints_.find(endpoint.number);
    if (found == endpoints_.end()) return;
    const EndpointRef self = found->second;
    const EndpointRef peer = self->peer;
    if (!self->closed || !self->wire.empty()) return;
    if (peer == nullptr) {
        endpoints_.erase(found);
        return;
    }
    if (!peer->closed || !peer->wire.empty()) return;
    // A connect that was given up while its answer was on the way still has a reset to send.
    if (!self->established || !peer->established) return;
    self->peer.reset();
    peer->peer.reset();
    endpoints_.erase(self->number);
    endpoints_.erase(peer->number);
}

// ---- listening and connecting

namespace {

// The local end of a connection that was not bound.
Address unbound(int family, std::uint16_t port) {
    if (family == AF_UNIX) {
        sockaddr_un raw{};
        raw.sun_family = AF_UNIX;
        return Address::from_sockaddr(reinterpret_cast<const sockaddr*>(&raw), sizeof(sa_family_t));
    }
    return *Address::from_ip(family == AF_INET ? "127.0.0.1" : "::1", port);
}

}  // namespace

Result<std::shared_ptr<Listener>> Network::listen(SocketOwner& owner, Socket socket,
                                                  const Address& address, bool shared_port) {
    if (hosts_down_.contains(owner.host())) return fail_errno(EADDRNOTAVAIL);
    const bool any_port = !address.is_unix() && address.port() == 0;
    const Address bound = any_port ? address.with_port(next_port_++) : address;
    for (const auto& other : listeners_)
        if (other->address == bound && !(shared_port && other->shared_port))
            return fail_errno(EADDRINUSE);
    auto listener = std::make_shared<Listener>();
    listener->owner = &owner;
    listener->socket = socket;
    listener->address = bound;
    listener->shared_port = shared_port;
    listeners_.push_back(listener);
    if (bound.is_unix()) unix_paths_.insert(bound.text());
    return listener;
}

void Network::close_listener(Listener& listener) {
    while (!listener.backlog.empty()) {
        const EndpointRef waiting = listener.backlog.front();
        listener.backlog.pop_front();
        close(*waiting, true);
    }
    std::erase_if(listeners_, [&](const auto& each) { return each.get() == &listener; });
}

void Network::vanish_listener(Listener& listener) {
    if (!listener.address.is_unix())
        dark_addresses_.emplace_back(listener.owner->host(), listener.address);
    for (const EndpointRef& waiting : listener.backlog) vanish(*waiting);
    listener.backlog.clear();
    close_listener(listener);
}

Listener* Network::listener_for(const Address& address) {
    std::vector<Listener*> found;
    for (const auto& each : listeners_)
        if (each->address == address) found.push_back(each.get());
    if (found.empty() && !address.is_unix())
        for (const auto& each : listeners_)
            if (each->address.is_wildcard() && each->address.port() == address.port() &&
                (each->address.family() == address.family() || each->address.family() == AF_INET6))
                found.push_back(each.get());
    if (found.empty()) return nullptr;
    return found[found.size() == 1 ? 0 : rng_.below(found.size())];
}

std::shared_ptr<Endpoint> Network::connect(SocketOwner& owner, Socket socket, const Address& peer) {
    const std::uint16_t port = peer.is_unix() ? std::uint16_t{0} : next_port_++;
    auto client = make_endpoint(&owner, socket, owner.host(), unbound(peer.family(), port));
    try_connect(client, peer, 0);
    return client;
}

void Network::try_connect(const EndpointRef& client, const Address& peer, int attempt) {
    if (client->closed) return;
    if (hosts_down_.contains(client->host)) return end_connect(client, ENETUNREACH);
    const Listener* listener = listener_for(peer);
    const int other = listener == nullptr ? client->host : listener->owner->host();
    if (!client->is_unix && (is_blackhole(peer) || is_cut(client->host, other) ||
                             rng_.chance(faults_between(client->host, other).lose_syn)))
        return retry_connect(client, peer, attempt);
    timeline_.schedule_after(latency(*client, other), [this, client, peer, attempt] {
        arrive_at_listener(client, peer, attempt);
    });
}

void Network::retry_connect(const EndpointRef& client, const Address& peer, int attempt) {
    constexpr int kAttempts = 7;  // 127 s, Linux's default
    const Duration wait = std::chrono::seconds(1 << attempt);
    timeline_.schedule_after(wait, [this, client, peer, attempt] {
        if (attempt + 1 == kAttempts)
            end_connect(client, ETIMEDOUT);
        else
            try_connect(client, peer, attempt + 1);
    });
}

void Network::arrive_at_listener(const EndpointRef& client, const Address& peer, int attempt) {
    if (client->closed) return;
    Listener* listener = listener_for(peer);
    const int other = listener == nullptr ? client->host : listener->owner->host();
    const Duration back = latency(*client, other);
    const bool refuse = !client->is_unix && rng_.chance(faults_between(client->host, other).refuse);
    if (listener == nullptr || refuse) {
        const bool no_path = client->is_unix && !unix_paths_.contains(peer.text());
        const int error = no_path ? ENOENT : ECONNREFUSED;
        timeline_.schedule_after(back, [this, client, error] { end_connect(client, error); });
        return;
    }
    if (listener->backlog.size() >= backlog_max_) {
        if (client->is_unix) return end_connect(client, EAGAIN);
        return retry_connect(client, peer, attempt);
    }
    const EndpointRef server =
        make_endpoint(nullptr, kNoSocket, listener->owner->host(), listener->address);
    server->established = true;
    server->peer = client;
    client->peer = server;
    // Nothing of the server's may arrive before the client knows that it is connected.
    server->last_arrival = timeline_.now() + back;
    client->last_arrival = server->last_arrival;
    trace_.add(timeline_.now(), server->host, "connection in backlog", listener->socket);
    timeline_.schedule(server->last_arrival, [this, client] { end_connect(client, 0); });
    listener->backlog.push_back(server);
    listener->owner->on_acceptable(listener->socket);
}

void Network::end_connect(const EndpointRef& client, int error) {
    if (error != 0) {
        if (!client->closed) client->owner->on_connect_ended(client->socket, error);
        return;
    }
    if (client->peer == nullptr) return;
    client->established = true;
    if (client->closed) {
        // The program gave up meanwhile; the other side learns it now.
        if (client->vanished) return;
        client->gone = true;
        put_on_wire(*client, Segment::Kind::Reset, {});
        return;
    }
    client->owner->on_connect_ended(client->socket, 0);
}

// ---- faults by hand

void Network::cut(int a, int b) {
    cuts_.insert(ordered(a, b));
    for (const auto& [number, each] : endpoints_)
        if (each->peer != nullptr && ordered(each->host, each->peer->host) == ordered(a, b))
            watch_silence(each);
}

void Network::heal(int a, int b) {
    cuts_.erase(ordered(a, b));
    std::vector<EndpointRef> waiting = std::exchange(held_back_, {});
    for (const EndpointRef& from : waiting) schedule_delivery(from);
}

bool Network::is_blackhole(const Address& address) const {
    if (std::ranges::find(blackholes_, address) != blackholes_.end()) return true;
    return std::ranges::any_of(dark_addresses_,
                               [&](const auto& dark) { return dark.second == address; });
}

void Network::set_blackhole(const Address& address, bool on) {
    std::erase(blackholes_, address);
    if (on) blackholes_.push_back(address);
}

void Network::set_host_down(int host, bool down) {
    if (down) {
        hosts_down_.insert(host);
    } else {
        hosts_down_.erase(host);
        std::erase_if(dark_addresses_, [&](const auto& dark) { return dark.first == host; });
    }
}

}  // namespace sluice::io::sim
