// SPDX-License-Identifier: Apache-2.0
// What the keeper finds out of a prefill's contract: bootstrap server, restarts, dialects, on
// simulated I/O.
#include "unit/fleet/keeper_world.h"

namespace sluice::fleet::test {
namespace {

class KeeperContract : public KeeperTest {
protected:
    using Ids = std::vector<std::string>;

    FakeEngine& api(bool started = true) { return engine("10.0.0.1", 8010, started); }
    FakeEngine& bootstrap(const std::string& reply, bool started = true) {
        FakeEngine& made = engine("10.0.0.1", 8998, started);
        made.replies["/query"].body = reply;
        return made;
    }
    void keep_prefill(KvConnector connector, std::uint16_t bootstrap_port = 8998) {
        options_.connector = connector;
        keep({{"http://10.0.0.1:8010", bootstrap_port}}, {});
    }
    void want_refresh() { now()->prefill[0].state->refresh_wanted = true; }
};

TEST_F(KeeperContract, TwoEqualRepliesAreComplete) {
    api();
    FakeEngine& boot = bootstrap(query_reply({"e0", "e1"}));
    keep_prefill(KvConnector::Mooncake);
    ASSERT_TRUE(until([&] { return ids() == Ids{"e0", "e1"}; }, 1s));
    EXPECT_EQ(boot.asked["/query"], 2);
    EXPECT_EQ(dialect(), DialectKind::Mooncake);
    EXPECT_EQ(boot.host_field["/query"], "10.0.0.1:8998");
    EXPECT_EQ(now()->prefill[0].bootstrap_url, "http://10.0.0.1:8998");
    const int published = published_;
    run_for(9s);
    EXPECT_NEAR(boot.asked["/query"], 4, 1) << "now and then";
    EXPECT_EQ(published_, published);
}

TEST_F(KeeperContract, AnIncompleteReplyIsAskedAgain) {
    api();
    FakeEngine& boot = bootstrap("{}");
    keep_prefill(KvConnector::Mooncake);
    ASSERT_TRUE(until([&] { return boot.asked["/query"] == 4; }, 2s));
    EXPECT_EQ(ids(), Ids{});
    EXPECT_EQ(dialect(), DialectKind::Mooncake) << "it answers, so that much is known";
    // The ranks register one by one, each just before it is asked.
    for (const Ids& registered : {Ids{"e0"}, Ids{"e0", "e1"}, Ids{"e0", "e1", "e2"}}) {
        boot.replies["/query"].body = query_reply(registered);
        const int before = boot.asked["/query"];
        ASSERT_TRUE(until([&] { return boot.asked["/query"] == before + 1; }));
        EXPECT_EQ(ids(), Ids{}) << "no two replies agree yet";
    }
    ASSERT_TRUE(until([&] { return !ids().empty(); }));
    EXPECT_EQ(ids(), (Ids{"e0", "e1", "e2"}));
}

TEST_F(KeeperContract, TheBootstrapServerGetsNoKey) {
    options_.upstream_api_key = "secret";
    api();
    FakeEngine& boot = bootstrap(query_reply({"e0"}));
    keep_prefill(KvConnector::Auto);
    ASSERT_TRUE(until([&] { return boot.asked["/query"] == 1; }));
    EXPECT_EQ(boot.authorization["/query"], "");
}

TEST_F(KeeperContract, ARestartIsSeenAtOnceWhenAWorkerAsks) {
    api();
    FakeEngine& boot = bootstrap(query_reply({"old0", "old1"}));
    options_.bootstrap_refresh = 1h;
    keep_prefill(KvConnector::Mooncake);
    ASSERT_TRUE(until([&] { return boot.asked["/query"] == 2 && !ids().empty(); }));
    run_for(500ms);
    boot.replies["/query"].body = query_reply({"new0", "new1"});
    run_for(5s);
    EXPECT_EQ(ids(), (Ids{"old0", "old1"}));
    want_refresh();
    const Instant asked_at = world_.now();
    ASSERT_TRUE(until([&] { return ids() != Ids{"old0", "old1"}; }, 1s));
    EXPECT_EQ(ids(), (Ids{"new0", "new1"})) << "as many as before: complete at once";
    EXPECT_LT(world_.now() - asked_at, 100ms);
    EXPECT_FALSE(now()->prefill[0].state->refresh_wanted.load());
    EXPECT_EQ(logged("was restarted"), 1);
}

TEST_F(KeeperContract, ARestartIsSeenInTheEndWithoutAnybodyAsking) {
    api();
    FakeEngine& boot = bootstrap(query_reply({"old"}));
    keep_prefill(KvConnector::Mooncake);
    ASSERT_TRUE(until([&] { return ids() == Ids{"old"}; }));
    boot.replies["/query"].body = query_reply({"new"});
    ASSERT_TRUE(until([&] { return ids() == Ids{"new"}; }, 5s));
}

TEST_F(KeeperContract, OldIdsGoAtOnceNewOnesWhenComplete) {
    api();
    FakeEngine& boot = bootstrap(query_reply({"old0", "old1"}));
    keep_prefill(KvConnector::Mooncake);
    ASSERT_TRUE(until([&] { return ids().size() == 2; }));
    boot.replies["/query"].body = query_reply({"new0"});  // the second has not registered yet
    want_refresh();
    ASSERT_TRUE(until([&] { return ids().empty(); }, 200ms)) << "nobody lives under the old ids";
    boot.replies["/query"].body = query_reply({"new0", "new1"});
    ASSERT_TRUE(until([&] { return ids() == Ids{"new0", "new1"}; }, 1s));
}

TEST_F(KeeperContract, OneOfTwoRanksRestarted) {
    api();
    FakeEngine& boot = bootstrap(query_reply({"e0", "e1"}));
    keep_prefill(KvConnector::Mooncake);
    ASSERT_TRUE(until([&] { return ids().size() == 2; }));
    boot.replies["/query"].body = query_reply({"e0", "e1-again"});
    want_refresh();
    ASSERT_TRUE(until([&] { return ids() == Ids{"e0", "e1-again"}; }, 1s));
}

TEST_F(KeeperContract, GrowthIsNoRestart) {
    api();
    FakeEngine& boot = bootstrap(query_reply({"e0"}));
    keep_prefill(KvConnector::Mooncake);
    ASSERT_TRUE(until([&] { return ids() == Ids{"e0"}; }));
    boot.replies["/query"].body = query_reply({"e0", "e1"});
    want_refresh();
    bool was_empty = false;
    ASSERT_TRUE(until([&] {
        was_empty |= ids().empty();
        return ids().size() == 2;
    }));
    EXPECT_FALSE(was_empty);
    EXPECT_EQ(logged("was restarted"), 0);
}

TEST_F(KeeperContract, SilenceOfAKnownOneKeepsItsRanks) {
    api();
    FakeEngine& boot = bootstrap(query_reply({"e0"}));
    keep_prefill(KvConnector::Auto);
    ASSERT_TRUE(until([&] { return ids() == Ids{"e0"}; }));
    stop(boot);
    want_refresh();
    run_for(10s);
    EXPECT_EQ(ids(), Ids{"e0"});
    EXPECT_EQ(dialect(), DialectKind::Mooncake);
    EXPECT_EQ(logged("has a bootstrap server, http://10.0.0.1:8998, without a usable answer: could "
                     "not connect"),
              1);
}

TEST_F(KeeperContract, GarbageIsNoAnswer) {
    api();
    FakeEngine& boot = bootstrap(query_reply({"e0"}));
    keep_prefill(KvConnector::Mooncake);
    ASSERT_TRUE(until([&] { return ids() == Ids{"e0"}; }));
    boot.replies["/query"].body = R"({"0":{"engine_id":7}})";
    want_refresh();
    run_for(5s);
    EXPECT_EQ(ids(), Ids{"e0"});
    EXPECT_EQ(logged("cannot be used: engine_id of rank \"0\" is not a string"), 1);
}

TEST_F(KeeperContract, ADeadOneIsNotAskedForEverAtFullSpeed) {
    api();
    keep_prefill(KvConnector::Mooncake);
    FakeEngine& boot = bootstrap("", true);
    boot.replies["/query"].status = 500;
    run_for(20s);
    EXPECT_LT(boot.asked["/query"], 16);
    EXPECT_GT(boot.asked["/query"], 8);
}

TEST_F(KeeperContract, ComesBackOnlyWithItsNewIds) {
    FakeEngine& p = api();
    FakeEngine& boot = bootstrap(query_reply({"old"}));
    keep_prefill(KvConnector::Mooncake);
    ASSERT_TRUE(until([&] { return ids() == Ids{"old"}; }));
    stop(p);
    stop(boot);
    ASSERT_TRUE(until([&] { return !reachable(Role::Prefill); }));
    boot.replies["/query"].body = query_reply({"new"});
    p.start();
    boot.start();
    Ids when_reachable;
    ASSERT_TRUE(until([&] { return reachable(Role::Prefill); }));
    // The snapshot leaves at the end of the turn in which it was found to be reachable.
    ASSERT_TRUE(until([&] { return ids() != Ids{"old"}; }, 1ms));
    EXPECT_EQ(ids(), Ids{"new"});
}

TEST_F(KeeperContract, ComesBackAlsoWhenItsBootstrapServerStaysAway) {
    FakeEngine& p = api();
    FakeEngine& boot = bootstrap(query_reply({"e0"}));
    keep_prefill(KvConnector::Mooncake);
    ASSERT_TRUE(until([&] { return ids() == Ids{"e0"}; }));
    stop(p);
    stop(boot);
    ASSERT_TRUE(until([&] { return !reachable(Role::Prefill); }));
    p.start();
    ASSERT_TRUE(until([&] { return reachable(Role::Prefill); }, 5s));
}

TEST_F(KeeperContract, AMovedPrefillIsAskedAnew) {
    engine("10.0.0.1", 8010);
    engine("10.0.0.7", 8010);
    engine("10.0.0.1", 8998).replies["/query"].body = query_reply({"here"});
    engine("10.0.0.7", 8998).replies["/query"].body = query_reply({"there"});
    resolver_.names["p.local"] = {"10.0.0.1"};
    options_.connector = KvConnector::Mooncake;
    keep({{"http://p.local:8010", 8998}}, {});
    ASSERT_TRUE(until([&] { return ids() == Ids{"here"}; }, 2s));
    resolver_.names["p.local"] = {"10.0.0.7"};
    ASSERT_TRUE(until([&] { return ids() == Ids{"there"}; }, 12s));
    EXPECT_EQ(now()->prefill[0].bootstrap_url, "http://p.local:8998");
}

// -- doubt: what breaks when a prefill dies

class KeeperDoubt : public KeeperContract {
protected:
    bool sure() const { return now()->prefill[0].ids_sure(); }
    void keep_with_rare_probes() {
        options_.health_interval = options_.bootstrap_refresh = 1h;
        keep_prefill(KvConnector::Mooncake);
        ASSERT_TRUE(until([&] { return ids() == Ids{"old"} && sure(); }));
        run_for(10ms);
    }
};

TEST_F(KeeperDoubt, ADeathIsSeenByTheSilentConnection) {
    api();
    FakeEngine& boot = bootstrap(query_reply({"old"}));
    keep_with_rare_probes();
    stop(boot);
    ASSERT_TRUE(until([&] { return !sure(); }, 2ms)) << "long before a probe";
    EXPECT_EQ(ids(), Ids{"old"});
    boot.replies["/query"].body = query_reply({"new"});
    boot.start();
    bool sure_of_old = false;
    ASSERT_TRUE(until(
        [&] {
            sure_of_old |= sure() && ids() == Ids{"old"};
            return sure();
        },
        2s));
    EXPECT_EQ(ids(), Ids{"new"});
    EXPECT_FALSE(sure_of_old);
    // And so the next time, although that comes at once.
    run_for(1ms);
    stop(boot);
    ASSERT_TRUE(until([&] { return !sure(); }, 2ms));
}

TEST_F(KeeperDoubt, AnAnswerDoesNotLiftADoubtThatCameWhileItWasOnItsWay) {
    api();
    FakeEngine& boot = bootstrap(query_reply({"old"}));
    keep_with_rare_probes();
    const int asked = boot.asked["/query"];
    now()->prefill[0].state->doubt_ids();
    ASSERT_TRUE(until([&] { return boot.asked["/query"] == asked + 1; }));
    now()->prefill[0].state->doubt_ids();
    ASSERT_TRUE(until([&] { return boot.asked["/query"] == asked + 2; }));
    EXPECT_FALSE(sure()) << "the first answer has come, and says nothing of the second doubt";
    ASSERT_TRUE(until([&] { return sure(); }, 100ms));
}

TEST_F(KeeperDoubt, OneThatLivesWithoutItsBootstrapServerWasAskedInVain) {
    api();
    FakeEngine& boot = bootstrap(query_reply({"old"}));
    keep_with_rare_probes();
    stop(boot);
    ASSERT_TRUE(until([&] { return !sure(); }));
    const auto doubts = now()->prefill[0].state->ids_doubts.load();
    ASSERT_TRUE(until([&] { return now()->prefill[0].ids_without_answer(doubts); }, 3s));
    EXPECT_FALSE(sure());
}

TEST_F(KeeperDoubt, ADeadOneIsNotAskedInVain) {
    FakeEngine& p = api();
    FakeEngine& boot = bootstrap(query_reply({"old"}));
    keep_with_rare_probes();
    stop(p);
    stop(boot);
    ASSERT_TRUE(until([&] { return !sure(); }));
    const auto doubts = now()->prefill[0].state->ids_doubts.load();
    run_for(10s);
    EXPECT_FALSE(now()->prefill[0].ids_without_answer(doubts));
}

TEST_F(KeeperDoubt, AServerThatEndsSilentConnectionsIsNotAskedWithoutEnd) {
    api();
    FakeEngine& boot = bootstrap(query_reply({"old"}), false);
    boot.options.idle_timeout = 20ms;
    boot.start();
    keep_with_rare_probes();
    const int asked = boot.asked["/query"];
    run_for(20s);
    EXPECT_LT(boot.asked["/query"] - asked, 25);
    EXPECT_GT(boot.asked["/query"] - asked, 5);
    EXPECT_EQ(ids(), Ids{"old"});
}

TEST_F(KeeperDoubt, ARestartThatNobodyNoticedIsADoubtToo) {
    api();
    FakeEngine& boot = bootstrap(query_reply({"old"}));
    keep_with_rare_probes();
    const auto doubts = now()->prefill[0].state->ids_doubts.load();
    boot.replies["/query"].body = query_reply({"new"});
    want_refresh();
    ASSERT_TRUE(until([&] { return ids() == Ids{"new"}; }, 1s));
    EXPECT_NE(now()->prefill[0].state->ids_doubts.load(), doubts)
        << "a prefill of before is worth nothing";
    EXPECT_TRUE(sure());
}

// -- auto

TEST_F(KeeperContract, AutoIsMooncakeWhenQueryAnswers) {
    api();
    bootstrap(query_reply({"e0"}));
    keep_prefill(KvConnector::Auto);
    EXPECT_EQ(dialect(), DialectKind::Unknown);
    ASSERT_TRUE(until([&] { return dialect() == DialectKind::Mooncake && !ids().empty(); }, 1s));
    EXPECT_EQ(logged("is taken for mooncake"), 1);
}

TEST_F(KeeperContract, AutoIsNixlWhenQueryIsRefused) {
    api();
    keep_prefill(KvConnector::Auto);
    ASSERT_TRUE(until([&] { return dialect() == DialectKind::Nixl; }, 2s));
    EXPECT_EQ(engines_[0].asked["/version"], 0);
}

TEST_F(KeeperContract, AutoIsNixlWhenThePortBelongsToSomebodyElse) {
    api();
    FakeEngine& other = engine("10.0.0.1", 8998);  // 404 for /query
    keep_prefill(KvConnector::Auto);
    ASSERT_TRUE(until([&] { return dialect() == DialectKind::Nixl; }, 2s));
    // A redeployment with another connector is still found.
    other.replies["/query"].body = query_reply({"e0"});
    ASSERT_TRUE(
        until([&] { return dialect() == DialectKind::Mooncake && ids() == Ids{"e0"}; }, 10s));
}

TEST_F(KeeperContract, AutoDecidesNothingWhileItIsStarting) {
    FakeEngine& p = api(false);
    FakeEngine& boot = bootstrap(query_reply({"e0"}), false);
    keep_prefill(KvConnector::Auto);
    run_for(10s);
    EXPECT_EQ(dialect(), DialectKind::Unknown) << "nobody is there yet";
    boot.start();
    p.start();
    ASSERT_TRUE(until([&] { return ids() == Ids{"e0"}; }, 3s));
    EXPECT_EQ(dialect(), DialectKind::Mooncake);
    EXPECT_EQ(logged("nixl"), 0);
}

TEST_F(KeeperContract, NixlNeverAsksTheBootstrapServer) {
    FakeEngine& p = api();
    FakeEngine& boot = bootstrap(query_reply({"e0"}));
    keep_prefill(KvConnector::Nixl);
    want_refresh();
    run_for(20s);
    EXPECT_EQ(boot.asked["/query"], 0);
    EXPECT_EQ(p.asked["/version"], 0);
    EXPECT_EQ(dialect(), DialectKind::Nixl);
    EXPECT_FALSE(now()->prefill[0].state->refresh_wanted.load());
}

// -- mooncake without a bootstrap server

TEST_F(KeeperContract, OldVersionsAreSequential) {
    for (const std::uint16_t port : {std::uint16_t{0}, std::uint16_t{8998}}) {
        if (keeper_) {
            finish();
            log_.clear();
        }
        api().replies["/version"].body = R"({"version":"0.15.1"})";
        keep_prefill(KvConnector::Mooncake, port);
        ASSERT_TRUE(until([&] { return dialect() == DialectKind::MooncakeSequential; }, 2s))
            << port;
        EXPECT_EQ(ids(), Ids{});
        EXPECT_EQ(logged("it is vLLM 0.15"), 1);
    }
}

TEST_F(KeeperContract, NewVersionsNeedTheirBootstrapServer) {
    FakeEngine& p = api();
    p.replies["/version"].body = R"({"version":"0.33.0"})";
    keep_prefill(KvConnector::Mooncake);
    run_for(5s);
    EXPECT_EQ(dialect(), DialectKind::Unknown);
    EXPECT_EQ(
        logged("cannot be used: it is vLLM 0.33, and its bootstrap server, http://10.0.0.1:8998"),
        1);
    bootstrap(query_reply({"e0"}));
    ASSERT_TRUE(
        until([&] { return dialect() == DialectKind::Mooncake && ids() == Ids{"e0"}; }, 4s));
}

TEST_F(KeeperContract, NewVersionWithoutAPortIsSaid) {
    api().replies["/version"].body = R"({"version":"0.16.0"})";
    keep_prefill(KvConnector::Mooncake, 0);
    run_for(20s);
    EXPECT_EQ(dialect(), DialectKind::Unknown);
    EXPECT_EQ(logged("needs a bootstrap port"), 1);
}

TEST_F(KeeperContract, AnUpgradeIsSeen) {
    FakeEngine& p = api();
    p.replies["/version"].body = R"({"version":"0.15.1"})";
    keep_prefill(KvConnector::Mooncake);
    ASSERT_TRUE(until([&] { return dialect() == DialectKind::MooncakeSequential; }));
    p.replies["/version"].body = R"({"version":"0.33.0"})";
    bootstrap(query_reply({"e0"}));
    ASSERT_TRUE(
        until([&] { return dialect() == DialectKind::Mooncake && ids() == Ids{"e0"}; }, 10s));
}

}  // namespace
}  // namespace sluice::fleet::test
