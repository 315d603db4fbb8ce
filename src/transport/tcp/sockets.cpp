// SPDX-License-Identifier: Apache-2.0
#include "transport/tcp/sockets.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <charconv>

#include "base/limits.h"

namespace sluice::transport {
Result<io::Address> parse_endpoint(const Endpoint& endpoint) {
    const std::size_t colon = endpoint.rfind(':');
    if (colon == Endpoint::npos) return fail(Errc::InvalidAddress);
    std::uint16_t port = 0;
    const char* end = endpoint.data() + endpoint.size();
    const auto [rest, error] = std::from_chars(endpoint.data() + colon + 1, end, port);
    if (error != std::errc() || rest != end) return fail(Errc::InvalidAddress);
    return io::Address::from_ip(std::string_view(endpoint).substr(0, colon), port);
}

void tune_tcp(int fd) {
    const int yes = 1;
    // Frames are whole sends; what waits in Nagle's buffer is a trailer that somebody waits for.
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
}

Result<int> tcp_listener(const io::Address& address, io::Address& bound) {
    const int fd = ::socket(address.family(), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return fail_errno();
    const int yes = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (::bind(fd, address.raw(), address.size()) != 0) return close_and_fail(fd);
    if (::listen(fd, limits::kListenBacklog) != 0) return close_and_fail(fd);
    sockaddr_storage name{};
    socklen_t size = sizeof name;
    if (::getsockname(fd, reinterpret_cast<sockaddr*>(&name), &size) != 0)
        return close_and_fail(fd);
    bound = io::Address::from_sockaddr(reinterpret_cast<sockaddr*>(&name), size);
    return fd;
}

Result<int> tcp_connecting(const io::Address& address) {
    const int fd = ::socket(address.family(), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return fail_errno();
    tune_tcp(fd);
    if (::connect(fd, address.raw(), address.size()) != 0 && errno != EINPROGRESS)
        return close_and_fail(fd);
    return fd;
}

}  // namespace sluice::transport
