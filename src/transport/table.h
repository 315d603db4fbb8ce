// SPDX-License-Identifier: Apache-2.0
// The transports there are. To add one: write it in a folder of its own, give it a row in
// table.cpp, and pass tests/contract.
#pragma once

#include <memory>
#include <span>

#include "transport/senders.h"
#include "transport/transport.h"

namespace sluice::transport {

struct TransportKind {
    const Capabilities& capabilities;
    std::unique_ptr<Transport> (*make)(Senders& senders, const TransportOptions& options);
};

// Best first.
std::span<const TransportKind> transports();
const TransportKind* find_transport(std::string_view name);

}  // namespace sluice::transport
