// SPDX-License-Identifier: Apache-2.0
// The real proxy in a simulated world: random traffic, random faults, one seed each.
//
// Whatever the seed, for every request: the answer is right to the byte, or an error with an error
// body, or visibly broken; no transfer id is used twice; no client's KV parameters reach an engine;
// and in the end nothing is in flight and no slot, page or socket is left. SLUICE_SEEDS sets how
// many seeds run, SLUICE_SEED runs one.
#include <gtest/gtest.h>

#include <cstdlib>
#include <list>
#include <memory>

#include "io/sim/sim_world.h"
#include "pd/proxy.h"
#include "seeds.h"
#include "support/sim_client.h"
#include "support/sim_pd.h"

namespace sluice::test {
namespace {

using namespace std::chrono_literals;
using io::sim::Faults;
using io::sim::SimHost;
using io::sim::SimWorld;

std::shared_ptr<const fleet::FleetSnapshot> make_snapshot(int prefills, int decodes, bool nixl) {
    auto fleet = std::make_shared<fleet::FleetSnapshot>();
    const auto add = [&](std::vector<fleet::Instance>& to, fleet::Role role, int count, int net) {
        for (int i = 0; i < count; ++i) {
            fleet::Instance instance;
            instance.index = static_cast<std::uint32_t>(i);
            instance.role = role;
            const std::string host = "10.0." + std::to_string(net) + "." + std::to_string(i + 1);
            instance.host_header = host + ":8000";
            instance.url = "http://" + instance.host_header;
            instance.address = *io::Address::from_ip(host, 8000);
            instance.state = std::make_shared<fleet::InstanceState>();
            if (role == fleet::Role::Prefill) {
                instance.dialect = nixl ? fleet::DialectKind::Nixl : fleet::DialectKind::Mooncake;
                instance.bootstrap_url = "http://" + host + ":8998";
                if (!nixl)
                    instance.ranks = {{0,
                                       "engine-" + std::to_string(i),
                                       {{0, 0, *io::Address::from_ip(host, 41000)}}}};
            }
            to.push_back(std::move(instance));
        }
    };
    add(fleet->prefill, fleet::Role::Prefill, prefills, 1);
    add(fleet->decode, fleet::Role::Decode, decodes, 2);
    return fleet;
}

struct Scenario {
    Faults faults;
    Misbehaviour prefill;
    Misbehaviour decode;
    ClientManners manners;
    int clients = 4;
    int requests = 6;
};

Misbehaviour some_misbehaviour() {
    Misbehaviour bad;
    bad.hang = 0.01;
    bad.refuse_4xx = 0.03;
    bad.back_pressure = 0.03;
    bad.fail_5xx = 0.05;
    bad.close_early = 0.03;
    bad.close_mid_head = 0.02;
    bad.close_mid_body = 0.03;
    bad.garbage = 0.02;
    bad.answer_twice = 0.02;
    bad.error_event = 0.05;
    bad.no_content = 0.02;
    return bad;
}

Scenario scenario_of(std::uint64_t seed) {
    Rng dice(seed ^ 0x5ce);
    Scenario scenario;
    if (dice.chance(0.6)) scenario.faults = Faults::stormy();
    if (dice.chance(0.7)) scenario.prefill = some_misbehaviour();
    if (dice.chance(0.7)) scenario.decode = some_misbehaviour();
    if (dice.chance(0.7)) scenario.manners.leave = 0.2;
    scenario.manners.bad_request = 0.05;
    if (dice.chance(0.5)) scenario.manners.slow_reader = 0.2;
    if (dice.chance(0.2)) scenario.manners.filler_max = 100'000;
    scenario.clients = static_cast<int>(dice.between(1, 8));
    return scenario;
}

class PdWorld {
public:
    explicit PdWorld(std::uint64_t seed)
        : scenario_(scenario_of(seed)),
          rng_(seed),
          world_({.seed = seed, .faults = scenario_.faults, .trace_events = 100000}) {
        const bool nixl = rng_.chance(0.4);
        const int prefills = static_cast<int>(rng_.between(1, 3));
        const int decodes = static_cast<int>(rng_.between(1, 3));
        fleet_ = std::make_unique<fleet::Fleet>(make_snapshot(prefills, decodes, nixl));
        options_.retries = static_cast<std::uint32_t>(rng_.below(4));
        options_.decode_fallback = rng_.chance(0.3);
        options_.prefill_timeout = 5s;
        options_.first_token_timeout = 5s;
        options_.idle_timeout = 5s;
        options_.request_timeout = 30s;
        options_.in_flight_max = rng_.chance(0.3) ? 2 : 100;
        options_.queue_max = 4;
        options_.prefill_policy = options_.decode_policy =
            static_cast<fleet::PolicyKind>(rng_.below(3));
        options_.relay.enabled = !nixl && rng_.chance(0.75);
        options_.relay.listen = *io::Address::from_ip("10.0.0.1", 8998);
        options_.relay.early = static_cast<std::uint32_t>(rng_.below(4) * 3);
        relayed_ = options_.relay.enabled;
        shared_ = std::make_unique<pd::Shared>(options_, *fleet_);

        for (int i = 0; i < prefills; ++i) {
            Host& host = add_host("prefill");
            prefills_.push_back(std::make_unique<SimPrefill>(
                *host.loop, ledger_, rng_, scenario_.prefill, "engine-" + std::to_string(i), nixl));
            prefills_.back()->peer().listen(
                fleet_->load()->prefill[static_cast<std::size_t>(i)].address);
            const std::string ip = "10.0.1." + std::to_string(i + 1);
            if (!nixl)
                prefills_.back()->sender().listen(*io::Address::from_ip(ip, 41000),
                                                  *io::Address::from_ip(ip, 8998));
        }
        for (int i = 0; i < decodes; ++i) {
            Host& host = add_host("decode");
            decodes_.push_back(
                std::make_unique<SimDecode>(*host.loop, ledger_, rng_, scenario_.decode, i));
            decodes_.back()->peer().listen(
                fleet_->load()->decode[static_cast<std::size_t>(i)].address);
        }
        for (std::size_t i = 0; i < prefills_.size() && !nixl; ++i)
            if (rng_.chance(0.3)) restart_later(i);
        Host& proxy_host = add_host("proxy");
        proxy_ = std::make_unique<pd::Proxy>(*proxy_host.loop, *shared_, seed);
        shared_->metrics.push_back(&proxy_->metrics());
        proxy_host.loop->on_quiescent(Delegate<void()>::to<&pd::Proxy::between_turns>(*proxy_));
        const io::Address front = *io::Address::from_ip("10.0.0.1", 80);
        proxy_->add_listener(*proxy_host.host->io().listen(front, false));
        Host& client_host = add_host("clients");
        for (int i = 0; i < scenario_.clients; ++i) {
            clients_.push_back(std::make_unique<SimClient>(
                *client_host.loop, front, rng_, scenario_.manners, tally_,
                static_cast<std::uint64_t>(i) * 1000, scenario_.requests));
            clients_.back()->start();
        }
    }

    void run() {
        ASSERT_TRUE(world_.run_until([&] {
            for (const auto& client : clients_)
                if (!client->done()) return false;
            return true;
        })) << "some request never ended:\n"
            << unfinished();
        check_hand_overs();
        proxy_->shut_down();
        for (auto& prefill : prefills_) prefill->stop();
        for (auto& decode : decodes_) decode->stop();
        ASSERT_TRUE(world_.run_until([&] { return all_finished(); }))
            << "something is still in flight";
        for (const auto& snapshot_role : {fleet_->load()->prefill, fleet_->load()->decode})
            for (const auto& instance : snapshot_role) {
                EXPECT_EQ(instance.state->in_flight.load(), 0) << instance.url;
                EXPECT_EQ(instance.state->pending_bytes.load(), 0) << instance.url;
            }
        EXPECT_EQ(shared_->admission.in_flight(), 0);
        EXPECT_EQ(shared_->admission.queued(), 0);
        for (const std::string& violation : ledger_.violations) ADD_FAILURE() << violation;
        for (const std::string& violation : tally_.violations) ADD_FAILURE() << violation;
        EXPECT_EQ(tally_.right + tally_.refused + tally_.broken + tally_.left, tally_.asked);
        if (calm()) {
            EXPECT_EQ(tally_.broken, 0u);
        }
        clients_.clear();
        proxy_.reset();
        prefills_.clear();
        decodes_.clear();
        for (auto& host : hosts_) {
            host.host->detach();
            host.loop.reset();
        }
        world_.check_clean();
    }

    const ClientTally& tally() const { return tally_; }
    const KvLedger& kv() const { return ledger_.kv; }
    const relay::RelayMetrics* relay() const {
        return shared_->relay == nullptr ? nullptr : &relayed_counts_;
    }

private:
    struct Host {
        SimHost* host;
        std::unique_ptr<io::Loop> loop;
    };

    Host& add_host(std::string_view name) {
        SimHost& host = world_.add_host(name);
        hosts_.push_back({&host, std::make_unique<io::Loop>(host.io())});
        host.attach(*hosts_.back().loop);
        return hosts_.back();
    }

    std::string unfinished() const {
        std::string out;
        for (const auto& client : clients_)
            if (!client->done()) out += client->describe() + "\n";
        const pd::WorkerMetrics& m = proxy_->metrics();
        out += "proxy: exchanges " + std::to_string(m.exchanges.value()) + ", legs " +
               std::to_string(m.legs.value()) + ", clients " +
               std::to_string(m.client_connections.value()) + ", operations " +
               std::to_string(m.operations.value()) + ", buffers " +
               std::to_string(m.buffers.value()) + "\n";
        return out;
    }

    bool calm() const {
        return scenario_.faults.reset == 0 && scenario_.decode.close_mid_body == 0 &&
               scenario_.prefill.hang == 0;
    }

    bool all_finished() const {
        if (!proxy_->finished()) return false;
        for (const auto& prefill : prefills_)
            if (!prefill->finished()) return false;
        for (const auto& decode : decodes_)
            if (!decode->finished()) return false;
        return true;
    }

    // Every pull ended once; what the relay was asked it has answered.
    void check_hand_overs() {
        const auto pending = [&] {
            if (shared_->relay != nullptr) {
                for (const auto& early : shared_->relay->early)
                    if (early.load() != 0) return true;
                // A pull whose decode was told that it failed ends when its prefill has answered.
                const relay::RelayMetrics& counts = *shared_->relay->metrics()[0];
                if (counts.handed_on.value() > counts.completed.value() + counts.failed.value())
                    return true;
            }
            for (const auto& decode : decodes_)
                if (!decode->quiet()) return true;
            return false;
        };
        ASSERT_TRUE(world_.run_until([&] { return !pending(); })) << "a pull never ended";
        const KvLedger& kv = ledger_.kv;
        EXPECT_EQ(kv.ok + kv.failed + kv.lost + kv.given_up, kv.pulls);
        if (shared_->relay != nullptr) {
            const relay::RelayMetrics& counts = *shared_->relay->metrics()[0];
            relayed_counts_.handed_on.set(counts.handed_on.value());
            relayed_counts_.handed_early.set(counts.handed_early.value());
            relayed_counts_.refused.set(counts.refused.value());
            relayed_counts_.stale.set(counts.stale.value());
            relayed_counts_.released.set(counts.released.value());
            relayed_counts_.way_blocked.set(counts.way_blocked.value());
        }
        for (const std::string& violation : kv.violations) ADD_FAILURE() << violation;
    }

    // A prefill begins a new life, and the keeper has seen it some time later.
    void restart_later(std::size_t i) {
        world_.after(std::chrono::milliseconds(rng_.below(200)), [this, i] {
            const std::string id =
                "engine-" + std::to_string(i) + "-life" + std::to_string(++lives_);
            prefills_[i]->sender().restart(id);
            world_.after(std::chrono::milliseconds(rng_.below(300)), [this, i, id] {
                auto next = std::make_shared<fleet::FleetSnapshot>(*fleet_->load());
                next->prefill[i].ranks[0].engine_id = id;
                fleet_->publish(std::move(next));
            });
        });
    }

    Scenario scenario_;
    Rng rng_;
    SimWorld world_;
    std::list<Host> hosts_;
    Ledger ledger_;
    ClientTally tally_;
    pd::ProxyOptions options_;
    std::unique_ptr<fleet::Fleet> fleet_;
    std::unique_ptr<pd::Shared> shared_;
    bool relayed_ = false;
    relay::RelayMetrics relayed_counts_;  // as they were when all had ended
    int lives_ = 0;
    std::vector<std::unique_ptr<SimPrefill>> prefills_;
    std::vector<std::unique_ptr<SimDecode>> decodes_;
    std::unique_ptr<pd::Proxy> proxy_;
    std::vector<std::unique_ptr<SimClient>> clients_;
};

#ifdef SLUICE_SLOW_BUILD
constexpr std::uint64_t kSeeds = 1'000;
#else
constexpr std::uint64_t kSeeds = 10'000;
#endif

TEST(ProxySimulation, EveryRequestEndsOnceAndNothingIsLeft) {
    const std::uint64_t only = number_from_environment("SLUICE_SEED", 0);
    const std::uint64_t seeds = only != 0 ? only : number_from_environment("SLUICE_SEEDS", kSeeds);
    ClientTally all;
    KvLedger kv;
    relay::RelayMetrics relayed;
    for (std::uint64_t seed = only != 0 ? only : 1; seed <= seeds; ++seed) {
        PdWorld world(seed);
        world.run();
        all.asked += world.tally().asked;
        all.right += world.tally().right;
        all.refused += world.tally().refused;
        all.broken += world.tally().broken;
        all.left += world.tally().left;
        kv.pulls += world.kv().pulls;
        kv.ok += world.kv().ok;
        kv.failed += world.kv().failed;
        kv.lost += world.kv().lost;
        kv.given_up += world.kv().given_up;
        kv.unknown += world.kv().unknown;
        if (const relay::RelayMetrics* counts = world.relay()) {
            relayed.handed_on.add(counts->handed_on.value());
            relayed.handed_early.add(counts->handed_early.value());
            relayed.refused.add(counts->refused.value());
            relayed.stale.add(counts->stale.value());
            relayed.released.add(counts->released.value());
            relayed.way_blocked.add(counts->way_blocked.value());
        }
        if (HasFailure())
            FAIL()
                << "reproduce with: SLUICE_SEED=" << seed
                << " sim_tests --gtest_filter=ProxySimulation.EveryRequestEndsOnceAndNothingIsLeft";
    }
    std::printf(
        "%llu requests: %llu right, %llu refused, %llu broken, %llu left by the client\n",
        static_cast<unsigned long long>(all.asked), static_cast<unsigned long long>(all.right),
        static_cast<unsigned long long>(all.refused), static_cast<unsigned long long>(all.broken),
        static_cast<unsigned long long>(all.left));
    const auto number = [](std::uint64_t value) { return static_cast<unsigned long long>(value); };
    std::printf(
        "%llu pulls: %llu ok, %llu failed, %llu lost their connection, %llu given up; %llu for an "
        "id "
        "that the prefill never had\n",
        number(kv.pulls), number(kv.ok), number(kv.failed), number(kv.lost), number(kv.given_up),
        number(kv.unknown));
    std::printf(
        "relay: %llu handed on, %llu of them early; %llu refused, %llu stale, %llu released, %llu "
        "ways blocked\n",
        number(relayed.handed_on.value()), number(relayed.handed_early.value()),
        number(relayed.refused.value()), number(relayed.stale.value()),
        number(relayed.released.value()), number(relayed.way_blocked.value()));
    if (only == 0) {
        EXPECT_GT(relayed.handed_on.value(), 0u);
        EXPECT_GT(relayed.handed_early.value(), 0u);
        EXPECT_GT(relayed.refused.value(), 0u);
        EXPECT_GT(relayed.stale.value(), 0u);
        EXPECT_GT(relayed.released.value(), 0u);
        EXPECT_GT(relayed.way_blocked.value(), 0u);
    }
    EXPECT_GT(all.right, 0u);
    EXPECT_GT(all.refused + all.broken + all.left, 0u);
}

}  // namespace
}  // namespace sluice::test
