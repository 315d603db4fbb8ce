// SPDX-License-Identifier: Apache-2.0
// An HTTP server for the keeper's tests: it answers each path with what the test put there, and
// counts.
// Threads: the loop's. Owns: its server; destroy it when finished().
#pragma once

#include <map>
#include <optional>
#include <string>

#include "http/server.h"

namespace sluice::fleet::test {

class FakeEngine final : private http::RequestHandler {
public:
    struct Reply {
        std::uint16_t status = 200;
        std::string body;
        bool hangs = false;
    };

    FakeEngine(io::Loop& loop, std::string_view host, std::uint16_t port)
        : loop_(loop), address_(*io::Address::from_ip(host, port)) {
        replies["/health"] = {};
    }

    // A path that is not here gets 404.
    std::map<std::string, Reply> replies;
    std::map<std::string, int> asked;
    http::ServerOptions options;
    std::map<std::string, std::string> authorization;  // of the latest question
    std::map<std::string, std::string> host_field;

    void start() {
        server_.emplace(loop_, static_cast<http::RequestHandler&>(*this), options, 1024);
        const auto listener = loop_.io().listen(address_, false);
        ASSERT(listener.has_value());
        server_->add_listener(*listener);
    }
    void stop() {
        if (server_) server_->shut_down();
    }
    bool finished() const { return !server_ || server_->finished(); }

private:
    void on_request(http::ServerConnection& client) override {
        const std::string path(client.request().path);
        ++asked[path];
        authorization[path] =
            client.request().fields.find(http::FieldId::Authorization).value_or("");
        host_field[path] = client.request().fields.find(http::FieldId::Host).value_or("");
        const auto reply = replies.find(path);
        if (reply == replies.end()) return client.respond_error(404, "not found");
        if (reply->second.hangs) return;
        client.respond(reply->second.status, "application/json", reply->second.body);
    }
    void on_client_gone(http::ServerConnection&) override {}

    io::Loop& loop_;
    io::Address address_;
    std::optional<http::Server> server_;
};

}  // namespace sluice::fleet::test
