// SPDX-License-Identifier: Apache-2.0
// Two and more KV nodes: what a pull does, and what happens when anything goes wrong.
#include <algorithm>

#include "unit/node/bench.h"

namespace sluice::node::test {
namespace {

using Workers = std::vector<std::vector<io::Address>>;

class Nodes : public ::testing::Test {
protected:
    Instance& add(const std::string& name, RankLayout layout = {.blocks = 16}, bool start = true) {
        Instance& made = instances.emplace_back(world, fabric, name, model, layout);
        made.memory.fill(instances.size());
        if (start) made.start();
        return made;
    }
    static PullRequest request(const std::string& transfer, const Instance& producer,
                               std::vector<kv::BlockId> blocks, Duration deadline = 10s) {
        PullRequest made;
        made.transfer = transfer;
        made.producer = {producer.name, Workers{{producer.address}}};
        made.blocks = {std::move(blocks)};
        made.deadline = deadline;
        return made;
    }
    PullId pull(Instance& consumer, PullRequest request) {
        const auto pull = consumer.node->pull(std::move(request));
        EXPECT_TRUE(pull.has_value()) << (pull ? "" : pull.error().sentence);
        return pull.value_or(0);
    }
    const PullResult& wait(Instance& consumer, PullId id) {
        EXPECT_TRUE(world.run_until([&] { return consumer.ended.contains(id); }));
        return consumer.ended[id];
    }
    PullResult fetch(Instance& consumer, PullRequest what) {
        return wait(consumer, pull(consumer, std::move(what)));
    }
    // Whether the consumer's blocks hold what the producer's do, row by row.
    void expect_same(Instance& p, const std::vector<kv::BlockId>& from, Instance& c,
                     const std::vector<kv::BlockId>& to) {
        for (std::size_t r = 0; r < c.memory.regions.size(); ++r)
            for (std::size_t i = 0; i < to.size(); ++i)
                for (std::uint32_t h = c.memory.heads().first; h < c.memory.heads().end; ++h) {
                    if (h < p.memory.heads().first || h >= p.memory.heads().end) continue;
                    for (std::uint32_t t = 0; t < model.tokens; ++t)
                        ASSERT_EQ(std::memcmp(p.memory.row(r, from[i], h, t),
                                              c.memory.row(r, to[i], h, t), c.memory.row_bytes()),
                                  0);
                }
    }

    Model model{.layers = 4, .joint = false};
    io::sim::SimWorld world;
    FakeFabric fabric;
    std::deque<Instance> instances;
};

TEST_F(Nodes, APublishedTransferLandsAndItsLeaseEnds) {
    Instance& p = add("p");
    Instance& c = add("c");
    ASSERT_TRUE(p.node->publish("t", {{7, 3, 9}}).ok());
    const PullResult result = fetch(c, request("t", p, {1, 2, 5}));
    EXPECT_EQ(result.status.code, Code::Ok) << result.status.sentence;
    EXPECT_EQ(result.landed, (std::vector<std::vector<std::uint64_t>>{{7}}));
    EXPECT_EQ(result.bytes, 3U * 8 * model.tokens * model.kv_heads * 4);
    expect_same(p, {7, 3, 9}, c, {1, 2, 5});
    ASSERT_TRUE(world.run_until([&] { return p.lease_ends == 1; }));
    EXPECT_EQ(p.leases_ended["t"], kv::LeaseEnd::Pulled);
    EXPECT_EQ(p.node->pool().pinned(), 0U);
    EXPECT_EQ(c.node->pool().claimed(), 0U);
    EXPECT_EQ(p.node->metrics().sent[0].bytes.value(), result.bytes);
    EXPECT_EQ(c.node->metrics().received[0].ranges_before.value(), 24U);
    EXPECT_EQ(c.node->metrics().received[0].ranges_after.value(), 16U);  // 1 and 2 are neighbours
}

TEST_F(Nodes, APullMayComeFirstAndAPublishLayerByLayer) {
    Instance& p = add("p");
    Instance& c = add("c");
    const PullId id = pull(c, request("t", p, {4}));
    world.run_for(500ms);
    EXPECT_TRUE(c.ended.empty());
    ASSERT_TRUE(p.node->publish("t", {{8}}, 1).ok());
    world.run_for(100ms);
    EXPECT_TRUE(c.ended.empty());                                       // one layer of four
    std::memset(p.memory.row(2, 8, 0, 0), 0x55, p.memory.row_bytes());  // computed only now
    ASSERT_TRUE(p.node->more_layers("t", 3).ok());
    world.run_for(100ms);
    EXPECT_TRUE(c.ended.empty());
    ASSERT_TRUE(p.node->more_layers("t", 4).ok());
    EXPECT_EQ(wait(c, id).status.code, Code::Ok);
    expect_same(p, {8}, c, {4});
}

TEST_F(Nodes, RanksOfOtherSizesPair) {
    Instance& p0 = add("p0", {.rank = {.tp_rank = 0, .tp_size = 2}, .blocks = 8});
    Instance& p1 =
        add("p1", {.rank = {.tp_rank = 1, .tp_size = 2}, .layout = kv::Layout::Nhd, .blocks = 8});
    Instance& c = add("c", {.blocks = 8});
    for (Instance* p : {&p0, &p1}) ASSERT_TRUE(p->node->publish("t", {{5, 6}}).ok());
    PullRequest what = request("t", p0, {0, 1});
    what.producer.engine_id.clear();
    what.producer.workers = {{p0.address}, {p1.address}};
    EXPECT_EQ(fetch(c, what).status.code, Code::Ok);
    expect_same(p0, {5, 6}, c, {0, 1});
    expect_same(p1, {5, 6}, c, {0, 1});
    ASSERT_TRUE(world.run_until([&] { return p0.lease_ends + p1.lease_ends == 2; }));
}

TEST_F(Nodes, AReplicaThatGivesNothingIsToldToLetGo) {
    model.kv_heads = 1;
    Instance& p0 = add("p0", {.rank = {.tp_rank = 0, .tp_size = 2}});
    Instance& p1 = add("p1", {.rank = {.tp_rank = 1, .tp_size = 2}});
    Instance& c = add("c");
    for (Instance* p : {&p0, &p1}) ASSERT_TRUE(p->node->publish("t", {{5}}).ok());
    PullRequest what = request("t", p0, {0});
    what.producer = {"", {{p0.address}, {p1.address}}};
    EXPECT_EQ(fetch(c, what).status.code, Code::Ok);
    ASSERT_TRUE(world.run_until([&] { return p0.lease_ends + p1.lease_ends == 2; }));
    EXPECT_EQ(p1.node->metrics().sent[0].bytes.value(), 0U);
}

TEST_F(Nodes, AnEmptyPullEndsTheLease) {
    Instance& p = add("p");
    Instance& c = add("c");
    ASSERT_TRUE(p.node->publish("t", {{5}}).ok());
    EXPECT_EQ(fetch(c, request("t", p, {})).status.code, Code::Ok);
    ASSERT_TRUE(world.run_until([&] { return p.lease_ends == 1; }));
}

TEST_F(Nodes, AfterAnAbortNothingLands) {
    Instance& p = add("p");
    Instance& c = add("c");
    p.transport->range_delay = 10ms;
    ASSERT_TRUE(p.node->publish("t", {{1, 2}}).ok());
    const PullId id = pull(c, request("t", p, {1, 2}));
    world.run_for(50ms);  // some of eight ranges
    const Instant asked = world.now();
    c.node->abort(id);
    const PullResult& result = wait(c, id);
    EXPECT_EQ(result.status.code, Code::Aborted);
    EXPECT_LE(world.now() - asked, kv::limits::kAbortBound);
    EXPECT_EQ(result.landed, (std::vector<std::vector<std::uint64_t>>{{0}}));
    for (auto& region : c.memory.regions) std::memset(region.base, 0xab, region.bytes);
    world.run_for(1s);
    for (auto& region : c.memory.regions)
        for (std::uint64_t i = 0; i < region.bytes; ++i)
            ASSERT_EQ(static_cast<unsigned char*>(region.base)[i], 0xab);
    EXPECT_EQ(p.leases_ended["t"], kv::LeaseEnd::Pulled);  // it wants no more
    EXPECT_EQ(c.node->metrics().aborts.value(), 1U);
    EXPECT_EQ(c.node->metrics().aborts_late.value(), 0U);
    c.node->abort(id);  // harmless
}

TEST_F(Nodes, ADeadlineEndsAPull) {
    Instance& p = add("p");
    Instance& c = add("c");
    const PullResult result = fetch(c, request("t", p, {1}, 700ms));
    EXPECT_EQ(result.status.code, Code::Timeout);
    EXPECT_EQ(result.status.sentence, "transfer \"t\" did not land within 700 ms");
    world.run_for(100ms);
    EXPECT_EQ(p.node->metrics().pulls_waiting.value(), 0U);
}

TEST_F(Nodes, AHungPeerIsNoticedInAboutASecond) {
    Instance& p = add("p");
    Instance& c = add("c");
    p.transport->range_delay = 100ms;
    ASSERT_TRUE(p.node->publish("t", {{1}}).ok());
    const PullId id = pull(c, request("t", p, {1}, 60s));
    world.run_for(250ms);
    p.transport->stopped = true;
    world.freeze(p.host, 30s);
    const Instant began = world.now();
    EXPECT_EQ(wait(c, id).status.code, Code::PeerLost);
    EXPECT_LE(world.now() - began, 1600ms);
    p.transport->stopped = false;
    world.run_for(40s);
}

TEST_F(Nodes, ARestartedPeerIsRecognised) {
    Instance& p = add("p");
    Instance& c = add("c");
    ASSERT_TRUE(p.node->publish("t", {{1}}).ok());
    EXPECT_EQ(fetch(c, request("t", p, {1})).status.code, Code::Ok);
    PullRequest old = request("u", p, {1});
    p.stop();
    p.options.engine_id = "p-again";
    p.start();
    world.run_for(10ms);
    const PullResult result = fetch(c, old);
    EXPECT_EQ(result.status.code, Code::PeerRestarted);
    EXPECT_NE(result.status.sentence.find("\"p-again\" answers where \"p\" was"),
              std::string::npos);
    EXPECT_EQ(c.node->metrics().restarts_seen.value(), 1U);
    // Its new life serves.
    ASSERT_TRUE(p.node->publish("u", {{1}}).ok());
    old.producer.engine_id = "p-again";
    EXPECT_EQ(fetch(c, old).status.code, Code::Ok);
}

TEST_F(Nodes, ADeadPeerIsAnError) {
    Instance& p = add("p");
    Instance& c = add("c");
    const PullRequest what = request("t", p, {1});
    p.stop();
    EXPECT_EQ(fetch(c, what).status.code, Code::PeerLost);
}

TEST_F(Nodes, AWrongTokenIsRefusedAndCounted) {
    Instance& p = add("p");
    Instance& c = add("c", {.blocks = 16}, false);
    c.options.token[3] = std::byte{1};
    c.start();
    const PullResult result = fetch(c, request("t", p, {1}));
    EXPECT_EQ(result.status.code, Code::WrongToken) << result.status.sentence;
    EXPECT_EQ(p.node->metrics().wrong_tokens.value() + c.node->metrics().wrong_tokens.value(), 1U);
}

TEST_F(Nodes, AnotherShapeIsRefusedWithBothShown) {
    Instance& p = add("p");
    model.head_size = 4;
    Instance& c = add("c");
    const PullResult result = fetch(c, request("t", p, {1}));
    EXPECT_EQ(result.status.code, Code::ShapeMismatch);
    EXPECT_NE(result.status.sentence.find("4 bytes a token and head"), std::string::npos);
    EXPECT_NE(result.status.sentence.find("8 bytes a token and head"), std::string::npos);
    EXPECT_GE(p.node->metrics().wrong_shapes.value() + c.node->metrics().wrong_shapes.value(), 1U);
}

TEST_F(Nodes, LimitsAndRolesAreNamed) {
    Instance& p = add("p", {.blocks = 16}, false);
    p.options.role = kv::Role::Producer;
    p.start();
    Instance& c = add("c", {.blocks = 16}, false);
    c.options.role = kv::Role::Consumer;
    c.options.pulls_max = 1;
    c.options.peers_max = 1;
    c.start();
    EXPECT_EQ(p.node->pull(request("t", p, {1})).error().code, Code::BadRole);
    EXPECT_EQ(c.node->publish("t", {{1}}).code, Code::BadRole);
    EXPECT_EQ(c.node->pull(request("t", p, {16})).error().code, Code::BadBlocks);
    EXPECT_EQ(c.node->pull(request("", p, {1})).error().code, Code::BadOptions);
    const PullId first = pull(c, request("t", p, {1}, 100ms));
    const auto second = c.node->pull(request("u", p, {2}));
    EXPECT_EQ(second.error().sentence, "1 pulls are live; pulls_max is 1");
    wait(c, first);
    Instance& other = add("other");
    const PullResult result = fetch(c, request("t", other, {1}));
    EXPECT_EQ(result.status.code, Code::LimitReached);
    EXPECT_EQ(result.status.sentence, "too many peers; peers_max is 1");
    ASSERT_TRUE(p.node->publish("t", {{1}}).ok());
    EXPECT_EQ(p.node->publish("t", {{1}}).code, Code::AlreadyLive);
}

TEST_F(Nodes, MoreBlocksThanPublishedIsAnError) {
    Instance& p = add("p");
    Instance& c = add("c");
    ASSERT_TRUE(p.node->publish("t", {{1}}).ok());
    const PullResult result = fetch(c, request("t", p, {1, 2}));
    EXPECT_EQ(result.status.code, Code::TooFewBlocks) << result.status.sentence;
}

TEST_F(Nodes, AFullTransportIsWaitedFor) {
    Instance& p = add("p");
    Instance& c = add("c");
    p.transport->posts_max = 1;
    std::vector<PullId> pulls;
    for (kv::BlockId b = 0; b < 8; ++b) {
        ASSERT_TRUE(p.node->publish("t" + std::to_string(b), {{b}}).ok());
        pulls.push_back(pull(c, request("t" + std::to_string(b), p, {b})));
    }
    for (const PullId id : pulls) EXPECT_EQ(wait(c, id).status.code, Code::Ok);
    expect_same(p, {0, 1, 2, 3, 4, 5, 6, 7}, c, {0, 1, 2, 3, 4, 5, 6, 7});
}

TEST_F(Nodes, AReleaseWaitsForWhoReads) {
    Instance& p = add("p");
    Instance& c = add("c");
    p.transport->range_delay = 10ms;
    ASSERT_TRUE(p.node->publish("t", {{1}}).ok());
    const PullId id = pull(c, request("t", p, {1}));
    world.run_for(40ms);
    p.node->release("t");
    EXPECT_EQ(p.lease_ends, 0);  // its posts were only just revoked
    EXPECT_EQ(wait(c, id).status.code, Code::Expired);
    EXPECT_EQ(p.leases_ended["t"], kv::LeaseEnd::Released);
    EXPECT_EQ(p.node->pool().pinned(), 0U);
}

TEST_F(Nodes, ALeaseExpiresAndWhoComesLateIsToldAtOnce) {
    Instance& p = add("p", {.blocks = 16}, false);
    p.options.abort_timeout = 2s;
    p.start();
    Instance& c = add("c");
    ASSERT_TRUE(p.node->publish("t", {{1}}).ok());
    world.run_for(3s);
    EXPECT_EQ(p.leases_ended["t"], kv::LeaseEnd::Expired);
    const Instant began = world.now();
    EXPECT_EQ(fetch(c, request("t", p, {1})).status.code, Code::Expired);
    EXPECT_LE(world.now() - began, 1s);
}

// -- anything at any time

void storm(std::uint64_t seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    const Model model{.layers = 3, .kv_heads = 2, .tokens = 2};
    io::sim::SimWorld world({.seed = seed, .faults = {}});
    FakeFabric fabric;
    std::deque<Instance> all;
    for (const char* name : {"p", "q", "c", "d"}) {
        all.emplace_back(world, fabric, name, model, RankLayout{.blocks = 12});
        all.back().memory.fill(seed + all.size());
        all.back().options.abort_timeout = 5s;
        all.back().start();
    }
    Rng& rng = world.rng();
    std::map<std::pair<Instance*, PullId>, std::vector<kv::BlockId>> live;
    std::map<std::pair<Instance*, kv::BlockId>, std::vector<unsigned char>> free_bytes;
    std::size_t started = 0, ended = 0, landed = 0;
    const auto snapshot = [&](Instance& c, kv::BlockId block) {
        std::vector<unsigned char> bytes;
        for (const kv::Region& region : c.memory.regions) {
            const auto* at =
                static_cast<unsigned char*>(region.base) + std::size_t{block} * region.block_bytes;
            bytes.insert(bytes.end(), at, at + region.block_bytes);
        }
        return bytes;
    };
    for (Instance* c : {&all[2], &all[3]})
        c->when_ended = [&, c](PullId id, const PullResult& result) {
            ++ended;
            landed += result.status.ok() ? 1 : 0;
            for (const kv::BlockId block : live.at({c, id}))
                free_bytes[{c, block}] =
                    snapshot(*c, block);  // must stay so until it is used again
            live.erase({c, id});
        };
    std::map<std::string, std::pair<Instance*, std::vector<kv::BlockId>>> published;
    for (int step = 0; step < 80; ++step) {
        Instance& p = all[rng.below(2)];
        Instance& c = all[2 + rng.below(2)];
        const std::string transfer = p.name + std::to_string(rng.below(6));
        switch (rng.below(9)) {
            case 0:
            case 1: {
                const auto blocks = kv::test::shuffled_blocks(rng, 12, 3);
                (void)p.node->publish(transfer, {blocks}, rng.chance(0.5) ? UINT32_MAX : 1);
                break;
            }
            case 2:
                (void)p.node->more_layers(transfer, 3);
                break;
            case 3:
            case 4: {
                PullRequest request;
                request.transfer = transfer;
                request.producer = {p.name, Workers{{p.address}}};
                request.blocks = {kv::test::shuffled_blocks(
                    rng, 12, static_cast<std::uint32_t>(rng.between(1, 3)))};
                request.deadline = Duration(std::chrono::milliseconds(rng.between(1, 3000)));
                const auto blocks = request.blocks[0];
                if (const auto id = c.node->pull(std::move(request))) {
                    ++started;
                    live[{&c, *id}] = blocks;
                    for (const kv::BlockId block : blocks) free_bytes.erase({&c, block});
                }
                break;
            }
            case 5:
                if (!live.empty()) {
                    auto it = live.begin();
                    std::advance(it, static_cast<long>(rng.below(live.size())));
                    const auto [who, id] = it->first;
                    who->node->abort(id);
                }
                break;
            case 6:
                if (rng.chance(0.3)) p.node->release(transfer);
                break;
            case 7:
                if (rng.chance(0.1)) {
                    Instance& victim = all[rng.below(4)];
                    victim.transport->stopped = true;
                    world.freeze(victim.host, std::chrono::milliseconds(rng.between(100, 3000)));
                    world.after(4s, [&victim] {
                        if (victim.transport) victim.transport->stopped = false;
                    });
                }
                break;
            default:
                world.run_for(std::chrono::microseconds(rng.between(100, 200000)));
        }
        for (const auto& [where, bytes] : free_bytes)
            ASSERT_EQ(snapshot(*where.first, where.second), bytes) << "step " << step;
    }
    world.run_for(60s);
    for (const auto& [where, bytes] : free_bytes)
        ASSERT_EQ(snapshot(*where.first, where.second), bytes);
    ASSERT_EQ(started, ended);
    ASSERT_TRUE(live.empty());
    for (Instance& each : all) {
        ASSERT_EQ(each.node->live_leases(), 0U);
        ASSERT_EQ(each.node->pool().pinned(), 0U);
        ASSERT_EQ(each.node->pool().claimed(), 0U);
        ASSERT_EQ(each.transport->landings(), 0U);
        ASSERT_EQ(each.transport->posts(), 0U);
        ASSERT_EQ(each.node->metrics().aborts_late.value(), 0U);
    }
}

TEST(NodeStorm, EveryPullEndsOnceAndNothingIsWrittenAfterwards) {
#ifdef SLUICE_SLOW_BUILD
    constexpr std::uint64_t kSeeds = 40;
#else
    constexpr std::uint64_t kSeeds = 400;
#endif
    for (std::uint64_t seed = 1; seed <= kSeeds && !::testing::Test::HasFailure(); ++seed)
        storm(seed);
}

}  // namespace
}  // namespace sluice::node::test
