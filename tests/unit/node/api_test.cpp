// SPDX-License-Identifier: Apache-2.0
// The public C++ and C API: nodes with threads of their own, over the real transports on loopback.
#include <gtest/gtest.h>

#include <sluice/kv.h>
#include <sluice/kv_c.h>

#include <map>
#include <mutex>
#include <thread>

#include "unit/kv/model.h"

namespace sluice::kv::test {
namespace {

using namespace std::chrono_literals;

constexpr std::chrono::milliseconds kLong = 30s;  // of a wait that is not expected to time out

class Api : public ::testing::Test {
protected:
    std::unique_ptr<Node> start(Role role, RankMemory& memory, const char* token = "secret") {
        Options options;
        options.role = role;
        options.engine_id = role == Role::Producer ? "p" : "c";
        options.kv_heads = model.kv_heads;
        options.token = token;
        options.sender_threads = 1;
        options.on_lease_ended = [this](const std::string& transfer, const BlocksByGroup&,
                                        LeaseEnding end) {
            std::lock_guard lock(mutex);
            ended[transfer] = end;
        };
        auto node = Node::create(options, memory.regions);
        EXPECT_TRUE(node.has_value()) << (node ? "" : node.error().sentence);
        return node ? std::move(*node) : nullptr;
    }
    bool wait_for_lease(const std::string& transfer) {
        for (int i = 0; i < 3000; ++i) {
            {
                std::lock_guard lock(mutex);
                if (ended.contains(transfer)) return true;
            }
            std::this_thread::sleep_for(10ms);
        }
        return false;
    }

    Model model{.layers = 4, .head_size = 64, .tokens = 16};
    RankMemory from{model, {.blocks = 64}};
    RankMemory to{model, {.blocks = 64}};
    std::mutex mutex;
    std::map<std::string, LeaseEnding> ended;
};

TEST_F(Api, ManyPullsAtOnceLand) {
    from.fill(1);
    const auto p = start(Role::Producer, from);
    const auto c = start(Role::Consumer, to);
    const Producer where{"p", {{p->address()}}};
    std::vector<PullHandle> pulls;
    for (BlockId i = 0; i < 16; ++i) {
        const std::string id = "t" + std::to_string(i);
        auto pull = c->pull(id, where, {{4 * i, 4 * i + 2, 4 * i + 1, 4 * i + 3}});
        ASSERT_TRUE(pull.has_value()) << pull.error().sentence;
        pulls.push_back(*pull);
        ASSERT_TRUE(p->publish(id, {{63 - 4 * i, 62 - 4 * i, 61 - 4 * i, 60 - 4 * i}}).ok());
    }
    for (const PullHandle& pull : pulls) {
        const auto result = pull.wait_for(kLong);
        ASSERT_TRUE(result.has_value());
        EXPECT_EQ(result->status.code, Code::Ok) << result->status.sentence;
        EXPECT_TRUE(result->has_landed(0, 3));
    }
    for (BlockId i = 0; i < 16; ++i) {
        ASSERT_TRUE(wait_for_lease("t" + std::to_string(i)));
        const BlockId src[] = {63 - 4 * i, 62 - 4 * i, 61 - 4 * i, 60 - 4 * i};
        const BlockId dst[] = {4 * i, 4 * i + 2, 4 * i + 1, 4 * i + 3};
        for (int k = 0; k < 4; ++k)
            for (std::size_t r = 0; r < 4; ++r)
                ASSERT_EQ(std::memcmp(from.row(r, src[k], 0, 0), to.row(r, dst[k], 0, 0),
                                      from.regions[r].block_bytes),
                          0);
    }
    const std::string metrics = c->metrics();
    EXPECT_NE(
        metrics.find("sluice_kv_transfers_total{transport=\"tcp\",direction=\"received\"} 16"),
        std::string::npos)
        << metrics;
    EXPECT_NE(metrics.find("sluice_kv_pulls_live 0\n"), std::string::npos);
    EXPECT_NE(metrics.find("sluice_kv_sender_cpu_seconds_per_gib "), std::string::npos);
    EXPECT_EQ(metrics.find("sluice_kv_sender_cpu_seconds_per_gib 0.000000"), std::string::npos);
    const auto explained = c->explain(p->address());
    ASSERT_TRUE(explained.has_value()) << explained.error().sentence;
    EXPECT_NE(explained->find("used tcp"), std::string::npos) << *explained;
}

TEST_F(Api, AbortReturnsFenced) {
    const auto p = start(Role::Producer, from);
    const auto c = start(Role::Consumer, to);
    const Producer where{"p", {{p->address()}}};
    for (int round = 0; round < 50; ++round) {
        const std::string id = "t" + std::to_string(round);
        std::memset(from.memory[0].get(), round, from.regions[0].bytes);
        auto pull = c->pull(id, where, {{1, 2, 3}});
        ASSERT_TRUE(pull.has_value()) << pull.error().sentence;  // the blocks are free again
        ASSERT_TRUE(p->publish(id, {{5, 9, 7}}).ok());
        std::this_thread::sleep_for(std::chrono::microseconds(100 * (round % 20)));
        const PullResult result = pull->abort();
        EXPECT_TRUE(result.status.code == Code::Aborted || result.status.ok());
        std::memset(to.memory[0].get(), 0xcd, to.regions[0].bytes);
        std::this_thread::sleep_for(1ms);
        for (std::uint64_t i = 0; i < to.regions[0].bytes; ++i)
            ASSERT_EQ(to.memory[0][i], 0xcd) << "round " << round;
        p->release(id);
    }
}

TEST_F(Api, WhatIsWrongIsSaid) {
    const auto p = start(Role::Producer, from);
    const auto c = start(Role::Consumer, to, "another");
    const auto refused = c->pull("t", {"p", {{p->address()}}}, {{1}});
    ASSERT_TRUE(refused.has_value());
    const auto result = refused->wait_for(kLong);
    ASSERT_TRUE(result.has_value());
    EXPECT_EQ(result->status.code, Code::WrongToken) << result->status.sentence;
    EXPECT_EQ(c->explain(p->address()).error().code, Code::WrongToken);

    EXPECT_EQ(c->pull("t", {"p", {{"nonsense"}}}, {{1}}).error().sentence,
              "\"nonsense\" is no address of a node; e.g. 10.0.0.2:41000");
    EXPECT_EQ(c->pull("t", {"p", {}}, {{1}}).error().code, Code::BadOptions);
    EXPECT_EQ(p->publish("t", {{64}}).code, Code::BadBlocks);
    Options options;
    options.kv_heads = 4;
    options.token.assign(33, 'x');
    EXPECT_EQ(Node::create(options, from.regions).error().code, Code::BadOptions);
    options.token.clear();
    options.transports = {"pigeon"};
    EXPECT_NE(Node::create(options, from.regions).error().sentence.find("\"pigeon\""),
              std::string::npos);
    options.transports.clear();
    EXPECT_EQ(Node::create(options, {}).error().code, Code::BadRegion);
}

TEST_F(Api, ANodeThatGoesEndsItsPulls) {
    const auto p = start(Role::Producer, from);
    auto c = start(Role::Consumer, to);
    const auto pull = c->pull("t", {"p", {{p->address()}}}, {{1}});
    ASSERT_TRUE(pull.has_value());
    c.reset();
    EXPECT_EQ(pull->wait_for(kLong)->status.code, Code::Closed);
    EXPECT_EQ(pull->abort().status.code, Code::Closed);
}

TEST(CApi, RefusesWhatIsNoStruct) {
    EXPECT_EQ(sluice_kv_abi_version(), SLUICE_KV_ABI_VERSION);
    sluice_kv_node* node = nullptr;
    sluice_kv_options options{};
    EXPECT_EQ(sluice_kv_node_create(nullptr, nullptr, 0, &node), SLUICE_KV_BAD_OPTIONS);
    EXPECT_EQ(sluice_kv_node_create(&options, nullptr, 0, &node), SLUICE_KV_BAD_OPTIONS);
    EXPECT_NE(std::string(sluice_kv_error()).find("struct_bytes"), std::string::npos);
    options.struct_bytes = sizeof options;
    options.kv_heads = 4;
    EXPECT_EQ(sluice_kv_node_create(&options, nullptr, 0, &node), SLUICE_KV_BAD_REGION);
    EXPECT_STREQ(sluice_kv_error(), "no region is registered");
    EXPECT_EQ(node, nullptr);
    sluice_kv_node_destroy(nullptr);
    EXPECT_EQ(sluice_kv_publish(nullptr, "t", nullptr, 0), SLUICE_KV_BAD_OPTIONS);
    EXPECT_STREQ(sluice_kv_code_name(SLUICE_KV_PENDING), "Pending");
}

}  // namespace
}  // namespace sluice::kv::test
