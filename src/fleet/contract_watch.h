// SPDX-License-Identifier: Apache-2.0
// Finds out what contract one prefill speaks, and which data-parallel ranks it has in its present
// life.
//
// Between rounds a silent connection to the bootstrap server says at once when that has died
// (lifeline.h). A round is one GET /query of its bootstrap server, and where that is not answered
// (or there is none) one GET /version if the answer could decide. It writes `dialect` and `ranks`
// of the watched instance. Threads: the keeper's. Owns: the connections to the bootstrap server.
#pragma once

#include <optional>

#include "fleet/bootstrap.h"
#include "fleet/lifeline.h"
#include "fleet/probe.h"

namespace sluice::fleet {

class ContractWatch {
public:
    // Whether there is anything to find out.
    static bool wanted(const Instance& instance, KvConnector connector);

    // `instance` and `api` are the owner's. `changed`: the instance was written to. `asked`: a
    // round has ended.
    ContractWatch(KeeperContext& context, Instance& instance, http::UpstreamPool& api,
                  Delegate<void()> changed, Delegate<void()> asked);

    bool has_bootstrap() const { return !instance_.bootstrap_url.empty(); }
    void follow_address();
    // As soon as the round in progress, if any, has ended.
    void ask_now();
    // Whether it answers on its API. Only then its bootstrap server's silence means something.
    void set_alive(bool alive);

    void stop();
    bool finished() const { return bootstrap_pool_.open() == 0 && lifeline_.finished(); }

private:
    void begin_round();
    void on_query(const ProbeAnswer& answer);
    void take_reply(const BootstrapReply& reply);
    void unanswered(const std::string& why);
    void lifeline_broke();
    void ask_version();
    void on_version(const ProbeAnswer& answer);
    void on_life(const ProbeAnswer& answer);
    bool asking() const { return query_.active() || version_.active() || life_.active(); }
    void end_round(Duration next);
    void set_dialect(DialectKind dialect, std::string_view why);
    Duration retry_wait() const;

    KeeperContext& context_;
    Instance& instance_;
    http::UpstreamPool& api_pool_;
    Delegate<void()> changed_;
    Delegate<void()> asked_;
    std::string bootstrap_host_;  // "10.0.0.1:8998"
    std::uint16_t bootstrap_port_ = 0;
    http::UpstreamPool bootstrap_pool_;
    Lifeline lifeline_;
    Probe query_;
    Probe version_;
    Probe life_;
    Timer timer_;
    std::optional<std::uint64_t> last_reply_;      // fingerprint of the latest, to see two agree
    std::optional<std::uint64_t> complete_shape_;  // of the latest complete one
    std::uint32_t unanswered_ = 0;                 // rounds in a row
    std::uint32_t doubts_ = 0;                     // when the round in progress began
    bool lives_ = false;       // its API answered after its bootstrap server had not, this round
    bool a_new_life_ = false;  // not yet followed by the lifeline
    bool alive_ = false;
    bool ask_again_ = false;
    bool stopped_ = false;
    std::string told_;  // the complaint that was logged last
};

}  // namespace sluice::fleet
