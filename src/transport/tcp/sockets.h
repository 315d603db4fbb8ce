// SPDX-License-Identifier: Apache-2.0
// Sockets of the transports that use TCP, non-blocking and closed on exec.
//
// Threads: any. Owns: nothing; a descriptor is its receiver's.
#pragma once

#include "io/address.h"
#include "transport/transport.h"

namespace sluice::transport {

// "10.0.0.2:7000", "[::1]:7000"; names are the node's affair.
Result<io::Address> parse_endpoint(const Endpoint& endpoint);

// `bound`: with the port that the kernel chose.
Result<int> tcp_listener(const io::Address& address, io::Address& bound);
// A socket that is connecting.
Result<int> tcp_connecting(const io::Address& address);
void tune_tcp(int fd);

}  // namespace sluice::transport
