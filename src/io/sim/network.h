// SPDX-License-Identifier: Apache-2.0
// The kernels and the wires of a simulated world: listeners, connections, and what travels between
// them.
//
// A connection is two endpoints. What an endpoint sends travels as segments, in order, each with
// its own latency, and counts against the window until the peer's program has read it; so a reader
// that stops makes the sender's send wait, as in TCP. It is acknowledged when it reaches the peer's
// kernel. The end of a connection is Linux's: close() sends an end, or a reset if unread bytes were
// there; bytes that arrive at a closed socket are answered with a reset; after a reset what had
// arrived can still be read; a unix socket cannot be made to send a reset but by leaving bytes
// unread. Behind a cut link or in a host without power there is silence: what is sent waits, and
// after Faults::silence_max the connection ends with ETIMEDOUT. Not simulated: TIME_WAIT, urgent
// data, a zero window that lasts so long that the sender's kernel gives up.
//
// Threads: one. Owns: listeners and endpoints, together with the SimIo that uses them.
// Errors: errno values, as the kernel's.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "base/rng.h"
#include "io/address.h"
#include "io/io.h"
#include "io/sim/faults.h"
#include "io/sim/timeline.h"
#include "io/sim/trace.h"

namespace sluice::io::sim {

// The kernel of one host, as the network sees it.
class SocketOwner {
public:
    virtual int host() const = 0;
    virtual void on_acceptable(Socket listener) = 0;
    virtual void on_connect_ended(Socket socket, int error) = 0;
    virtual void on_readable(Socket socket) = 0;
    virtual void on_writable(Socket socket) = 0;

protected:
    ~SocketOwner() = default;
};

struct Segment {
    enum class Kind : std::uint8_t { Bytes, End, Reset };
    Kind kind;
    Instant arrives;
    std::string bytes;
};

struct Endpoint {
    std::uint64_t number = 0;      // in the order they were made
    SocketOwner* owner = nullptr;  // null when the program has closed it, and in a backlog
    Socket socket = kNoSocket;
    int host = -1;
    bool is_unix = false;
    Address local;
    std::shared_ptr<Endpoint> peer;

    bool established = false;
    bool closed = false;     // by the program
    bool gone = false;       // reset: nothing is sent or taken any more
    bool peer_told = false;  // ... and the peer knows
    bool vanished = false;   // its host lost power

    // towards the peer
    std::deque<Segment> wire;
    Instant last_arrival{};
    bool delivery_scheduled = false;
    std::size_t outstanding = 0;  // sent and not yet read by the peer's program
    std::uint64_t acknowledged = 0;
    bool end_sent = false;
    int send_error = 0;

    // from the peer
    std::string received;
    std::size_t read = 0;
    bool end_received = false;
    int receive_error = 0;

    std::size_t unread() const { return received.size() - read; }
    bool readable() const { return unread() > 0 || end_received || gone || receive_error != 0; }
};

struct Listener {
    SocketOwner* owner = nullptr;
    Socket socket = kNoSocket;
    Address address;
    bool shared_port = false;
    std::deque<std::shared_ptr<Endpoint>> backlog;
};

class Network {
public:
    Network(Timeline& timeline, Rng& rng, Trace& trace, const Faults& faults)
        : timeline_(timeline), rng_(rng), trace_(trace), faults_(faults) {}
    Network(const Network&) = delete;
    Network& operator=(const Network&) = delete;
    ~Network();

    // -- what a kernel offers its programs
    Result<std::shared_ptr<Listener>> listen(SocketOwner& owner, Socket socket,
                                             const Address& address, bool shared_port);
    void close_listener(Listener& listener);
    std::shared_ptr<Endpoint> connect(SocketOwner& owner, Socket socket, const Address& peer);
    // Bytes taken, 0 if the window is full, or -errno.
    int send(Endpoint& from, std::string_view bytes);
    // Bytes, 0 at the end, or -errno. Requires: readable().
    int receive(Endpoint& at, char* bytes, std::size_t size);
    void shutdown_send(Endpoint& from);
    void close(Endpoint& endpoint, bool reset);
    // The host lost power: nothing is ever sent again, and the peer is not told.
    void vanish(Endpoint& endpoint);
    void vanish_listener(Listener& listener);

    // -- what a test does to it
    void set_link_faults(int a, int b, const Faults& faults) { links_[ordered(a, b)] = faults; }
    void clear_link_faults(int a, int b) { links_.erase(ordered(a, b)); }
    void cut(int a, int b);
    void heal(int a, int b);
    // Connects to `address` get no answer at all.
    void set_blackhole(const Address& address, bool on);
    void set_backlog_max(std::size_t connections) { backlog_max_ = connections; }
    void set_host_down(int host, bool down);

private:
    using Link = std::pair<int, int>;
    using EndpointRef = std::shared_ptr<Endpoint>;

    static Link ordered(int a, int b) { return a < b ? Link{a, b} : Link{b, a}; }
    const Faults& faults_between(int a, int b) const;
    bool is_cut(int a, int b) const { return a != b && cuts_.contains(ordered(a, b)); }
    bool is_blackhole(const Address& address) const;
    Duration latency(const Endpoint& endpoint, int other_host);

    Listener* listener_for(const Address& address);
    void try_connect(const EndpointRef& client, const Address& peer, int attempt);
    void retry_connect(const EndpointRef& client, const Address& peer, int attempt);
    void arrive_at_listener(const EndpointRef& client, const Address& peer, int attempt);
    void end_connect(const EndpointRef& client, int error);
    EndpointRef make_endpoint(SocketOwner* owner, Socket socket, int host, const Address& local);

    void put_on_wire(Endpoint& from, Segment::Kind kind, std::string bytes);
    void lose_tail(Endpoint& from);
    void schedule_delivery(const EndpointRef& from);
    void deliver_due(const EndpointRef& from);
    void deliver(Endpoint& from, Segment& segment);
    void deliver_break(Endpoint& to, int error);
    void watch_silence(const EndpointRef& endpoint);
    void end_silence(const EndpointRef& endpoint);
    void forget_if_over(Endpoint& endpoint);
    EndpointRef ref_of(const Endpoint& endpoint) const;

    Timeline& timeline_;
    Rng& rng_;
    Trace& trace_;
    const Faults& faults_;
    std::vector<std::shared_ptr<Listener>> listeners_;
    std::map<std::uint64_t, EndpointRef> endpoints_;  // by number; those that may still matter
    std::uint64_t next_number_ = 0;
    std::map<Link, Faults> links_;
    std::set<Link> cuts_;
    std::vector<EndpointRef> held_back_;  // stopped at a cut
    std::vector<Address> blackholes_;
    std::vector<std::pair<int, Address>> dark_addresses_;  // of hosts without power
    std::set<int> hosts_down_;
    std::set<std::string> unix_paths_;  // that exist in the file system
    std::size_t backlog_max_ = 4096;
    std::uint16_t next_port_ = 20000;
};

}  // namespace sluice::io::sim
