// SPDX-License-Identifier: Apache-2.0
#include "engine/kv/peer_address.h"

#include <charconv>

namespace sluice::engine {

Result<io::Address> host_address(std::string_view host, std::uint16_t port,
                                 const EngineOptions& options) {
    if (host == "localhost") host = "127.0.0.1";
    auto address = io::Address::from_ip(host, port);
    if (address || !options.resolve) return address;
    return options.resolve(host, port);
}

Result<io::Address> peer_address(std::string_view url, std::string_view scheme,
                                 const EngineOptions& options) {
    if (!url.starts_with(scheme)) return fail(Errc::InvalidAddress);
    url.remove_prefix(scheme.size());
    url = url.substr(0, url.find('/'));
    const auto colon = url.rfind(':');
    if (colon == std::string_view::npos || colon == 0) return fail(Errc::InvalidAddress);
    const std::string_view digits = url.substr(colon + 1);
    std::uint16_t port = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), port);
    if (error != std::errc() || end != digits.data() + digits.size() || port == 0)
        return fail(Errc::InvalidAddress);
    return host_address(url.substr(0, colon), port, options);
}

std::string tcp_url(const io::Address& address) { return "tcp://" + address.text(); }

}  // namespace sluice::engine
