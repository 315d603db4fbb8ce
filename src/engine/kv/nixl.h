// SPDX-License-Identifier: Apache-2.0
// NixlConnector (pull) of one data parallel rank: P's answer says where its blocks are, D reads
// them.
//
// P keeps the blocks until D has read them or the lease is over; a later read finds whatever the
// blocks hold by then. D has no check on that. The side channel's port is configured, not
// registered anywhere. Threads: one. Owns: the leases and the reads.
#pragma once

#include <memory>
#include <unordered_map>

#include "engine/context.h"
#include "engine/kv/connector.h"
#include "engine/kv/side_channel.h"

namespace sluice::engine {

class NixlConnector final : public KvConnector, private PullHandler, private PullEvents {
public:
    NixlConnector(const Context& context, KvHost& host, SideChannel& channel,
                  std::string engine_id);
    ~NixlConnector() override;

    // Listens where D will ask; port 0 is an ephemeral one.
    Result<io::Address> open(const io::Address& address);

    bool role_fits(const KvParams& params) const override;
    bool loads(const Sequence& sequence) const override;
    void start_load(Sequence& sequence) override;
    bool finished(Sequence& sequence, FinishReason reason) override;
    bool dropped(const KvParams& params, const std::string& request_id) override;
    const std::string& engine_id() const override { return engine_id_; }
    ConnectorCounts counts() const override;
    void stop() override;
    bool finished() const override { return true; }

private:
    struct Lease;
    struct Read;

    void on_pull(PullMessage message, std::unique_ptr<PullReplier> replier) override;
    void on_pull_response(std::uint64_t pull, const PullResponse& response) override;
    void start_read(const KvParams& params, std::uint64_t sequence, const std::string& request_id,
                    bool wants_blocks);
    void read_over(std::uint64_t pull, std::optional<std::uint64_t> content);
    void lease_over(const std::string& request, bool expired);
    void report_failures();

    Context context_;
    KvHost& host_;
    SideChannel& channel_;
    std::string engine_id_;
    std::string host_name_;
    io::Address address_;
    std::unordered_map<std::string, std::unique_ptr<Lease>> leases_;  // P, by its request id
    std::unordered_map<std::uint64_t, std::unique_ptr<Read>> reads_;  // D, by pull
    std::vector<std::unique_ptr<Lease>> ended_leases_;
    std::vector<std::unique_ptr<Read>> ended_reads_;
    std::vector<std::uint64_t> failed_;  // sequences whose load cannot even start
    io::Deferred report_;
};

}  // namespace sluice::engine
