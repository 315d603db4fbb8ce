// SPDX-License-Identifier: Apache-2.0
// The client side: one request to one endpoint, over a pooled or a new connection.
//
//   UpstreamPool   one endpoint's connections on one worker; idle ones are kept warm and watched
//   ClientRequest  a request in flight, a member of whoever asked (a leg, a probe)
//
// An idle connection is retired before the server's keep-alive ends, and dropped as soon as it
// becomes readable. A pooled connection that turns out closed when it is used, before the peer's
// kernel acknowledged a byte of the request, is replaced by a new one without the caller noticing;
// anything else is reported, and whether the peer may have acted on the request with it. Threads:
// one. Owns: the connections.
#pragma once

#include <cstdint>
#include <string>

#include "base/slab.h"
#include "base/timer_wheel.h"
#include "http/body_reader.h"
#include "http/head_collector.h"
#include "io/stream.h"

namespace sluice::http {

struct ClientFailure {
    enum class Kind : std::uint8_t { Connect, ConnectTimeout, Closed, Broken, Protocol, Limit };
    Kind kind;
    Error error{Errc::ConnectionClosed};
    bool delivered = true;  // the peer may have read some of the request
    bool answered = false;  // some of the answer had come

    // Our side's shortage (descriptors, ports, the connection limit), not the peer's fault.
    bool is_local() const;
    std::string describe() const;
};

class ResponseEvents {
public:
    virtual void on_response_head(const ResponseHead& head) = 0;  // the final one, never 1xx
    virtual void on_response_body(Slice bytes) = 0;
    virtual void on_response_end() = 0;
    virtual void on_response_failed(const ClientFailure& failure) = 0;

protected:
    ~ResponseEvents() = default;
};

class ClientConnection;
class UpstreamPool;

class ClientRequest {
public:
    explicit ClientRequest(ResponseEvents& events) : events_(events) {}
    ClientRequest(const ClientRequest&) = delete;
    ClientRequest& operator=(const ClientRequest&) = delete;
    ~ClientRequest() { cancel(); }

    // `message`: head and body, complete. Exactly one of on_response_end and on_response_failed
    // follows, never from within this call, unless cancel() comes first.
    void start(UpstreamPool& pool, SliceQueue message, bool is_head_method = false);
    // No event follows. The connection is closed, which is how vLLM learns of a cancellation.
    void cancel();
    void set_reading(bool wanted);
    bool active() const { return connection_ != nullptr; }

private:
    friend class ClientConnection;
    friend class UpstreamPool;
    ResponseEvents& events_;
    ClientConnection* connection_ = nullptr;
    SliceQueue message_;  // kept while a stale connection could still be replaced
    bool is_head_method_ = false;
};

struct UpstreamOptions {
    Duration connect_timeout = std::chrono::seconds(2);
    Duration idle_timeout = std::chrono::milliseconds(2500);  // vLLM closes after 5 s
    std::uint32_t connections_max = 65536;
};

struct UpstreamCounters {
    std::uint64_t connects = 0;
    std::uint64_t connect_failures = 0;
    std::uint64_t reuses = 0;
    std::uint64_t stale_replaced = 0;
    std::uint64_t requests = 0;
};

class UpstreamPool {
public:
    UpstreamPool(io::Loop& loop, io::Address address, const UpstreamOptions& options);
    ~UpstreamPool();

    // Connections made from now on go to `address`; idle ones to the old address are dropped.
    void set_address(const io::Address& address);
    const io::Address& address() const { return address_; }

    std::size_t idle() const { return idle_count_; }
    std::size_t open() const { return connections_.size(); }
    const UpstreamCounters& counters() const { return counters_; }

    // Closes idle connections, and those in use as they become idle.
    void drain();

private:
    friend class ClientConnection;
    friend class ClientRequest;
    ClientConnection* take_idle();
    ClientConnection* open_new();
    void keep(ClientConnection& connection);
    void forget_idle(ClientConnection& connection);
    void closed(ClientConnection& connection);

    io::Loop& loop_;
    io::Address address_;
    UpstreamOptions options_;
    UpstreamCounters counters_;
    Slab<ClientConnection> connections_;
    IntrusiveList<ClientConnection> idle_;
    std::size_t idle_count_ = 0;
    bool draining_ = false;
};

}  // namespace sluice::http
