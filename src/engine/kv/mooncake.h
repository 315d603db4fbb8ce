// SPDX-License-Identifier: Apache-2.0
// MooncakeConnector of one data parallel rank: a sender for each P worker, and a receiver for D.
// Threads: one. Owns: both.
#pragma once

#include <map>
#include <memory>

#include "engine/kv/mooncake_receiver.h"
#include "engine/kv/mooncake_sender.h"

namespace sluice::engine {

class MooncakeConnector final : public KvConnector, public SenderOwner {
public:
    MooncakeConnector(const Context& context, KvHost& host, http::Calls& calls,
                      SideChannel& channel, std::string engine_id);

    // Opens the workers' side channels on `address`'s host. The workers' addresses, by tp rank.
    Result<std::vector<io::Address>> open(const io::Address& address);

    bool role_fits(const KvParams& params) const override;
    bool loads(const Sequence& sequence) const override;
    void start_load(Sequence& sequence) override;
    bool load_abandoned(Sequence& sequence) override;
    void allocated(Sequence& sequence) override;
    bool finished(Sequence& sequence, FinishReason reason) override;
    bool dropped(const KvParams& params, const std::string& request_id) override;
    const std::string& engine_id() const override { return engine_id_; }
    ConnectorCounts counts() const override;
    void stop() override;
    bool finished() const override { return true; }

private:
    struct Held {
        std::vector<BlockId> blocks;
        std::uint32_t workers_left = 0;
    };

    void on_sender_done(std::uint64_t p_request) override;
    std::uint64_t content_of(BlockId block) const override { return host_.content_of(block); }
    std::string transfer_of(const Sequence& sequence) const;
    bool names_peer(const KvParams& params) const;
    PullRequest pull_request(const KvParams& params, const std::string& request_id,
                             std::uint32_t blocks) const;

    Context context_;
    KvHost& host_;
    SideChannel& channel_;
    std::string engine_id_;
    std::vector<io::Address> addresses_;
    std::vector<std::unique_ptr<MooncakeSender>> senders_;
    MooncakeReceiver receiver_;
    std::unordered_map<std::uint64_t, Held> held_;  // by P's sequence number
};

}  // namespace sluice::engine
