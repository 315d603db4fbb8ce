// SPDX-License-Identifier: Apache-2.0
// Prefills that die and are back before anybody can have probed them, under load, with the real
// keeper and the real proxy.
//
// Whatever the seed: no decode is told an engine id of a former life of its prefill (it would wait
// for a dead port until a deadline), every request ends, and nothing is left.
#include <gtest/gtest.h>

#include <list>
#include <memory>

#include "fleet/keeper.h"
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

constexpr std::uint16_t kApiPort = 8000;
constexpr std::uint16_t kBootstrapPort = 8998;
constexpr std::uint16_t kWorkerPort = 41000;

// Addresses are numbers here.
class NoResolver final : public fleet::Resolver {
public:
    void ask(std::string, std::uint16_t) override {}
    std::vector<Answer> take_answers() override { return {}; }
};

// A prefill machine: one life after another, each with engine ids of its own.
class Machine {
public:
    Machine(SimWorld& world, io::Loop& loop, Ledger& ledger, Rng& rng, const Misbehaviour& bad,
            std::string host)
        : world_(world),
          loop_(loop),
          ledger_(ledger),
          rng_(rng),
          bad_(bad),
          host_(std::move(host)) {
        begin_life();
    }

    void die_now_and_then(int times, Duration between_max) {
        // Long enough to be asked who it is now, far too short for a probe.
        const auto span = static_cast<std::uint64_t>(between_max.count());
        world_.after(Duration(static_cast<std::int64_t>(span / 4 + rng_.below(span))),
                     [this, times, between_max] {
                         if (!prefill_ || times == 0) return;
                         end_life();
                         come_back();
                         die_now_and_then(times - 1, between_max);
                     });
    }
    void stop() {
        stopped_ = true;
        end_life();
    }
    bool finished() {
        std::erase_if(former_, [](const auto& life) {
            return life->prefill.finished();
        });
        return former_.empty() && prefill_ == nullptr;
    }
    int lives() const { return lives_; }

private:
    struct Life {
        Life(Machine& machine, const std::string& engine_id)
            : prefill(machine.loop_, machine.ledger_, machine.rng_, machine.bad_, engine_id,
                      false) {}
        SimPrefill prefill;
    };

    void begin_life() {
        prefill_ = std::make_unique<Life>(*this, host_ + "-life-" + std::to_string(++lives_));
        // As in vLLM, which registers its workers before its API listens. Sometimes they come
        // close.
        prefill_->prefill.sender().listen(*io::Address::from_ip(host_, kWorkerPort),
                                          *io::Address::from_ip(host_, kBootstrapPort));
        const auto listen = [this, life = lives_] {
            if (prefill_ && lives_ == life)
                prefill_->prefill.peer().listen(*io::Address::from_ip(host_, kApiPort));
        };
        if (rng_.chance(0.5)) return listen();
        world_.after(std::chrono::microseconds(rng_.below(5000)), listen);
    }
    void end_life() {
        if (!prefill_) return;
        prefill_->prefill.stop();
        former_.push_back(std::move(prefill_));
    }
    // A process takes milliseconds to start at the very least; a segment takes 200 us to arrive.
    void come_back() {
        world_.after(std::chrono::microseconds(2000 + rng_.below(20000)), [this] {
            if (stopped_) return;
            if (!finished() && !former_.empty()) return come_back();
            if (!prefill_) begin_life();
        });
    }

    SimWorld& world_;
    io::Loop& loop_;
    Ledger& ledger_;
    Rng& rng_;
    const Misbehaviour& bad_;
    const std::string host_;
    std::unique_ptr<Life> prefill_;
    std::list<std::unique_ptr<Life>> former_;
    int lives_ = 0;
    bool stopped_ = false;
};

class RestartWorld {
public:
    explicit RestartWorld(std::uint64_t seed, const Faults& faults)
        : rng_(seed), world_({.seed = seed, .faults = faults, .trace_events = 100000}) {
        const int prefills = static_cast<int>(rng_.between(1, 2));
        for (int i = 0; i < prefills; ++i) {
            const std::string host = "10.0.1." + std::to_string(i + 1);
            machines_.push_back(std::make_unique<Machine>(world_, *add_host("prefill").loop,
                                                          ledger_, rng_, none_, host));
            options_.prefill.push_back({"http://" + host + ":8000", kBootstrapPort});
        }
        decode_ = std::make_unique<SimDecode>(*add_host("decode").loop, ledger_, rng_, none_, 0);
        decode_->peer().listen(*io::Address::from_ip("10.0.2.1", kApiPort));
        options_.decode.push_back({"http://10.0.2.1:8000", 0});
        // Probes that are of no help.
        options_.keeper.health_interval = 1h;
        options_.keeper.bootstrap_refresh = 1h;
        options_.keeper.connector = fleet::KvConnector::Mooncake;
        options_.prefill_timeout = options_.first_token_timeout = options_.idle_timeout = 5s;
        options_.request_timeout = 30s;
        options_.retries = 3;
        const auto first =
            fleet::make_fleet(options_.prefill, options_.decode, options_.keeper.connector);
        fleet_ = std::make_unique<fleet::Fleet>(*first);
        shared_ = std::make_unique<pd::Shared>(options_, *fleet_);

        Host& proxy_host = add_host("proxy");
        proxy_ = std::make_unique<pd::Proxy>(*proxy_host.loop, *shared_, seed);
        shared_->metrics.push_back(&proxy_->metrics());
        proxy_host.loop->on_quiescent(Delegate<void()>::to<&pd::Proxy::between_turns>(*proxy_));
        keeper_ =
            std::make_unique<fleet::Keeper>(*proxy_host.loop, *fleet_, resolver_, options_.keeper);
        keeper_->start();
        const io::Address front = *io::Address::from_ip("10.0.0.1", 80);
        proxy_->add_listener(*proxy_host.host->io().listen(front, false));
        Host& client_host = add_host("clients");
        for (int i = 0; i < 4; ++i)
            clients_.push_back(
                std::make_unique<SimClient>(*client_host.loop, front, rng_, manners_, tally_,
                                            static_cast<std::uint64_t>(i) * 1000, 60));
    }

    void run() {
        ASSERT_TRUE(world_.run_until([&] {
            for (const fleet::Instance& prefill : fleet_->load()->prefill)
                if (prefill.ranks.empty()) return false;
            return true;
        }));
        world_.run_for(10ms);
        for (const auto& client : clients_) client->start();
        for (const auto& machine : machines_) machine->die_now_and_then(6, 400ms);
        ASSERT_TRUE(world_.run_until([&] {
            for (const auto& client : clients_)
                if (!client->done()) return false;
            return true;
        })) << "some request never ended";
        proxy_->shut_down();
        keeper_->stop();
        for (const auto& machine : machines_) machine->stop();
        decode_->stop();
        ASSERT_TRUE(world_.run_until([&] {
            for (const auto& machine : machines_)
                if (!machine->finished()) return false;
            return proxy_->finished() && keeper_->finished() && decode_->finished();
        })) << "something is still in flight";
        world_.run_for(1s);
        for (const std::string& violation : ledger_.violations) ADD_FAILURE() << violation;
        for (const std::string& violation : tally_.violations) ADD_FAILURE() << violation;
        EXPECT_EQ(tally_.right + tally_.refused + tally_.broken + tally_.left, tally_.asked);
        clients_.clear();
        keeper_.reset();
        proxy_.reset();
        for (const auto& machine : machines_) restarts_ += machine->lives() - 1;
        machines_.clear();
        decode_.reset();
        for (auto& host : hosts_) {
            host.host->detach();
            host.loop.reset();
        }
        world_.check_clean();
    }

    const ClientTally& tally() const { return tally_; }
    int former_lives() const { return ledger_.former_lives; }
    int restarts() const { return restarts_; }

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

    Rng rng_;
    SimWorld world_;
    std::list<Host> hosts_;
    Misbehaviour none_;
    ClientManners manners_;
    Ledger ledger_;
    ClientTally tally_;
    NoResolver resolver_;
    pd::ProxyOptions options_;
    std::unique_ptr<fleet::Fleet> fleet_;
    std::unique_ptr<pd::Shared> shared_;
    std::vector<std::unique_ptr<Machine>> machines_;
    std::unique_ptr<SimDecode> decode_;
    std::unique_ptr<pd::Proxy> proxy_;
    std::unique_ptr<fleet::Keeper> keeper_;
    std::vector<std::unique_ptr<SimClient>> clients_;
    int restarts_ = 0;
};

#ifdef SLUICE_SLOW_BUILD
constexpr std::uint64_t kSeeds = 30;
#else
constexpr std::uint64_t kSeeds = 300;
#endif

struct Sum {
    ClientTally tally;
    int former_lives = 0;
    int restarts = 0;
};

Sum run_seeds(const char* test, const Faults& faults) {
    const std::uint64_t only = number_from_environment("SLUICE_SEED", 0);
    const std::uint64_t seeds = only != 0 ? only : number_from_environment("SLUICE_SEEDS", kSeeds);
    Sum sum;
    for (std::uint64_t seed = only != 0 ? only : 1; seed <= seeds; ++seed) {
        RestartWorld world(seed, faults);
        world.run();
        sum.tally.asked += world.tally().asked;
        sum.tally.right += world.tally().right;
        sum.tally.refused += world.tally().refused;
        sum.tally.broken += world.tally().broken;
        sum.former_lives += world.former_lives();
        sum.restarts += world.restarts();
        if (testing::Test::HasFailure()) {
            ADD_FAILURE() << "reproduce with: SLUICE_SEED=" << seed
                          << " sim_tests --gtest_filter=RestartSimulation." << test;
            break;
        }
    }
    std::printf(
        "%d restarts under %llu requests: %llu right, %llu refused, %llu broken; %d decodes "
        "were told a former life\n",
        sum.restarts, static_cast<unsigned long long>(sum.tally.asked),
        static_cast<unsigned long long>(sum.tally.right),
        static_cast<unsigned long long>(sum.tally.refused),
        static_cast<unsigned long long>(sum.tally.broken), sum.former_lives);
    return sum;
}

// A decode that is told while the end of the old life is still on its way to the proxy cannot be
// helped: it is tried again when that arrives.
TEST(RestartSimulation, HardlyADecodeIsToldAFormerLife) {
    Faults faults;
    faults.split_read = 0.3;
    faults.short_send = 0.2;
    faults.reorder = 0.3;
    const Sum sum = run_seeds("HardlyADecodeIsToldAFormerLife", faults);
    EXPECT_LE(sum.former_lives * 1000, sum.restarts);
    EXPECT_GT(sum.restarts, 0);
    EXPECT_GT(sum.tally.right, sum.tally.asked / 2);
}

// Where the end of a connection may reach the proxy later than the next life's first answer,
// nothing can be promised but that every request ends.
TEST(RestartSimulation, EveryRequestEndsInAStormToo) {
    const Sum sum = run_seeds("EveryRequestEndsInAStormToo", Faults::stormy());
    EXPECT_GT(sum.restarts, 0);
    EXPECT_GT(sum.tally.right, sum.tally.asked / 2);
}

}  // namespace
}  // namespace sluice::test
