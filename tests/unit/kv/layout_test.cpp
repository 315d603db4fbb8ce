// SPDX-License-Identifier: Apache-2.0
// What a node may register, and the sentence for what it may not.
#include "kv/layout.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>

#include "unit/kv/model.h"

namespace sluice::kv::test {
namespace {

TEST(Layout, AGoodOneIsDescribed) {
    const RankMemory memory({.layers = 28, .kv_heads = 8, .head_size = 64, .tokens = 16},
                            {.rank = {.tp_rank = 1, .tp_size = 2}, .blocks = 2});
    EXPECT_EQ(describe(memory.shape()),
              "tp 1/2, pp 0/1, 28 layers with K+V in one region, 8 KV heads (4 here), 256 bytes a "
              "token and head, 16 tokens a block, HND");
}

TEST(Layout, EveryContradictionHasItsSentence) {
    struct Wrong {
        std::function<void(std::vector<Region>&, Rank&, std::uint32_t&)> what;
        Code code;
        const char* sentence;
    };
    const Wrong all[] = {
        {[](auto& r, auto&, auto&) { r[1].bytes -= 1; }, Code::BadRegion,
         "are not a multiple of the block's"},
        {[](auto& r, auto&, auto&) { r[1].block_bytes -= 1; }, Code::BadRegion,
         "is not a multiple of a token's"},
        {[](auto& r, auto&, auto&) { r[1].block_stride = 1; }, Code::BadRegion,
         "is less than block_bytes"},
        {[](auto& r, auto&, auto&) { r[1].base = nullptr; }, Code::BadRegion, "its base is null"},
        {[](auto& r, auto&, auto&) { r[1].bytes = 0; }, Code::BadRegion, "it has no block"},
        {[](auto& r, auto&, auto&) { r[1].head_size = 0; }, Code::BadRegion, "at least 1"},
        {[](auto& r, auto&, auto&) { r[1].head_size = UINT32_MAX; }, Code::BadRegion, "too long"},
        {[](auto& r, auto&, auto&) { r[1].kv_heads = 2; }, Code::BadRegion, "it has 2 KV heads"},
        {[](auto& r, auto&, auto&) { r[1].layer_name = r[0].layer_name; }, Code::BadRegion,
         "registered twice"},
        {[](auto& r, auto&, auto&) {
             r[1].layer_name = r[0].layer_name;
             r[1].part = Part::Key;
             r[1].head_size *= 2;
         },
         Code::BadRegion, "a region for both parts"},
        {[](auto& r, auto&, auto&) { r[1].layer_name.clear(); }, Code::BadRegion, "layer name"},
        {[](auto& r, auto&, auto&) { r[1].layer_name.assign(257, 'x'); }, Code::BadRegion,
         "1 to 256 bytes"},
        {[](auto& r, auto&, auto&) { r[1].bytes /= 2; }, Code::BadRegion,
         "others of its group have 8 of 4"},
        {[](auto& r, auto&, auto&) { r[1].group = 2; }, Code::BadRegion, "group 1 has no region"},
        {[](auto& r, auto&, auto&) { r[1].group = 16; }, Code::LimitReached, "kGroupsMax"},
        {[](auto& r, auto&, auto&) { r.clear(); }, Code::BadRegion, "no region is registered"},
        {[](auto& r, auto&, auto&) { r.resize(limits::kRegionsMax + 1); }, Code::LimitReached,
         "kRegionsMax"},
        {[](auto&, auto& rank, auto&) { rank.tp_size = 0; }, Code::BadOptions, "tp_size is 0"},
        {[](auto&, auto& rank, auto&) { rank.tp_rank = 1; }, Code::BadOptions,
         "tp_rank 1 is not below"},
        {[](auto&, auto& rank, auto&) { rank.pp_size = 5000; }, Code::BadOptions, "1 to 1024"},
        {[](auto&, auto& rank, auto&) { rank.tp_size = 3; }, Code::BadOptions,
         "4 KV heads cannot be divided among, or replicated over, 3"},
        {[](auto&, auto&, auto& heads) { heads = 0; }, Code::BadOptions, "at least 1"},
    };
    for (const Wrong& wrong : all) {
        const RankMemory memory({}, {});
        std::vector<Region> regions = memory.regions;
        Rank rank;
        std::uint32_t heads = 4;
        wrong.what(regions, rank, heads);
        const auto shape = shape_of(regions, rank, heads);
        ASSERT_FALSE(shape.has_value()) << wrong.sentence;
        EXPECT_EQ(shape.error().code, wrong.code) << wrong.sentence;
        EXPECT_NE(shape.error().sentence.find(wrong.sentence), std::string::npos)
            << shape.error().sentence;
    }
}

TEST(Layout, EveryCodeHasItsName) {
    EXPECT_STREQ(name_of(Code::Ok), "Ok");
    EXPECT_STREQ(name_of(Code::System), "System");
    EXPECT_STREQ(name_of(Code::ShapeMismatch), "ShapeMismatch");
    EXPECT_STREQ(name_of(static_cast<Code>(999)), "Unknown");
}

}  // namespace
}  // namespace sluice::kv::test
