// SPDX-License-Identifier: Apache-2.0
#include "support/canned_upstream.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include "base/assert.h"

namespace sluice::test {

namespace {

bool wait_for(short events, int fd, int stop) {
    pollfd watched[2] = {{fd, events, 0}, {stop, POLLIN, 0}};
    return ::poll(watched, 2, -1) > 0 && watched[1].revents == 0;
}

}  // namespace

bool CannedUpstream::Visit::receive() {
    if (!wait_for(POLLIN, fd_, stop_)) return false;
    char bytes[65536];
    const ssize_t got = ::recv(fd_, bytes, sizeof bytes, 0);
    if (got <= 0) return false;
    ahead_.append(bytes, static_cast<std::size_t>(got));
    return true;
}

bool CannedUpstream::Visit::take_head() {
    const auto end = ahead_.find("\r\n\r\n");
    if (end == std::string::npos) return false;
    head_ = ahead_.substr(0, end + 4);
    ahead_.erase(0, end + 4);
    const auto from = head_.find(' ') + 1;
    path_ = head_.substr(from, head_.find(' ', from) - from);
    const auto length = head_.find("\r\nContent-Length: ");
    body_bytes_ =
        length == std::string::npos ? 0 : std::strtoul(head_.c_str() + length + 18, nullptr, 10);
    return true;
}

bool CannedUpstream::Visit::read_head() {
    while (!take_head())
        if (!receive()) return false;
    return true;
}

std::string CannedUpstream::Visit::read_body() {
    while (ahead_.size() < body_bytes_)
        if (!receive()) return {};
    std::string body = ahead_.substr(0, body_bytes_);
    ahead_.erase(0, body_bytes_);
    body_bytes_ = 0;
    return body;
}

void CannedUpstream::Visit::read_some(std::size_t bytes) {
    while (ahead_.size() < std::min(bytes, body_bytes_))
        if (!receive()) return;
}

void CannedUpstream::Visit::send(std::string_view bytes) {
    while (!bytes.empty() && wait_for(POLLOUT, fd_, stop_)) {
        const ssize_t sent = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent <= 0) return;
        bytes.remove_prefix(static_cast<std::size_t>(sent));
    }
}

void CannedUpstream::Visit::wait_for_end() {
    while (receive()) ahead_.clear();
}

std::string CannedUpstream::ok(std::string_view body, std::string_view type) {
    return "HTTP/1.1 200 OK\r\nContent-Type: " + std::string(type) +
           "\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" + std::string(body);
}

CannedUpstream::CannedUpstream(Script script) : script_(std::move(script)) {
    listener_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    auto* name = reinterpret_cast<sockaddr*>(&address);
    ASSERT(::bind(listener_, name, size) == 0 && ::listen(listener_, 128) == 0);
    ASSERT(::getsockname(listener_, name, &size) == 0);
    port_ = ntohs(address.sin_port);
    stop_ = ::eventfd(0, EFD_CLOEXEC);
    accepting_ = std::jthread([this] { accept_all(); });
}

CannedUpstream::~CannedUpstream() {
    const std::uint64_t one = 1;
    (void)!::write(stop_, &one, sizeof one);
    accepting_.join();
    visits_.clear();
    ::close(stop_);
    ::close(listener_);
}

void CannedUpstream::set(Script script) {
    const std::lock_guard lock(mutex_);
    script_ = std::move(script);
}

void CannedUpstream::accept_all() {
    while (wait_for(POLLIN, listener_, stop_)) {
        const int fd = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
        if (fd >= 0) visits_.emplace_back([this, fd] { serve(fd); });
    }
}

void CannedUpstream::serve(int fd) {
    Visit visit(fd, stop_);
    bool more = true;
    while (more && visit.read_head()) {
        if (visit.head_.starts_with("GET ")) {
            visit.send(ok("{}"));
            continue;
        }
        ++posts_;
        Script script;
        {
            const std::lock_guard lock(mutex_);
            script = script_;
        }
        more = script && script(visit);
    }
    ::close(fd);
}

}  // namespace sluice::test
