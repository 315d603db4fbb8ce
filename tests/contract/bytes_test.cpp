// SPDX-License-Identifier: Apache-2.0
// The contract of every transport: exact bytes, in every shape, and nothing beside them.
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "base/rng.h"
#include "contract/node.h"

namespace sluice::transport {
namespace {

constexpr std::size_t kPool = 24 << 20;

class Bytes : public testing::TestWithParam<std::string_view> {
protected:
    Bytes()
        : from(kPool),
          to(kPool),
          producer(GetParam(), patient(), {.threads = 2, .pin = false}),
          consumer(GetParam(), patient(), {.threads = 2, .pin = false}) {
        src = *producer->register_memory(from.region());
        dst = *consumer->register_memory(to.region());
        connected = pair.connect(consumer, producer);
        for (std::size_t i = 0; i + 8 <= kPool; i += 8) {
            const std::uint64_t value = rng();
            std::memcpy(from.at(i), &value, 8);
        }
        expected.assign(kPool, std::byte{0});
    }

    // What a batch should move, piece by piece, as the header says it.
    static std::vector<std::pair<std::uint64_t, std::uint32_t>> pieces(const Batch& batch) {
        std::vector<std::pair<std::uint64_t, std::uint32_t>> out;
        for (const Range& range : batch.ranges)
            for (std::uint32_t b = 0; b < range.block_count; ++b)
                for (std::uint32_t o = 0; o < range.outer.count; ++o)
                    for (std::uint32_t i = 0; i < range.inner.count; ++i)
                        out.emplace_back(
                            range.offset +
                                batch.blocks[range.first_block + b] * range.block_stride +
                                o * range.outer.stride + i * range.inner.stride,
                            range.piece_bytes);
        return out;
    }
    void expect_moved(const Batch& source, const Batch& target) {
        std::vector<std::byte> stream;
        for (const auto& [at, bytes] : pieces(source))
            stream.insert(stream.end(), from.at(at), from.at(at) + bytes);
        std::size_t done = 0;
        for (const auto& [at, bytes] : pieces(target)) {
            std::copy_n(stream.begin() + static_cast<std::ptrdiff_t>(done), bytes,
                        expected.begin() + static_cast<std::ptrdiff_t>(at));
            done += bytes;
        }
    }
    void move(const Batch& source, const Batch& target) {
        const auto ticket = consumer->open(pair.at_consumer, target, {});
        ASSERT_TRUE(ticket);
        ASSERT_TRUE(producer->post(pair.at_producer, *ticket, source, {}));
        const auto landed = consumer.wait(Event::Landing);
        const auto delivered = producer.wait(Event::Post);
        ASSERT_TRUE(landed && delivered);
        EXPECT_EQ(landed->status, Status::Landed);
        EXPECT_EQ(delivered->status, Status::Delivered);
        consumer->release(*ticket);
        expect_moved(source, target);
    }
    // Every byte of the pool: those of the blocks, and that no other has changed.
    bool pool_is_as_expected() const { return std::memcmp(to.at(0), expected.data(), kPool) == 0; }

    Rng rng{11};
    Memory from, to;
    Node producer, consumer;
    RegionId src = 0, dst = 0;
    Pair pair;
    bool connected = false;
    std::vector<std::byte> expected;
};

std::vector<std::uint32_t> shuffled(Rng& rng, std::uint32_t below, std::uint32_t count) {
    std::vector<std::uint32_t> ids(below);
    std::iota(ids.begin(), ids.end(), 0);
    for (std::uint32_t i = 0; i < count; ++i) std::swap(ids[i], ids[i + rng.below(below - i)]);
    ids.resize(count);
    return ids;
}

TEST_P(Bytes, EverySizeAndAlignment) {
    ASSERT_TRUE(connected);
    const std::uint32_t sizes[] = {1,      2,    3,    7,     8,      63,     64,     65,
                                   4095,   4096, 4097, 65537, 262143, 262144, 262145, (1 << 20) + 3,
                                   3000001};
    const std::uint32_t offsets[] = {0, 1, 3, 8, 63, 4095};
    const std::vector<std::uint32_t> one{0};
    for (const auto size : sizes)
        for (const auto offset : offsets) {
            const Range a{.region = src, .piece_bytes = size, .offset = offset, .block_count = 1};
            const Range b{.region = dst,
                          .piece_bytes = size,
                          .offset = 2u * 4096 + offsets[rng.below(6)] + (rng.below(2) << 20),
                          .block_count = 1};
            move({{&a, 1}, one}, {{&b, 1}, one});
            if (HasFatalFailure()) return;
        }
    EXPECT_TRUE(pool_is_as_expected());
}

TEST_P(Bytes, ShuffledAndAdjacentBlocks) {
    ASSERT_TRUE(connected);
    for (const std::uint32_t block : {4096u, 32768u, 65536u, 600000u}) {
        const auto room = static_cast<std::uint32_t>(kPool / block);
        for (const std::uint32_t count : {1u, 2u, 5u, 17u, room}) {
            if (count > room) continue;
            auto a = shuffled(rng, room, count), b = shuffled(rng, room, count);
            if (rng.below(2) == 0) std::sort(a.begin(), a.end());  // neighbours merge
            if (rng.below(2) == 0) std::sort(b.begin(), b.end());
            const Range from_range{
                .region = src, .piece_bytes = block, .block_stride = block, .block_count = count};
            Range to_range = from_range;
            to_range.region = dst;
            move({{&from_range, 1}, a}, {{&to_range, 1}, b});
            if (HasFatalFailure()) return;
        }
    }
    EXPECT_TRUE(pool_is_as_expected());
}

// A layer's heads, sliced differently on each side: head-major here, token-major there.
TEST_P(Bytes, StridedRangesOfUnlikeShapes) {
    ASSERT_TRUE(connected);
    constexpr std::uint32_t kHeads = 4, kTokens = 16, kRow = 96,
                            kBlock = kHeads * kTokens * kRow * 2;
    for (int round = 0; round < 12; ++round) {
        std::vector<Range> a, b;
        const auto count = static_cast<std::uint32_t>(1 + rng.below(40));
        for (std::uint32_t layer = 0; layer < 5; ++layer) {
            Range range{.region = src,
                        .piece_bytes = kRow,
                        .block_stride = kBlock,
                        .first_block = layer % 2 == 0 ? 0u : count,
                        .block_count = count};
            range.offset = layer * 300 * kBlock;
            range.inner = {kTokens, 2 * kRow};
            range.outer = {kHeads, kTokens * 2 * kRow};
            a.push_back(range);
            range.region = dst;
            range.inner = {kTokens, kHeads * kRow};
            range.outer = {kHeads, kRow};
            range.offset = layer * 300 * kBlock + 40;
            if (layer == 3) {  // one piece there
                range.piece_bytes = kRow * kTokens * kHeads;
                range.inner = range.outer = {1, 0};
            }
            b.push_back(range);
        }
        auto ids_a = shuffled(rng, 200, 2 * count), ids_b = shuffled(rng, 200, 2 * count);
        move({a, ids_a}, {b, ids_b});
        if (HasFatalFailure()) return;
    }
    EXPECT_TRUE(pool_is_as_expected());
}

TEST_P(Bytes, ManyTransfersAtOnceOfUnlikeSizeAndPriority) {
    ASSERT_TRUE(connected);
    constexpr std::uint32_t kBlock = 4096, kTransfers = 300;
    const auto room = static_cast<std::uint32_t>(kPool / kBlock);
    const auto all_a = shuffled(rng, room, room), all_b = shuffled(rng, room, room);
    std::vector<Ticket> tickets;
    std::uint32_t used = 0;
    for (std::uint32_t i = 0; i < kTransfers; ++i) {
        const auto count = static_cast<std::uint32_t>(1 + rng.below(i % 50 == 0 ? 400 : 12));
        if (used + count > room) break;
        const std::span a(all_a.data() + used, count), b(all_b.data() + used, count);
        used += count;
        const Range range{
            .region = 0, .piece_bytes = kBlock, .block_stride = kBlock, .block_count = count};
        const auto ticket = consumer->open(pair.at_consumer, {{&range, 1}, b}, {.user = i});
        ASSERT_TRUE(ticket);
        tickets.push_back(*ticket);
        ASSERT_TRUE(producer->post(pair.at_producer, *ticket, {{&range, 1}, a},
                                   {.priority = static_cast<Priority>(rng.below(3))}));
        expect_moved({{&range, 1}, a}, {{&range, 1}, b});
    }
    for (std::size_t i = 0; i < tickets.size(); ++i) {
        const auto landed = consumer.wait(Event::Landing);
        const auto delivered = producer.wait(Event::Post);
        ASSERT_TRUE(landed && delivered);
        EXPECT_EQ(landed->status, Status::Landed);
        EXPECT_EQ(delivered->status, Status::Delivered);
        consumer->release(landed->ticket);
    }
    EXPECT_TRUE(pool_is_as_expected());
}

// Layer by layer, as the prefill finishes them, and not in their order.
TEST_P(Bytes, ALandingIsFilledByPostsInParts) {
    ASSERT_TRUE(connected);
    constexpr std::uint32_t kBlock = 8192, kLayers = 6, kCount = 30;
    std::vector<Range> layers;
    for (std::uint32_t i = 0; i < kLayers; ++i)
        layers.push_back({.region = 0,
                          .piece_bytes = kBlock,
                          .offset = i * 60u * kBlock,
                          .block_stride = kBlock,
                          .block_count = kCount});
    const auto a = shuffled(rng, 60, kCount), b = shuffled(rng, 60, kCount);
    const auto ticket = consumer->open(pair.at_consumer, {layers, b}, {});
    ASSERT_TRUE(ticket);
    for (const std::uint32_t layer : {2u, 0u, 1u, 5u, 3u, 4u}) {
        EXPECT_FALSE(consumer.wait(Event::Landing, Duration::zero()));
        ASSERT_TRUE(producer->post(pair.at_producer, *ticket, {{&layers[layer], 1}, a},
                                   {.first_range = layer}));
        const auto delivered = producer.wait(Event::Post);
        ASSERT_TRUE(delivered);
        EXPECT_EQ(delivered->status, Status::Delivered);
    }
    const auto landed = consumer.wait(Event::Landing);
    ASSERT_TRUE(landed);
    EXPECT_EQ(landed->status, Status::Landed);
    expect_moved({layers, a}, {layers, b});
    EXPECT_TRUE(pool_is_as_expected());
    consumer->release(*ticket);
}

TEST_P(Bytes, BatchesThatLeaveTheirRegionAreRefused) {
    ASSERT_TRUE(connected);
    const std::vector<std::uint32_t> ids{0, 5999};
    Range range{.region = dst, .piece_bytes = 4096, .block_stride = 4096, .block_count = 2};
    EXPECT_TRUE(consumer->open(pair.at_consumer, {{&range, 1}, ids}, {}));
    Range beyond = range;
    beyond.offset = kPool - 5999u * 4096 - 4095;
    EXPECT_FALSE(consumer->open(pair.at_consumer, {{&beyond, 1}, ids}, {}));
    beyond = range;
    beyond.block_stride = UINT64_MAX / 2;
    EXPECT_FALSE(consumer->open(pair.at_consumer, {{&beyond, 1}, ids}, {}));
    beyond = range;
    beyond.block_count = 3;
    EXPECT_FALSE(consumer->open(pair.at_consumer, {{&beyond, 1}, ids}, {}));
    beyond = range;
    beyond.region = 9;
    EXPECT_FALSE(consumer->open(pair.at_consumer, {{&beyond, 1}, ids}, {}));
    beyond = range;
    beyond.inner = {1000, 1u << 20};
    EXPECT_FALSE(consumer->open(pair.at_consumer, {{&beyond, 1}, ids}, {}));
    EXPECT_FALSE(consumer->open(pair.at_consumer, {}, {}));
}

INSTANTIATE_TEST_SUITE_P(All, Bytes, testing::Values("tcp", "shm", "mooncake"));

}  // namespace
}  // namespace sluice::transport
