// SPDX-License-Identifier: Apache-2.0
#include "transport/tcp/tcp_transport.h"

#include "transport/tcp/sockets.h"

namespace sluice::transport {

const Capabilities TcpTransport::kCapabilities{
    .name = "tcp", .fenced = true, .token = true, .checksum = true};

Result<int> TcpTransport::make_listener(const Endpoint& endpoint, Endpoint& announced) {
    const auto address = parse_endpoint(endpoint);
    if (!address) return std::unexpected(address.error());
    io::Address bound;
    const auto fd = tcp_listener(*address, bound);
    if (fd) announced = bound.text();
    return fd;
}

Result<int> TcpTransport::start_connect(const Endpoint& endpoint) {
    const auto address = parse_endpoint(endpoint);
    if (!address) return std::unexpected(address.error());
    return tcp_connecting(*address);
}

void TcpTransport::prepare_accepted(int fd) { tune_tcp(fd); }

}  // namespace sluice::transport
