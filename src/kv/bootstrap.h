// SPDX-License-Identifier: Apache-2.0
// vLLM's Mooncake bootstrap server: where P's workers say who they are, and D and proxies ask.
//
// POST /register and GET /query with FastAPI's own answers for everything else. It forgets nothing
// while it lives. Threads: one. Owns: the listener, its connections, and the register.
#pragma once

#include <cstdint>
#include <expected>
#include <map>
#include <string>

#include "http/server.h"

namespace sluice::kv {

struct WorkerRegistration {
    std::string engine_id;
    std::uint32_t dp_rank = 0;
    std::uint32_t tp_rank = 0;
    std::uint32_t pp_rank = 0;
    std::string address;  // "tcp://ip:port"
};

struct RegisteredEngine {
    std::string engine_id;
    std::map<std::uint32_t, std::map<std::uint32_t, std::string>>
        workers;  // tp rank, pp rank -> address
};

// By dp rank. What a /query answers, and what it reads like.
using BootstrapEntries = std::map<std::uint32_t, RegisteredEngine>;
std::string write_bootstrap_entries(const BootstrapEntries& entries);
std::expected<BootstrapEntries, std::string> read_bootstrap_entries(std::string_view json);
std::string write_registration(const WorkerRegistration& worker);

class BootstrapServer final : public http::RequestHandler {
public:
    explicit BootstrapServer(io::Loop& loop);
    // `listener`: a listening socket, owned from now on.
    void open(io::Socket listener) { server_.add_listener(listener); }

    // The text of vLLM's 400 if it is refused.
    std::expected<void, std::string> enter(const WorkerRegistration& worker);
    const BootstrapEntries& entries() const { return entries_; }

    void stop() { server_.shut_down(); }
    bool finished() const { return server_.finished(); }

private:
    void on_request(http::ServerConnection& connection) override;
    void on_client_gone(http::ServerConnection&) override {}
    void on_register(http::ServerConnection& connection);

    BootstrapEntries entries_;
    std::size_t workers_ = 0;
    http::Server server_;
};

}  // namespace sluice::kv
