// SPDX-License-Identifier: Apache-2.0
// Plans against the definition: random shapes, every byte of every rank's memory compared.
#include "kv/plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "unit/kv/model.h"

namespace sluice::kv::test {
namespace {

// The bytes of ranges [first, end) in the order in which both halves have them.
std::vector<unsigned char*> bytes_of(const Half& half, RankMemory& memory, std::uint32_t first,
                                     std::uint32_t end) {
    std::vector<unsigned char*> bytes;
    for (std::uint32_t r = first; r < end; ++r) {
        const transport::Range& range = half.ranges[r];
        for (std::uint32_t b = 0; b < range.block_count; ++b)
            for (std::uint32_t o = 0; o < range.outer.count; ++o)
                for (std::uint32_t i = 0; i < range.inner.count; ++i) {
                    const std::uint64_t at =
                        range.offset + half.blocks[range.first_block + b] * range.block_stride +
                        o * range.outer.stride + i * range.inner.stride;
                    EXPECT_LE(at + range.piece_bytes, memory.regions[range.region].bytes);
                    for (std::uint32_t k = 0; k < range.piece_bytes; ++k)
                        bytes.push_back(memory.memory[range.region].get() + at + k);
                }
    }
    return bytes;
}

struct Case {
    Model model;
    RankLayout producer, consumer;  // all ranks of a side alike; ranks filled in by the test
    std::uint32_t published = 0, wanted = 0;
    bool ascending = false;
};

Case random_case(Rng& rng) {
    constexpr std::uint32_t kSizes[] = {1, 2, 4, 8};
    Case c;
    c.model.kv_heads = kSizes[rng.below(4)];
    c.model.layers = 4;
    c.model.head_size = static_cast<std::uint32_t>(rng.between(1, 3));
    c.model.element_bytes = static_cast<std::uint32_t>(rng.between(1, 2));
    c.model.tokens = static_cast<std::uint32_t>(rng.between(1, 4));
    c.model.groups = rng.chance(0.2) ? 2 : 1;
    c.model.joint = rng.chance(0.5);
    for (RankLayout* side : {&c.producer, &c.consumer}) {
        side->rank.tp_size = kSizes[rng.below(4)];
        side->rank.pp_size = c.model.groups > 1 ? 1 : kSizes[rng.below(2)];
        side->layout = rng.chance(0.5) ? Layout::Hnd : Layout::Nhd;
        side->blocks = static_cast<std::uint32_t>(rng.between(4, 12));
        side->gap = rng.chance(0.3) ? static_cast<std::uint32_t>(rng.between(1, 9)) : 0;
        side->values_first = rng.chance(0.3);
    }
    c.published = static_cast<std::uint32_t>(rng.between(0, c.producer.blocks));
    c.wanted = static_cast<std::uint32_t>(rng.between(0, std::min(c.published, c.consumer.blocks)));
    c.ascending = rng.chance(0.4);
    return c;
}

std::vector<std::unique_ptr<RankMemory>> ranks_of(const Model& model, RankLayout layout) {
    std::vector<std::unique_ptr<RankMemory>> ranks;
    for (std::uint32_t pp = 0; pp < layout.rank.pp_size; ++pp)
        for (std::uint32_t tp = 0; tp < layout.rank.tp_size; ++tp) {
            layout.rank.tp_rank = tp;
            layout.rank.pp_rank = pp;
            ranks.push_back(std::make_unique<RankMemory>(model, layout));
        }
    return ranks;
}

BlocksByGroup random_blocks(Rng& rng, const Case& c, std::uint32_t pool, std::uint32_t count) {
    BlocksByGroup blocks(c.model.groups);
    for (auto& group : blocks) {
        group = shuffled_blocks(rng, pool, count);
        if (c.ascending) std::ranges::sort(group);
    }
    return blocks;
}

// Moves everything, and compares every byte of every consumer rank with the definition.
void check_case(std::uint64_t seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Rng rng(seed);
    const Case c = random_case(rng);
    auto producers = ranks_of(c.model, c.producer);
    auto consumers = ranks_of(c.model, c.consumer);
    for (auto& rank : producers) rank->fill(seed);
    const BlocksByGroup published = random_blocks(rng, c, c.producer.blocks, c.published);
    const BlocksByGroup wanted = random_blocks(rng, c, c.consumer.blocks, c.wanted);

    std::map<const RankMemory*, std::uint32_t> pulls;  // by producer
    std::map<const RankMemory*, std::uint32_t> expected_pulls;
    for (auto& consumer : consumers) {
        const Shape to = consumer->shape();
        for (auto& bytes : consumer->memory) std::memset(bytes.get(), 0xee, 1);
        std::vector<std::vector<unsigned char>> before;
        for (std::size_t r = 0; r < consumer->regions.size(); ++r) {
            std::memset(consumer->memory[r].get(), 0xee, consumer->regions[r].bytes);
            before.emplace_back(consumer->regions[r].bytes, 0xee);
        }
        const auto sources = sources_of(to.rank, c.producer.rank.tp_size, c.model.kv_heads);
        ASSERT_TRUE(sources.has_value());
        std::uint64_t coverage = 0;
        for (auto& producer : producers) {
            const Shape from = producer->shape();
            const auto mine = std::ranges::find(*sources, from.rank.tp_rank, &Source::tp_rank);
            if (mine == sources->end()) continue;
            ++pulls[producer.get()];
            expected_pulls[producer.get()] = *pullers_of(from.rank, to.rank);
            const auto route = make_route(from, to);
            ASSERT_TRUE(route.has_value()) << route.error().sentence;
            coverage += route->coverage;
            const Counts counts = counts_of(wanted);
            const auto src = make_half(*route, Side::Producer, published, counts);
            const auto dst = make_half(*route, Side::Consumer, wanted, counts);
            ASSERT_TRUE(src.has_value()) << src.error().sentence;
            ASSERT_TRUE(dst.has_value()) << dst.error().sentence;
            ASSERT_EQ(src->bytes, dst->bytes);
            ASSERT_LE(src->merged, src->pieces);
            ASSERT_LE(route->pairs.size(), to.regions.size());
            // First the early layers, then the rest, as a prefill publishes them.
            const std::uint32_t cut =
                first_pair(*route, static_cast<std::uint32_t>(rng.below(c.model.layers + 1)));
            const auto all = static_cast<std::uint32_t>(route->pairs.size());
            std::uint64_t bytes = 0;
            for (const auto& [first, end] : {std::pair{0U, cut}, std::pair{cut, all}}) {
                const auto from_bytes = bytes_of(*src, *producer, first, end);
                const auto to_bytes = bytes_of(*dst, *consumer, first, end);
                ASSERT_EQ(from_bytes.size(), to_bytes.size());
                for (std::size_t i = 0; i < to_bytes.size(); ++i) *to_bytes[i] = *from_bytes[i];
                bytes += to_bytes.size();
            }
            ASSERT_EQ(bytes, src->bytes);
        }
        EXPECT_EQ(coverage, coverage_wanted(to));

        // The definition.
        for (std::size_t r = 0; r < consumer->regions.size(); ++r) {
            const Region& region = consumer->regions[r];
            const auto& to_ids = wanted[region.group];
            const auto& from_ids = published[region.group];
            for (std::size_t i = 0; i < to_ids.size(); ++i) {
                const BlockId src = from_ids[from_ids.size() - to_ids.size() + i];
                for (std::uint32_t h = consumer->heads().first; h < consumer->heads().end; ++h)
                    for (std::uint32_t t = 0; t < c.model.tokens; ++t) {
                        const auto at =
                            consumer->row(r, to_ids[i], h, t) - consumer->memory[r].get();
                        for (std::uint32_t b = 0; b < consumer->row_bytes(); ++b)
                            before[r][static_cast<std::size_t>(at) + b] =
                                RankMemory::expected(seed, region, src, h, t, b);
                    }
            }
            ASSERT_EQ(std::memcmp(before[r].data(), consumer->memory[r].get(), region.bytes), 0)
                << "region " << r << " of tp rank " << to.rank.tp_rank;
        }
    }
    // Every producer rank hears of its pullers, so that its lease ends.
    for (auto& producer : producers) {
        ASSERT_GE(pulls[producer.get()], 1U);
        EXPECT_EQ(pulls[producer.get()], expected_pulls[producer.get()]);
    }
}

TEST(Plan, EveryByteIsWhereTheDefinitionSays) {
#ifdef SLUICE_SLOW_BUILD
    constexpr std::uint64_t kSeeds = 200;
#else
    constexpr std::uint64_t kSeeds = 3000;
#endif
    for (std::uint64_t seed = 1; seed <= kSeeds && !::testing::Test::HasFailure(); ++seed)
        check_case(seed);
}

class PlanOf : public ::testing::Test {
protected:
    Outcome<Route> route(const Model& m, const RankLayout& p, const RankLayout& c) {
        return make_route(RankMemory(m, p).shape(), RankMemory(m, c).shape());
    }
    Model model{.layers = 3};
    RankLayout layout{.blocks = 64};
};

TEST_F(PlanOf, ARegionIsOneRangeAndNeighboursCountOnce) {
    const auto r = route(model, layout, layout);
    ASSERT_TRUE(r.has_value());
    const auto half = make_half(*r, Side::Producer, {{10, 11, 12, 20, 21}}, {5});
    ASSERT_TRUE(half.has_value());
    EXPECT_EQ(half->ranges.size(), 3U);
    EXPECT_EQ(half->ranges[2].block_count, 5U);
    EXPECT_EQ(half->pieces, 15U);
    EXPECT_EQ(half->merged, 6U);
    EXPECT_EQ(first_pair(*r, 0), 0U);
    EXPECT_EQ(first_pair(*r, 2), 2U);
    EXPECT_EQ(first_pair(*r, 99), 3U);
}

TEST_F(PlanOf, TheLastBlocksAreTaken) {
    const auto r = route(model, layout, layout);
    const auto half = make_half(*r, Side::Producer, {{1, 2, 3, 4}}, {2});
    ASSERT_TRUE(half.has_value());
    EXPECT_EQ(half->blocks, (std::vector<BlockId>{3, 4}));
    const auto more = make_half(*r, Side::Producer, {{1}}, {2});
    ASSERT_FALSE(more.has_value());
    EXPECT_EQ(more.error().code, Code::TooFewBlocks);
    EXPECT_EQ(more.error().sentence,
              "the consumer wants 2 blocks of group 0, the producer published 1");
    EXPECT_EQ(make_half(*r, Side::Producer, {{1, 2}}, {0})->bytes, 0U);
    EXPECT_EQ(make_half(*r, Side::Producer, {}, {})->bytes, 0U);
}

TEST_F(PlanOf, IdsOutsideTheRegionsAreRefused) {
    const Shape shape = RankMemory(model, layout).shape();
    const auto r = route(model, layout, layout);
    for (const BlockId id : {BlockId{64}, BlockId{UINT32_MAX}})
        for (const Side side : {Side::Producer, Side::Consumer}) {
            const auto half = make_half(*r, side, {{1, id}}, {2});
            ASSERT_FALSE(half.has_value());
            EXPECT_EQ(half.error().code, Code::BadBlocks);
            EXPECT_EQ(check_blocks(shape, {{id}}).code, Code::BadBlocks);
        }
    EXPECT_EQ(make_half(*r, Side::Producer, {{1}, {1}}, {1, 1}).error().code, Code::BadBlocks);
    EXPECT_EQ(check_blocks(shape, {{1}, {1}}).code, Code::BadBlocks);
    EXPECT_TRUE(check_blocks(shape, {{63}}).ok());
    EXPECT_TRUE(check_blocks(shape, {{}}).ok());
}

TEST_F(PlanOf, ALargerPlanThanItsLimitIsRefused) {
    const auto r = route(model, layout, layout);
    const std::uint32_t many = limits::kTransferBlocksMax + 1;
    const auto half = make_half(*r, Side::Consumer, {std::vector<BlockId>(many, 0)}, {many});
    ASSERT_FALSE(half.has_value());
    EXPECT_EQ(half.error().code, Code::LimitReached);
    EXPECT_NE(half.error().sentence.find("kTransferBlocksMax"), std::string::npos);
    EXPECT_EQ(check_blocks(RankMemory(model, layout).shape(), {std::vector<BlockId>(many, 0)}).code,
              Code::LimitReached);
}

TEST_F(PlanOf, ShapesThatDoNotFitAreBothShown) {
    const auto expect_refused = [&](const Model& other, const RankLayout& consumer,
                                    const char* what) {
        const auto r =
            make_route(RankMemory(model, layout).shape(), RankMemory(other, consumer).shape());
        ASSERT_FALSE(r.has_value()) << what;
        EXPECT_EQ(r.error().code, Code::ShapeMismatch);
        EXPECT_NE(r.error().sentence.find(what), std::string::npos) << r.error().sentence;
        EXPECT_NE(r.error().sentence.find("The producer has tp 0/1"), std::string::npos);
        EXPECT_NE(r.error().sentence.find("the consumer has tp "), std::string::npos);
    };
    Model other = model;
    other.kv_heads = 8;
    expect_refused(other, layout, "differ in their KV heads");
    other = model;
    other.head_size = 4;
    expect_refused(other, layout, "rows of 8 bytes");
    other = model;
    other.tokens = 8;
    expect_refused(other, layout, "4 tokens a block");
    other = model;
    other.layers = 4;
    expect_refused(other, layout, "has layers that the producer has not");
    other = model;
    other.joint = false;
    expect_refused(other, layout, "one region on one side only");
}

TEST(Pairing, OnlySizesThatDivide) {
    EXPECT_FALSE(sources_of({.tp_rank = 0, .tp_size = 3}, 2, 6).has_value());
    const auto refused = sources_of({.tp_rank = 0, .tp_size = 3}, 2, 6);
    EXPECT_EQ(
        refused.error().sentence,
        "a producer of tp_size 2 and a consumer of tp_size 3 do not pair: one must divide the "
        "other");
    // 8 ranks for 2 heads: 4 replicas each; a consumer of 2 ranks takes each head once.
    const auto sources = sources_of({.tp_rank = 1, .tp_size = 2}, 8, 2);
    ASSERT_TRUE(sources.has_value());
    EXPECT_EQ(*sources, (std::vector<Source>{{4, {1, 2}}, {5, {0, 0}}, {6, {0, 0}}, {7, {0, 0}}}));
}

}  // namespace
}  // namespace sluice::kv::test
