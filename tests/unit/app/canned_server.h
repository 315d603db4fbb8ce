// SPDX-License-Identifier: Apache-2.0
// A server that says what it was told to, one connection at a time, on a free port of the loopback.
// Threads: one of its own; what it answers is set before it is asked.
#pragma once

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <map>
#include <string>
#include <thread>

#include "base/assert.h"
#include "io/address.h"
#include "io/uring/listener.h"

namespace sluice::test {

inline std::string http_ok(const std::string& body, const std::string& status = "200 OK") {
    return "HTTP/1.1 " + status +
           "\r\nContent-Type: application/json\r\nContent-Length: " + std::to_string(body.size()) +
           "\r\n\r\n" + body;
}

class CannedServer {
public:
    // Path to the bytes of the answer: none, and the connection is closed; "hang", and nothing is
    // said.
    explicit CannedServer(std::map<std::string, std::string> answers)
        : answers_(std::move(answers)) {
        const auto listener = io::open_listener(*io::Address::from_ip("127.0.0.1", 0), false);
        ASSERT(listener.has_value());
        listener_ = *listener;
        sockaddr_storage name{};
        socklen_t size = sizeof name;
        getsockname(listener_, reinterpret_cast<sockaddr*>(&name), &size);
        address_ = io::Address::from_sockaddr(reinterpret_cast<sockaddr*>(&name), size);
        stop_ = eventfd(0, EFD_CLOEXEC);
        thread_ = std::jthread([this] { serve(); });
    }
    ~CannedServer() {
        const std::uint64_t one = 1;
        (void)!::write(stop_, &one, sizeof one);
        thread_.join();
        ::close(stop_);
        ::close(listener_);
    }

    const io::Address& address() const { return address_; }
    std::uint16_t port() const { return address_.port(); }
    std::string url() const { return "http://" + address_.text(); }
    bool saw_key() const { return saw_key_; }

private:
    bool readable(int fd) const {
        pollfd watched[2] = {{fd, POLLIN, 0}, {stop_, POLLIN, 0}};
        return ::poll(watched, 2, -1) > 0 && watched[1].revents == 0;
    }

    void serve() {
        while (readable(listener_)) {
            const int fd = ::accept(listener_, nullptr, nullptr);
            if (fd < 0) continue;
            std::string request;
            char bytes[4096];
            while (request.find("\r\n\r\n") == std::string::npos && readable(fd)) {
                const ssize_t got = ::recv(fd, bytes, sizeof bytes, 0);
                if (got <= 0) break;
                request.append(bytes, static_cast<std::size_t>(got));
            }
            answer(fd, request);
            ::close(fd);
        }
    }

    void answer(int fd, const std::string& request) {
        if (request.find("Authorization: Bearer right") != std::string::npos) saw_key_ = true;
        const auto begin = request.find(' ') + 1;
        const auto found = answers_.find(request.substr(begin, request.find(' ', begin) - begin));
        if (found == answers_.end()) return;
        if (found->second == "hang") {
            (void)readable(fd);  // until the other side gives up
        } else {
            (void)!::send(fd, found->second.data(), found->second.size(), MSG_NOSIGNAL);
        }
    }

    std::map<std::string, std::string> answers_;
    int listener_ = -1;
    int stop_ = -1;
    io::Address address_;
    std::atomic<bool> saw_key_{false};
    std::jthread thread_;
};

}  // namespace sluice::test
