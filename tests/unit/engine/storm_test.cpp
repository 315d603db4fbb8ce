// SPDX-License-Identifier: Apache-2.0
// A pair of engines on a bad network, with faults of their own and rude clients: nothing may be
// left behind.
#include <sstream>

#include "bench.h"

namespace sluice::engine::test {
namespace {

using io::sim::Faults;
using io::sim::SimHost;
using io::sim::SimWorld;

constexpr FaultKind kKinds[] = {
    FaultKind::Status,        FaultKind::Hang,        FaultKind::HangAfterHeaders,
    FaultKind::DieMidStream,  FaultKind::Garbage,     FaultKind::ErrorEvent,
    FaultKind::StopMidStream, FaultKind::EosFirst,    FaultKind::PullFail,
    FaultKind::GarbageBody,   FaultKind::EarlyAnswer, FaultKind::CloseBeforeAnswer,
    FaultKind::Restart,       FaultKind::Refuse,      FaultKind::SlowFirstToken,
};

struct Storm {
    Storm(std::uint64_t seed, ConnectorKind connector)
        : world({.seed = seed}),
          engines_host(world.add_host("engines")),
          clients_host(world.add_host("clients")),
          loop(engines_host.io()),
          clients(clients_host.io()) {
        engines_host.attach(loop);
        clients_host.attach(clients);
        EngineOptions options;
        options.listen = *io::Address::from_ip("10.0.0.1", 0);
        options.kv.connector = connector;
        options.kv.bootstrap_port = options.kv.nixl_port = 0;
        options.kv.abort_request_timeout = 8s;
        options.seed = seed;
        options.timing.output_tokens = 30;
        options.kv.role = connector == ConnectorKind::Mooncake ? KvRole::Producer : KvRole::Both;
        p = std::make_unique<Engine>(loop, options);
        options.kv.role = connector == ConnectorKind::Mooncake ? KvRole::Consumer : KvRole::Both;
        options.seed = seed + 1;
        d = std::make_unique<Engine>(loop, options);
        EXPECT_TRUE(p->start().has_value());
        EXPECT_TRUE(d->start().has_value());
        p_pool =
            std::make_unique<http::UpstreamPool>(clients, p->address(), http::UpstreamOptions{});
        d_pool =
            std::make_unique<http::UpstreamPool>(clients, d->address(), http::UpstreamOptions{});
    }

    Ask& ask(http::UpstreamPool& pool, const Json& body) {
        asks.push_back(std::make_unique<Ask>(clients, pool));
        asks.back()->start("POST", "/v1/chat/completions", body.dump());
        return *asks.back();
    }

    // A request to P, to D, or one to each that belong together; some leave soon.
    void ask_something(int number) {
        Rng& rng = world.rng();
        Json body;
        body["messages"] =
            Json::array({{{"role", "user"}, {"content", std::string(rng.below(200) + 1, 'x')}}});
        body["stream"] = rng.chance(0.5);
        body["max_tokens"] = rng.between(1, 40);
        const std::string transfer = "t" + std::to_string(number);
        Json for_p = body;
        for_p["stream"] = false;
        for_p["max_tokens"] = 1;
        for_p["kv_transfer_params"] = {{"do_remote_decode", true}, {"transfer_id", transfer}};
        Json for_d = body;
        if (p->bootstrap_address().valid())
            for_d["kv_transfer_params"] = {
                {"do_remote_prefill", true},
                {"transfer_id", transfer},
                {"remote_engine_id", p->engine_id()},
                {"remote_bootstrap_addr", "http://" + p->bootstrap_address().text()}};
        if (rng.chance(0.9)) leave_sometimes(ask(*p_pool, for_p));
        if (rng.chance(0.9)) leave_sometimes(ask(*d_pool, for_d));
    }
    void leave_sometimes(Ask& each) {
        if (!world.rng().chance(0.3)) return;
        world.after(std::chrono::milliseconds(world.rng().below(300)), [&each] {
            if (!each.done) each.leave();
        });
    }

    // With NIXL, D gets what P said, if it said anything.
    void pass_on_params() {
        const std::size_t count = asks.size();
        auto each = asks.begin();
        for (std::size_t i = 0; i < count; ++i, ++each) {
            const Json answer = (*each)->json();
            if (!answer.is_object() || !answer.contains("kv_transfer_params")) continue;
            if (!answer["kv_transfer_params"].is_object()) continue;
            Json body;
            body["messages"] = Json::array({{{"role", "user"}, {"content", "x"}}});
            body["max_tokens"] = 5;
            body["kv_transfer_params"] = answer["kv_transfer_params"];
            leave_sometimes(ask(*d_pool, body));
        }
    }

    void finish() {
        for (auto& each : asks)
            if (!each->done) each->leave();
        world.faults() = Faults{};
        p->clear_faults();
        d->clear_faults();
        world.run_for(200s);
        for (Engine* engine : {p.get(), d.get()}) {
            const EngineState state = engine->state();
            EXPECT_TRUE(engine->serving());
            EXPECT_EQ(state.generations_live, 0U);
            EXPECT_EQ(state.scheduler.running + state.scheduler.waiting + state.scheduler.loading,
                      0U);
            EXPECT_EQ(state.scheduler.blocks_used, 0U);
            EXPECT_EQ(state.connector.seats_taken + state.connector.pulls_waiting, 0U);
            engine->stop();
        }
        asks.clear();
        p_pool->drain();
        d_pool->drain();
        EXPECT_TRUE(world.run_until([&] {
            return p->finished() && d->finished() && p_pool->open() == 0 && d_pool->open() == 0;
        }));
        p.reset();
        d.reset();
        p_pool.reset();
        d_pool.reset();
        engines_host.detach();
        clients_host.detach();
    }

    SimWorld world;
    SimHost& engines_host;
    SimHost& clients_host;
    io::Loop loop;
    io::Loop clients;
    std::unique_ptr<Engine> p;
    std::unique_ptr<Engine> d;
    std::unique_ptr<http::UpstreamPool> p_pool;
    std::unique_ptr<http::UpstreamPool> d_pool;
    std::list<std::unique_ptr<Ask>> asks;
};

void run(std::uint64_t seed, ConnectorKind connector) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    Storm storm(seed, connector);
    storm.world.faults() = Faults::stormy();
    for (int i = 0; i < 30; ++i) {
        storm.ask_something(i);
        Rng& rng = storm.world.rng();
        if (rng.chance(0.3)) {
            Fault fault;
            fault.kind = kKinds[rng.below(std::size(kKinds))];
            fault.count = fault.kind == FaultKind::PullFail ? -1 : 1;
            fault.after_events = static_cast<std::uint32_t>(rng.below(5));
            fault.delay = std::chrono::milliseconds(rng.between(1, 2000));
            (rng.chance(0.5) ? storm.p : storm.d)->add_fault(fault);
        }
        if (rng.chance(0.05)) storm.p->clear_faults();
        storm.world.run_for(std::chrono::milliseconds(rng.below(200)));
    }
    if (connector == ConnectorKind::Nixl) storm.pass_on_params();
    storm.world.run_for(30s);
    storm.finish();
    if (!testing::Test::HasFailure()) storm.world.check_clean();
}

TEST(Storm, MooncakeLeavesNothingBehind) {
    for (std::uint64_t seed = 1; seed <= 100 && !testing::Test::HasFailure(); ++seed)
        run(seed, ConnectorKind::Mooncake);
}

TEST(Storm, NixlLeavesNothingBehind) {
    for (std::uint64_t seed = 1; seed <= 50 && !testing::Test::HasFailure(); ++seed)
        run(seed, ConnectorKind::Nixl);
}

}  // namespace
}  // namespace sluice::engine::test
