// SPDX-License-Identifier: Apache-2.0
// Where a socket is: IPv4, IPv6 or a unix path. A value, ready for the kernel.
#pragma once

#include <sys/socket.h>
#include <sys/un.h>

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace sluice::io {

class Address {
public:
    Address() = default;

    // A numeric host ("127.0.0.1", "::1", "0.0.0.0") and a port. Names are resolved elsewhere
    // (fleet/resolver.h).
    static Result<Address> from_ip(std::string_view host, std::uint16_t port);
    static Result<Address> from_unix_path(std::string_view path);
    static Address from_sockaddr(const sockaddr* raw, socklen_t size);

    const sockaddr* raw() const { return reinterpret_cast<const sockaddr*>(&storage_); }
    socklen_t size() const { return size_; }
    int family() const { return storage_.ss_family; }
    bool is_unix() const { return family() == AF_UNIX; }
    bool valid() const { return size_ != 0; }
    std::uint16_t port() const;
    Address with_port(std::uint16_t port) const;  // the same host; not of a path
    bool is_wildcard() const;                     // 0.0.0.0 or ::

    // "127.0.0.1:8000", "[::1]:8000", "unix:/run/sluice.sock"
    std::string text() const;

    friend bool operator==(const Address& a, const Address& b);

private:
    sockaddr_storage storage_{};
    socklen_t size_ = 0;
};

// What this host is called on the way to `peer`, with port 0. No packet is sent for it.
Result<Address> own_address_towards(const Address& peer);

}  // namespace sluice::io
