// SPDX-License-Identifier: Apache-2.0
// One life of an engine: its ranks with their schedulers and KV connectors, their side channels,
// and the bootstrap server. A restart makes a new one, with new engine ids and nothing remembered.
//
// Threads: one. Owns: all of that. Errors: start() says which listener could not be opened.
#pragma once

#include <memory>
#include <vector>

#include "http/calls.h"
#include "kv/registration.h"
#include "engine/kv/zmq_side_channel.h"
#include "engine/scheduler.h"

namespace sluice::engine {

class Core {
public:
    explicit Core(const Context& context);
    ~Core();

    // `bootstrap_port` of 0 is an ephemeral one.
    Result<void> start(std::uint16_t bootstrap_port);
    // Every worker is registered: vLLM opens its API then.
    bool registered() const { return registered_ == registrations_.size(); }

    void stop();
    bool finished() const;

    Scheduler& scheduler(std::size_t rank) { return *ranks_[rank].scheduler; }
    std::size_t ranks() const { return ranks_.size(); }
    // For /sim/state: how many generations each rank was asked for.
    void note_generation(std::uint32_t rank) { ++ranks_[rank].generations; }
    std::uint64_t generations(std::size_t rank) const { return ranks_[rank].generations; }
    // The rank with the fewest sequences.
    Scheduler& least_busy();
    void fail_all();

    std::string engine_id(std::size_t rank) const;
    const io::Address& bootstrap_address() const { return bootstrap_address_; }
    SchedulerCounts scheduler_counts() const;
    ConnectorCounts connector_counts() const;

private:
    struct Rank {
        std::unique_ptr<Scheduler> scheduler;
        std::unique_ptr<KvConnector> connector;
        std::uint64_t generations = 0;
    };

    Result<void> open_mooncake(Scheduler& scheduler, std::uint32_t rank,
                               const std::string& engine_id);
    Result<void> open_nixl(Scheduler& scheduler, std::uint32_t rank, const std::string& engine_id);
    Result<void> open_bootstrap(std::uint16_t port);
    void register_next();
    void register_outside();
    void on_registration_timer();
    bool produces() const { return context_.options.kv.role != KvRole::Consumer; }

    Context context_;
    http::Calls calls_;
    ZmqSideChannel channel_;
    std::unique_ptr<kv::BootstrapServer> bootstrap_;
    io::Address bootstrap_address_;
    std::vector<Rank> ranks_;
    std::vector<kv::WorkerRegistration> registrations_;
    std::size_t registered_ = 0;
    kv::Registrar registrar_;
    Timer registration_timer_;
};

// "127.0.0.1" of "127.0.0.1:8000"; without brackets.
std::string host_of(const io::Address& address);
// How others reach this host.
std::string reachable_host(const EngineOptions& options);

}  // namespace sluice::engine
