// SPDX-License-Identifier: Apache-2.0
// An instance's URL as the command line gives it: http://host[:port], http://[ipv6][:port] or
// unix:/path.
// Threads: values. Errors: a sentence that names the URL and what is allowed.
#pragma once

#include <cstdint>
#include <expected>
#include <string>
#include <string_view>

#include "io/address.h"

namespace sluice::fleet {

struct Endpoint {
    std::string host;  // lower case, without brackets; empty: a unix socket
    std::uint16_t port = 0;
    std::string unix_path;
    io::Address address;  // valid() unless the host is a name

    bool is_unix() const { return !unix_path.empty(); }
    bool is_name() const { return !address.valid(); }

    // "10.0.0.1:8010", "[::1]:8010"; a unix socket's: "localhost".
    std::string authority() const;
    // The same host at another port. A unix socket's host is this one.
    std::string authority_at(std::uint16_t other_port) const;
    // The same for equal endpoints, however they were written.
    std::string identity() const { return is_unix() ? "unix:" + unix_path : authority(); }
};

std::expected<Endpoint, std::string> parse_url(std::string_view url);

}  // namespace sluice::fleet
