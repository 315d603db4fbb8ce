// SPDX-License-Identifier: Apache-2.0
// Watches one instance: its address, its health, its models and, of a prefill, its contract.
//
// It keeps its own copy of the Instance and writes to it what it learns; the keeper puts that into
// the next snapshot.
// Threads: the keeper's. Owns: the probes and their connections.
#pragma once

#include <optional>
#include <vector>

#include "fleet/contract_watch.h"
#include "fleet/models.h"
#include "fleet/url.h"

namespace sluice::fleet {

class InstanceWatch {
public:
    // `changed`: instance(), models() or whether it is usable has changed.
    InstanceWatch(KeeperContext& context, const Instance& first, Delegate<void()> changed);

    void start();
    void stop();
    bool finished() const { return api_pool_.open() == 0 && (!contract_ || contract_->finished()); }

    const Instance& instance() const { return instance_; }
    const ModelList& models() const { return models_; }

    // Now and then: what the workers want of it.
    void poll();

    // -- names
    bool is_name() const { return endpoint_.is_name(); }
    const Endpoint& endpoint() const { return endpoint_; }
    // Whether to ask the resolver now; then it counts as asked.
    bool take_name_due();
    void take_name_answer(const Resolver::Answer& answer);

private:
    void probe_health();
    void on_health(const ProbeAnswer& answer);
    void succeeded();
    void failed(const ProbeAnswer& answer);
    void readmit();
    void contract_asked();
    void ask_models();
    void on_models(const ProbeAnswer& answer);
    void move_to(const io::Address& address);
    void try_other_address();

    KeeperContext& context_;
    Instance instance_;
    Delegate<void()> changed_;
    Endpoint endpoint_;
    http::UpstreamPool api_pool_;
    std::optional<ContractWatch> contract_;
    Probe health_;
    Probe models_probe_;
    Timer health_timer_;
    Timer models_timer_;

    ModelList models_;
    std::vector<io::Address> addresses_;  // of the name
    Instant resolve_at_{};
    std::uint32_t failures_ = 0;  // of health probes, in a row
    bool alive_ = false;          // the latest probe succeeded
    bool readmitting_ = false;    // alive again, and its bootstrap server is being asked
    bool stopped_ = false;
    bool told_unresolved_ = false;
    std::string told_models_;  // the complaint that was logged last
};

}  // namespace sluice::fleet
