// SPDX-License-Identifier: Apache-2.0
#include "transport/table.h"

#include "transport/mooncake/mooncake_transport.h"
#include "transport/shm/shm_transport.h"
#include "transport/tcp/tcp_transport.h"

namespace sluice::transport {
namespace {

template <class T>
std::unique_ptr<Transport> make(Senders& senders, const TransportOptions& options) {
    return std::make_unique<T>(senders, options);
}

const TransportKind kTransports[] = {
    {ShmTransport::kCapabilities, make<ShmTransport>},
    {TcpTransport::kCapabilities, make<TcpTransport>},
    {MooncakeTransport::kCapabilities, make<MooncakeTransport>},
};

}  // namespace

std::span<const TransportKind> transports() { return kTransports; }

const TransportKind* find_transport(std::string_view name) {
    for (const TransportKind& kind : kTransports)
        if (kind.capabilities.name == name) return &kind;
    return nullptr;
}

}  // namespace sluice::transport
