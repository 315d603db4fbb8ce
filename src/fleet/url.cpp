// SPDX-License-Identifier: Apache-2.0
#include "fleet/url.h"

#include <arpa/inet.h>

#include <algorithm>
#include <charconv>
#include <optional>

#include "http/head.h"

namespace sluice::fleet {

namespace {

constexpr std::string_view kAllowed =
    "; allowed are http://host, http://host:port, http://[ipv6]:port and unix:/path";
constexpr std::size_t kHostBytesMax = 253;

std::unexpected<std::string> refuse(std::string_view url, std::string_view why) {
    // What could not be shown on a terminal is left out of the sentence.
    std::string sentence = "\"";
    for (const char c : url.substr(0, 300)) sentence += c >= ' ' && c < 0x7f ? c : '?';
    sentence += "\": ";
    sentence += why;
    sentence += kAllowed;
    return std::unexpected(std::move(sentence));
}

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_host_byte(char c) {
    return is_digit(c) || (c >= 'a' && c <= 'z') || c == '-' || c == '.' || c == '_';
}

bool starts_ignoring_case(std::string_view text, std::string_view prefix) {
    return text.size() >= prefix.size() &&
           http::equals_ignoring_case(text.substr(0, prefix.size()), prefix);
}

std::optional<std::uint16_t> parse_port(std::string_view text) {
    std::uint16_t port = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
    if (error != std::errc() || end != text.data() + text.size() || port == 0) return std::nullopt;
    return port;
}

std::expected<Endpoint, std::string> parse_unix(std::string_view url) {
    const std::string_view path = url.substr(url.find(':') + 1);
    if (!path.starts_with('/')) return refuse(url, "the path of a unix socket begins with /");
    // The URL stands in logs, JSON and metrics.
    const auto shown = [](char c) { return c > ' ' && c < 0x7f && c != '"' && c != '\\'; };
    if (!std::all_of(path.begin(), path.end(), shown))
        return refuse(url,
                      "blanks, quotes, backslashes and control characters have no place in it");
    const auto address = io::Address::from_unix_path(path);
    if (!address) return refuse(url, "the path of a unix socket has at most 107 bytes");
    Endpoint endpoint;
    endpoint.unix_path = path;
    endpoint.address = *address;
    return endpoint;
}

bool is_any_address(std::string_view host) { return host == "0.0.0.0" || host == "::"; }

}  // namespace

std::expected<Endpoint, std::string> parse_url(std::string_view url) {
    if (starts_ignoring_case(url, "unix:")) return parse_unix(url);
    if (starts_ignoring_case(url, "https://"))
        return refuse(url, "TLS to an instance is not supported");
    constexpr std::string_view kScheme = "http://";
    if (!starts_ignoring_case(url, kScheme))
        return refuse(url, "it does not begin with http:// or unix:");
    std::string_view rest = url.substr(kScheme.size());
    if (rest.ends_with('/')) rest.remove_suffix(1);
    if (rest.find_first_of("/?#") != std::string_view::npos) return refuse(url, "it has a path");
    if (rest.find('@') != std::string_view::npos) return refuse(url, "it has a user name");

    Endpoint endpoint;
    std::string_view host = rest;
    std::string_view port;
    bool has_port = false;
    const bool bracketed = rest.starts_with('[');
    if (bracketed) {
        const auto close = rest.find(']');
        if (close == std::string_view::npos)
            return refuse(url, "the bracket of its host is not closed");
        host = rest.substr(1, close - 1);
        rest.remove_prefix(close + 1);
        if (!rest.empty() && !rest.starts_with(':'))
            return refuse(url, "only a port may follow the bracket");
        has_port = !rest.empty();
        if (has_port) port = rest.substr(1);
    } else if (const auto colon = rest.find(':'); colon != std::string_view::npos) {
        if (rest.find(':', colon + 1) != std::string_view::npos)
            return refuse(url, "an IPv6 address goes into brackets");
        host = rest.substr(0, colon);
        port = rest.substr(colon + 1);
        has_port = true;
    }
    const auto number = has_port ? parse_port(port) : std::uint16_t{80};
    if (!number) return refuse(url, "its port is not a number from 1 to 65535");
    endpoint.port = *number;
    endpoint.host = host;
    for (char& c : endpoint.host)
        if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');

    if (endpoint.host.empty()) return refuse(url, "it has no host");
    if (is_any_address(endpoint.host))
        return refuse(url, endpoint.host + " is an address to listen on, not one to connect to");
    const auto numeric = io::Address::from_ip(endpoint.host, endpoint.port);
    const bool is_v6 = numeric && numeric->family() == AF_INET6;
    if (bracketed != is_v6) return refuse(url, "what stands in brackets must be an IPv6 address");
    if (numeric) {
        endpoint.address = *numeric;
        return endpoint;
    }
    if (endpoint.host.size() > kHostBytesMax ||
        !std::all_of(endpoint.host.begin(), endpoint.host.end(), is_host_byte))
        return refuse(url, "its host has bytes that a host name cannot have");
    // A last label of digits is a mistyped IPv4 address; no domain has one.
    const std::string_view last =
        std::string_view(endpoint.host).substr(endpoint.host.rfind('.') + 1);
    if (!last.empty() && std::all_of(last.begin(), last.end(), is_digit))
        return refuse(url, "its host is neither a name nor an IPv4 address");
    return endpoint;
}

std::string Endpoint::authority() const { return is_unix() ? "localhost" : authority_at(port); }

std::string Endpoint::authority_at(std::uint16_t other_port) const {
    const std::string name = is_unix()                             ? "127.0.0.1"
                             : host.find(':') != std::string::npos ? "[" + host + "]"
                                                                   : host;
    return name + ":" + std::to_string(other_port);
}

}  // namespace sluice::fleet
