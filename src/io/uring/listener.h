// SPDX-License-Identifier: Apache-2.0
// Plain socket calls that need no ring: listening sockets, and the options every socket of ours
// has. Threads: any. Errors: Error with the errno of the call that failed.
#pragma once

#include "base/result.h"
#include "io/address.h"

namespace sluice::io {

// A listening socket. TCP: SO_REUSEADDR, TCP_NODELAY and keep-alive, inherited by what it accepts;
// `shared_port` adds SO_REUSEPORT. Unix: a stale path of a dead process is replaced, a live one is
// EADDRINUSE.
Result<int> open_listener(const Address& address, bool shared_port);

// A socket to connect with: TCP_NODELAY, keep-alive, close-on-exec.
Result<int> open_client(const Address& peer);

}  // namespace sluice::io
