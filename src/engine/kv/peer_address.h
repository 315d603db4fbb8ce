// SPDX-License-Identifier: Apache-2.0
// Reads "tcp://ip:port" and "http://host:port" into an address, through the engine's resolver for
// names. Threads: one.
#pragma once

#include <string_view>

#include "engine/options.h"

namespace sluice::engine {

Result<io::Address> peer_address(std::string_view url, std::string_view scheme,
                                 const EngineOptions& options);
Result<io::Address> host_address(std::string_view host, std::uint16_t port,
                                 const EngineOptions& options);
// "tcp://127.0.0.1:4711"
std::string tcp_url(const io::Address& address);

}  // namespace sluice::engine
