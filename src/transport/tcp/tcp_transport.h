// SPDX-License-Identifier: Apache-2.0
// TCP: frames pushed by the sender's threads, placed by the receiver's. See stream/.
#pragma once

#include "transport/stream/stream_transport.h"

namespace sluice::transport {

class TcpTransport final : public StreamTransport {
public:
    TcpTransport(Senders& senders, const TransportOptions& options)
        : StreamTransport(senders, options) {}
    ~TcpTransport() override { shut_down(); }

    static const Capabilities kCapabilities;
    const Capabilities& capabilities() const override { return kCapabilities; }

private:
    Result<int> make_listener(const Endpoint& endpoint, Endpoint& announced) override;
    Result<int> start_connect(const Endpoint& endpoint) override;
    void prepare_accepted(int fd) override;
};

}  // namespace sluice::transport
