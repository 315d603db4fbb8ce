// SPDX-License-Identifier: Apache-2.0
// The keeper's health probes, models and names, on simulated I/O.
#include "unit/fleet/keeper_world.h"

namespace sluice::fleet::test {
namespace {

using KeeperHealth = KeeperTest;
using KeeperModels = KeeperTest;
using KeeperNames = KeeperTest;

constexpr std::string_view kModels = R"({"object":"list","data":[{"id":"m","created":1}]})";

TEST_F(KeeperHealth, SilentWhileNothingHappens) {
    engine("10.0.0.1", 8010);
    FakeEngine& d = engine("10.0.0.2", 8020);
    keep({{"http://10.0.0.1:8010", 0}}, {{"http://10.0.0.2:8020", 0}});
    const auto first = now();
    run_for(10s);
    EXPECT_EQ(now(), first) << "nothing changed, nothing is published";
    EXPECT_EQ(published_, 0);
    EXPECT_NEAR(d.asked["/health"], 10, 2);
    EXPECT_EQ(d.host_field["/health"], "10.0.0.2:8020");
    EXPECT_EQ(d.authorization["/health"], "");
    EXPECT_EQ(d.asked["/query"] + d.asked["/version"], 0);
    EXPECT_EQ(logged("is up"), 2);
}

TEST_F(KeeperHealth, DownAfterFailuresInARowAndUpAfterOneSuccess) {
    FakeEngine& d = engine("10.0.0.2", 8020);
    keep({}, {{"http://10.0.0.2:8020", 0}});
    ASSERT_TRUE(until([&] { return d.asked["/health"] == 2; }));
    stop(d);
    ASSERT_TRUE(until([&] { return !reachable(Role::Decode); }, 3s));
    EXPECT_FALSE(now()->decode[0].usable());
    EXPECT_EQ(
        logged(
            "decode http://10.0.0.2:8020 is down: GET /health 2 times in a row: could not connect"),
        1);
    run_for(5s);
    EXPECT_EQ(logged("is down"), 1) << "said once";
    d.start();
    ASSERT_TRUE(until([&] { return reachable(Role::Decode); }, 2s));
    EXPECT_EQ(logged("is up again"), 1);
}

TEST_F(KeeperHealth, OneFailureIsNotDown) {
    FakeEngine& d = engine("10.0.0.2", 8020);
    keep({}, {{"http://10.0.0.2:8020", 0}});
    for (int i = 0; i < 5; ++i) {
        const int before = d.asked["/health"];
        d.replies["/health"].status = 500;
        ASSERT_TRUE(until([&] { return d.asked["/health"] == before + 1; }));
        d.replies["/health"].status = 200;
        ASSERT_TRUE(until([&] { return d.asked["/health"] == before + 2; }));
        EXPECT_TRUE(reachable(Role::Decode));
    }
}

TEST_F(KeeperHealth, WhatCountsAsAlive) {
    const auto verdict = [&](std::uint16_t status) {
        engines_[0].replies["/health"].status = status;
        const int before = engines_[0].asked["/health"];
        EXPECT_TRUE(until([&] { return engines_[0].asked["/health"] >= before + 4; }));
        return reachable(Role::Decode);
    };
    engine("10.0.0.2", 8020);
    keep({}, {{"http://10.0.0.2:8020", 0}});
    EXPECT_TRUE(verdict(401));
    EXPECT_FALSE(verdict(503)) << "EngineDeadError";
    EXPECT_TRUE(verdict(404)) << "another server";
    EXPECT_FALSE(verdict(500));
    EXPECT_TRUE(verdict(204));
}

TEST_F(KeeperHealth, AHangIsAFailure) {
    FakeEngine& d = engine("10.0.0.2", 8020);
    d.replies["/health"].hangs = true;
    keep({}, {{"http://10.0.0.2:8020", 0}});
    ASSERT_TRUE(until([&] { return !reachable(Role::Decode); }, 4s));
    EXPECT_EQ(logged("did not answer in time"), 1);
}

TEST_F(KeeperHealth, ABlackHoleIsAFailure) {
    world_.network().set_blackhole(*io::Address::from_ip("10.0.0.9", 8020), true);
    keep({}, {{"http://10.0.0.9:8020", 0}});
    ASSERT_TRUE(until([&] { return !reachable(Role::Decode); }, 4s));
}

TEST_F(KeeperHealth, AnEndlessAnswerIsAFailure) {
    FakeEngine& d = engine("10.0.0.2", 8020);
    d.replies["/health"].body = std::string(1 << 20, 'x');
    keep({}, {{"http://10.0.0.2:8020", 0}});
    ASSERT_TRUE(until([&] { return !reachable(Role::Decode); }, 4s));
    EXPECT_EQ(logged("sent more than"), 1);
}

TEST_F(KeeperHealth, ComingBackEndsTheBreakersWait) {
    FakeEngine& d = engine("10.0.0.2", 8020, false);
    keep({}, {{"http://10.0.0.2:8020", 0}});
    ASSERT_TRUE(until([&] { return !reachable(Role::Decode); }));
    InstanceState& state = *now()->decode[0].state;
    state.breaker = Breaker::Open;
    state.retry_at_ns = INT64_MAX;
    d.start();
    ASSERT_TRUE(until([&] { return reachable(Role::Decode); }));
    EXPECT_LE(state.retry_at_ns.load(), world_.now().time_since_epoch().count());
    EXPECT_EQ(state.breaker.load(), Breaker::Open) << "a request has still to prove it";
}

TEST_F(KeeperHealth, NoProbesWithoutAnInterval) {
    options_.health_interval = 0s;
    FakeEngine& d = engine("10.0.0.2", 8020);
    d.replies["/v1/models"].body = kModels;
    keep({}, {{"http://10.0.0.2:8020", 0}});
    run_for(20s);
    EXPECT_EQ(d.asked["/health"], 0);
    EXPECT_EQ(now()->models_json, R"({"object":"list","data":[{"id":"m","created":1}]})");
}

TEST_F(KeeperHealth, ProbesDoNotStayInStep) {
    for (int i = 0; i < 8; ++i) engine("10.0.1." + std::to_string(i), 8020);
    std::vector<InstanceSpec> specs;
    for (int i = 0; i < 8; ++i)
        specs.push_back({"http://10.0.1." + std::to_string(i) + ":8020", 0});
    keep({}, specs);
    run_for(20s);
    // After 20 rounds of a second, a tenth more or less each, they are apart by more than one
    // network delay.
    std::vector<int> next(8);
    for (int i = 0; i < 8; ++i)
        next[static_cast<std::size_t>(i)] = engines_[static_cast<std::size_t>(i)].asked["/health"];
    const auto together = [&] {
        int moved = 0;
        for (std::size_t i = 0; i < 8; ++i) moved += engines_[i].asked["/health"] != next[i];
        return moved;
    };
    ASSERT_TRUE(until([&] { return together() > 0; }));
    run_for(1ms);
    EXPECT_LT(together(), 4);
}

TEST_F(KeeperHealth, TheUpstreamKeyIsSent) {
    options_.upstream_api_key = "secret";
    FakeEngine& d = engine("10.0.0.2", 8020);
    keep({}, {{"http://10.0.0.2:8020", 0}});
    ASSERT_TRUE(until([&] { return d.asked["/v1/models"] == 1; }));
    EXPECT_EQ(d.authorization["/health"], "Bearer secret");
    EXPECT_EQ(d.authorization["/v1/models"], "Bearer secret");
}

TEST_F(KeeperHealth, StopInTheMiddleOfEverything) {
    for (int i = 0; i < 4; ++i) {
        FakeEngine& e = engine("10.0.1." + std::to_string(i), 8010);
        e.replies["/health"].hangs = i % 2 == 0;
        e.replies["/v1/models"].hangs = true;
    }
    world_.network().set_blackhole(*io::Address::from_ip("10.0.1.0", 8998), true);
    keep({{"http://10.0.1.0:8010", 8998}, {"http://10.0.1.1:8010", 8010}},
         {{"http://10.0.1.2:8010", 0}, {"http://10.0.1.3:8010", 0}, {"http://name:80", 0}});
    run_for(30ms);
    // TearDown stops it and looks for what was left.
}

// -- models

TEST_F(KeeperModels, MergedOverTheFleet) {
    FakeEngine& p = engine("10.0.0.1", 8010);
    FakeEngine& d1 = engine("10.0.0.2", 8020);
    FakeEngine& d2 = engine("10.0.0.3", 8020);
    p.replies["/v1/models"].body = R"({"data":[{"id":"base","of":"p"}]})";
    d1.replies["/v1/models"].body = R"({"data":[{"id":"base","of":"d1"}]})";
    d2.replies["/v1/models"].body = R"({"data":[{"id":"base"},{"id":"lora"}]})";
    keep({{"http://10.0.0.1:8010", 0}}, {{"http://10.0.0.2:8020", 0}, {"http://10.0.0.3:8020", 0}});
    const std::string both = R"({"object":"list","data":[{"id":"base","of":"d1"},{"id":"lora"}]})";
    ASSERT_TRUE(until([&] { return now()->models_json == both; })) << now()->models_json;

    stop(d2);
    ASSERT_TRUE(until([&] {
        return now()->models_json == R"({"object":"list","data":[{"id":"base","of":"d1"}]})";
    })) << "an instance that is down serves nothing";
    d2.start();
    ASSERT_TRUE(until([&] { return now()->models_json == both; }));
    d1.replies["/v1/models"].body = R"({"data":[{"id":"new"}]})";
    ASSERT_TRUE(until([&] { return now()->models_json.find("\"new\"") != std::string::npos; }));
}

TEST_F(KeeperModels, TheLastAnswerStandsWhileNobodyServes) {
    FakeEngine& d = engine("10.0.0.2", 8020);
    d.replies["/v1/models"].body = kModels;
    keep({}, {{"http://10.0.0.2:8020", 0}});
    ASSERT_TRUE(until([&] { return now()->models_json == kModels; }));
    stop(d);
    ASSERT_TRUE(until([&] { return !reachable(Role::Decode); }));
    run_for(1s);
    EXPECT_EQ(now()->models_json, kModels);
}

TEST_F(KeeperModels, WhatChangesByItselfIsNotPublished) {
    FakeEngine& d = engine("10.0.0.2", 8020);
    d.replies["/v1/models"].body = kModels;
    keep({}, {{"http://10.0.0.2:8020", 0}});
    ASSERT_TRUE(until([&] { return published_ == 1; }));
    d.replies["/v1/models"].body = R"({"object":"list","data":[{"id":"m","created":2}]})";
    const int before = d.asked["/v1/models"];
    ASSERT_TRUE(until([&] { return d.asked["/v1/models"] == before + 3; }));
    EXPECT_EQ(published_, 1);
}

TEST_F(KeeperModels, AnUnusableAnswerIsSaidOnce) {
    FakeEngine& d = engine("10.0.0.2", 8020);
    d.replies["/v1/models"].body = "<html>";
    keep({}, {{"http://10.0.0.2:8020", 0}});
    ASSERT_TRUE(until([&] { return d.asked["/v1/models"] == 3; }));
    EXPECT_EQ(logged("no usable answer to GET /v1/models"), 1);
    EXPECT_EQ(now()->models_json, "");
}

// -- names

TEST_F(KeeperNames, ResolvedAtStartAndThenProbed) {
    FakeEngine& d = engine("10.0.0.2", 8020);
    resolver_.names["d.local"] = {"10.0.0.2"};
    keep({}, {{"http://d.local:8020", 0}});
    EXPECT_FALSE(now()->decode[0].usable());
    ASSERT_TRUE(until([&] { return now()->decode[0].usable(); }, 200ms));
    EXPECT_EQ(now()->decode[0].address.text(), "10.0.0.2:8020");
    ASSERT_TRUE(until([&] { return d.asked["/health"] == 1; }, 200ms));
    EXPECT_EQ(d.host_field["/health"], "d.local:8020");
    EXPECT_EQ(logged("is now at"), 0);
}

TEST_F(KeeperNames, NumericAddressesAreNotAsked) {
    engine("10.0.0.2", 8020);
    keep({}, {{"http://10.0.0.2:8020", 0}});
    run_for(30s);
    EXPECT_TRUE(resolver_.asked.empty());
}

TEST_F(KeeperNames, AskedAgainUntilItResolves) {
    engine("10.0.0.2", 8020);
    keep({}, {{"http://d.local:8020", 0}});
    run_for(9s);
    EXPECT_GE(resolver_.asked["d.local"], 4);
    EXPECT_LE(resolver_.asked["d.local"], 7);
    EXPECT_EQ(logged("decode http://d.local:8020 does not resolve"), 1) << "said once";
    resolver_.names["d.local"] = {"10.0.0.2"};
    ASSERT_TRUE(until([&] { return now()->decode[0].usable(); }, 3s));
    EXPECT_EQ(logged("resolves again"), 1);
}

TEST_F(KeeperNames, AMoveIsFollowed) {
    engine("10.0.0.2", 8020);
    FakeEngine& moved = engine("10.0.0.3", 8020);
    resolver_.names["d.local"] = {"10.0.0.2"};
    keep({}, {{"http://d.local:8020", 0}});
    ASSERT_TRUE(until([&] { return now()->decode[0].usable(); }));
    resolver_.names["d.local"] = {"10.0.0.3"};
    ASSERT_TRUE(until([&] { return now()->decode[0].address.text() == "10.0.0.3:8020"; }, 12s));
    EXPECT_EQ(logged("is now at 10.0.0.3:8020"), 1);
    ASSERT_TRUE(until([&] { return moved.asked["/health"] > 0; }, 1s));
}

TEST_F(KeeperNames, AskedAtOnceWhenItCannotBeReached) {
    FakeEngine& old = engine("10.0.0.2", 8020);
    engine("10.0.0.3", 8020);
    options_.resolve_interval = 1h;
    resolver_.names["d.local"] = {"10.0.0.2"};
    keep({}, {{"http://d.local:8020", 0}});
    ASSERT_TRUE(until([&] { return old.asked["/health"] > 0; }));
    resolver_.names["d.local"] = {"10.0.0.3"};
    stop(old);
    ASSERT_TRUE(until([&] { return now()->decode[0].address.text() == "10.0.0.3:8020"; }, 2s));
    run_for(3s);
    EXPECT_TRUE(reachable(Role::Decode));
}

TEST_F(KeeperNames, TheOtherAddressIsTried) {
    FakeEngine& d = engine("::1", 8020);
    resolver_.names["localhost"] = {"127.0.0.1", "::1"};
    keep({}, {{"http://localhost:8020", 0}});
    ASSERT_TRUE(until([&] { return d.asked["/health"] > 0; }, 2s));
    EXPECT_EQ(now()->decode[0].address.text(), "[::1]:8020");
    run_for(25s);
    EXPECT_EQ(now()->decode[0].address.text(), "[::1]:8020")
        << "and kept while the name still has it";
    EXPECT_TRUE(reachable(Role::Decode));
}

TEST_F(KeeperNames, AnAddressThatWorksOutlivesTheNameServer) {
    engine("10.0.0.2", 8020);
    resolver_.names["d.local"] = {"10.0.0.2"};
    keep({}, {{"http://d.local:8020", 0}});
    ASSERT_TRUE(until([&] { return now()->decode[0].usable(); }));
    resolver_.names.clear();
    run_for(40s);
    EXPECT_TRUE(now()->decode[0].usable());
    EXPECT_EQ(logged("does not resolve"), 1);
}

}  // namespace
}  // namespace sluice::fleet::test
