// SPDX-License-Identifier: Apache-2.0
#include "transport/tcp/tcp_transport.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <charconv>

#include "base/limits.h"
#include "io/address.h"

namespace sluice::transport {
namespace {

// "10.0.0.2:7000", "[::1]:7000"; names are the node's affair.
Result<io::Address> parse(const Endpoint& endpoint) {
    const std::size_t colon = endpoint.rfind(':');
    if (colon == Endpoint::npos) return fail(Errc::InvalidAddress);
    std::string_view host(endpoint.data(), colon);
    if (host.size() > 2 && host.front() == '[' && host.back() == ']')
        host = host.substr(1, host.size() - 2);
    std::uint16_t port = 0;
    const char* end = endpoint.data() + endpoint.size();
    const auto [rest, error] = std::from_chars(endpoint.data() + colon + 1, end, port);
    if (error != std::errc() || rest != end) return fail(Errc::InvalidAddress);
    return io::Address::from_ip(host, port);
}

void tune(int fd) {
    const int yes = 1;
    // Frames are whole sends; what waits in Nagle's buffer is a trailer that somebody waits for.
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
}

Result<int> failed(int fd) {
    const int error = errno;
    ::close(fd);
    return fail_errno(error);
}

}  // namespace

const Capabilities TcpTransport::kCapabilities{
    .name = "tcp", .fenced = true, .token = true, .checksum = true};

Result<int> TcpTransport::make_listener(const Endpoint& endpoint, Endpoint& announced) {
    const auto address = parse(endpoint);
    if (!address) return std::unexpected(address.error());
    const int fd = ::socket(address->family(), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return fail_errno();
    const int yes = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (::bind(fd, address->raw(), address->size()) != 0) return failed(fd);
    if (::listen(fd, limits::kListenBacklog) != 0) return failed(fd);
    sockaddr_storage bound{};
    socklen_t size = sizeof bound;
    if (::getsockname(fd, reinterpret_cast<sockaddr*>(&bound), &size) != 0) return failed(fd);
    announced = io::Address::from_sockaddr(reinterpret_cast<sockaddr*>(&bound), size).text();
    return fd;
}

Result<int> TcpTransport::start_connect(const Endpoint& endpoint) {
    const auto address = parse(endpoint);
    if (!address) return std::unexpected(address.error());
    const int fd = ::socket(address->family(), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return fail_errno();
    tune(fd);
    if (::connect(fd, address->raw(), address->size()) != 0 && errno != EINPROGRESS)
        return failed(fd);
    return fd;
}

void TcpTransport::prepare_accepted(int fd) { tune(fd); }

}  // namespace sluice::transport
