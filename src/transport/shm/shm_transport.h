// SPDX-License-Identifier: Apache-2.0
// Shared memory between processes of one host. See shm_lane.h.
#pragma once

#include "transport/shm/shm_lane.h"
#include "transport/stream/stream_transport.h"

namespace sluice::transport {

class ShmTransport final : public StreamTransport {
public:
    ShmTransport(Senders& senders, const TransportOptions& options);
    ~ShmTransport() override;

    static const Capabilities kCapabilities;
    const Capabilities& capabilities() const override { return kCapabilities; }

    Result<RegionId> register_memory(const Region& region) override;
    Result<void> deregister_memory(RegionId region) override;
    // Unsupported for memory that is not backed by a descriptor.
    Result<PostId> post(PeerId peer, const Ticket& ticket, const Batch& batch,
                        const PostOptions& options) override;
    using StreamTransport::revoke;

private:
    Result<int> make_listener(const Endpoint& endpoint, Endpoint& announced) override;
    Result<int> start_connect(const Endpoint& endpoint) override;
    void prepare_accepted(int) override {}
    std::unique_ptr<StreamLane> make_lane(const LaneSetup& setup) override;
    Result<void> check_region(const Region& region) override;
    void open_cell(const Post& post, std::uint32_t cell) override;
    void close_cell(std::uint32_t cell) override;

    ShmShared shared_;
    Result<void> created_;
    Endpoint path_;
};

}  // namespace sluice::transport
