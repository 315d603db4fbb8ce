// SPDX-License-Identifier: Apache-2.0
#include "io/address.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstddef>
#include <cstring>

namespace sluice::io {

Result<Address> Address::from_ip(std::string_view host, std::uint16_t port) {
    if (host.size() >= 2 && host.front() == '[' && host.back() == ']')
        host = host.substr(1, host.size() - 2);
    // inet_pton reads up to the first NUL, and would not see what is behind it.
    if (host.contains('\0')) return fail(Errc::InvalidAddress);
    const std::string text(host);
    Address address;
    auto* v4 = reinterpret_cast<sockaddr_in*>(&address.storage_);
    if (inet_pton(AF_INET, text.c_str(), &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons(port);
        address.size_ = sizeof *v4;
        return address;
    }
    auto* v6 = reinterpret_cast<sockaddr_in6*>(&address.storage_);
    if (inet_pton(AF_INET6, text.c_str(), &v6->sin6_addr) == 1) {
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons(port);
        address.size_ = sizeof *v6;
        return address;
    }
    return fail(Errc::InvalidAddress);
}

Result<Address> Address::from_unix_path(std::string_view path) {
    Address address;
    auto* local = reinterpret_cast<sockaddr_un*>(&address.storage_);
    if (path.empty() || path.contains('\0') || path.size() >= sizeof local->sun_path)
        return fail(Errc::InvalidAddress);
    local->sun_family = AF_UNIX;
    std::memcpy(local->sun_path, path.data(), path.size());
    address.size_ = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size() + 1);
    return address;
}

Address Address::from_sockaddr(const sockaddr* raw, socklen_t size) {
    Address address;
    if (size > sizeof address.storage_) return address;
    std::memcpy(&address.storage_, raw, size);
    address.size_ = size;
    return address;
}

std::uint16_t Address::port() const {
    if (family() == AF_INET)
        return ntohs(reinterpret_cast<const sockaddr_in*>(&storage_)->sin_port);
    if (family() == AF_INET6)
        return ntohs(reinterpret_cast<const sockaddr_in6*>(&storage_)->sin6_port);
    return 0;
}

Address Address::with_port(std::uint16_t port) const {
    Address other = *this;
    if (family() == AF_INET)
        reinterpret_cast<sockaddr_in*>(&other.storage_)->sin_port = htons(port);
    if (family() == AF_INET6)
        reinterpret_cast<sockaddr_in6*>(&other.storage_)->sin6_port = htons(port);
    return other;
}

bool Address::is_wildcard() const {
    if (family() == AF_INET)
        return reinterpret_cast<const sockaddr_in*>(&storage_)->sin_addr.s_addr == INADDR_ANY;
    return family() == AF_INET6 &&
           IN6_IS_ADDR_UNSPECIFIED(&reinterpret_cast<const sockaddr_in6*>(&storage_)->sin6_addr);
}

std::string Address::text() const {
    char host[INET6_ADDRSTRLEN] = {};
    switch (family()) {
        case AF_INET:
            inet_ntop(AF_INET, &reinterpret_cast<const sockaddr_in*>(&storage_)->sin_addr, host,
                      sizeof host);
            return std::string(host) + ":" + std::to_string(port());
        case AF_INET6:
            inet_ntop(AF_INET6, &reinterpret_cast<const sockaddr_in6*>(&storage_)->sin6_addr, host,
                      sizeof host);
            return "[" + std::string(host) + "]:" + std::to_string(port());
        case AF_UNIX:
            return std::string("unix:") + reinterpret_cast<const sockaddr_un*>(&storage_)->sun_path;
        default:
            return "(none)";
    }
}

bool operator==(const Address& a, const Address& b) {
    return a.size_ == b.size_ && std::memcmp(&a.storage_, &b.storage_, a.size_) == 0;
}

Result<Address> own_address_towards(const Address& peer) {
    const int fd = ::socket(peer.family(), SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return fail_errno();
    sockaddr_storage own{};
    socklen_t size = sizeof own;
    if (::connect(fd, peer.raw(), peer.size()) != 0 ||
        ::getsockname(fd, reinterpret_cast<sockaddr*>(&own), &size) != 0)
        return close_and_fail(fd);
    ::close(fd);
    return Address::from_sockaddr(reinterpret_cast<sockaddr*>(&own), size).with_port(0);
}

}  // namespace sluice::io
