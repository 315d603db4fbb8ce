// SPDX-License-Identifier: Apache-2.0
// Accepts connections on any number of listeners and owns them.
//
// At the connection limit, and when the process runs out of descriptors, accepting pauses: new
// clients wait in the kernel's queue instead of being taken and dropped, and the loop does not
// spin. It goes on when a connection closes or after kAcceptPause. Threads: one. Owns: the
// listeners and the connections.
#pragma once

#include <memory>
#include <vector>

#include "base/slab.h"
#include "http/server_connection.h"

namespace sluice::http {

struct ServerCounters {
    std::uint64_t accepted = 0;
    std::uint64_t accept_failures = 0;
    std::uint64_t accept_pauses = 0;
};

class Server final : public ServerConnectionOwner {
public:
    Server(io::Loop& loop, RequestHandler& handler, const ServerOptions& options,
           std::uint32_t connections_max);
    ~Server();

    // `listener` is a listening socket, owned from now on.
    void add_listener(io::Socket listener);

    // Stops accepting; each connection closes after its current answer.
    void drain();
    // Stops accepting and closes everything now. Run the loop until finished().
    void shut_down();
    bool finished() const { return listeners_.empty() && connections_.size() == 0; }

    std::size_t connections() const { return connections_.size(); }
    const ServerCounters& counters() const { return counters_; }
    const ServerOptions& options() const { return options_; }
    TextArena& texts() { return texts_; }

private:
    class Listener final : private io::OpTarget {
    public:
        Listener(Server& server, io::Socket socket) : server_(server), socket_(socket) {}
        void arm();
        void pause();
        void close();

    private:
        void on_completion(io::Completion& completion) override;
        Server& server_;
        io::Socket socket_;
        io::OpId accept_;
        bool closing_ = false;
    };

    void on_connection_closed(ServerConnection& connection) override;
    void accepted(io::Socket socket);
    bool may_accept() const;
    void pause_accepting();
    void resume_accepting();
    void listener_closed(Listener& listener);

    io::Loop& loop_;
    TextArena texts_;
    RequestHandler& handler_;
    ServerOptions options_;
    ServerCounters counters_;
    Slab<ServerConnection> connections_;
    std::uint32_t connections_max_;
    std::vector<std::unique_ptr<Listener>> listeners_;
    Timer resume_;
    bool draining_ = false;
    bool paused_ = false;
};

}  // namespace sluice::http
