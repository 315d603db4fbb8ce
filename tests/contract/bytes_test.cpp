// SPDX-License-Identifier: Apache-2.0
// The contract of every transport: exact bytes, in every shape.
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "base/rng.h"
#include "contract/node.h"

namespace sluice::transport {
namespace {

class Bytes : public testing::TestWithParam<std::string_view> {};

TEST_P(Bytes, ShuffledBlocksOfAFullPool) {
    Memory from(64 << 20), to(64 << 20);
    Node producer(GetParam(), patient()), consumer(GetParam(), patient());
    const auto src = producer->register_memory(from.region());
    const auto dst = consumer->register_memory(to.region());
    ASSERT_TRUE(src && dst);
    Pair pair;
    ASSERT_TRUE(pair.connect(consumer, producer));
    Rng rng{1};
    for (std::size_t i = 0; i < from.bytes().size(); i += 8) {
        const std::uint64_t value = rng();
        std::memcpy(from.at(i), &value, 8);
    }
    std::vector<std::uint32_t> a(1024), b(1024);
    std::iota(a.begin(), a.end(), 0);
    b = a;
    for (std::size_t i = 1024; i-- > 1;) {
        std::swap(a[i], a[rng.below(i + 1)]);
        std::swap(b[i], b[rng.below(i + 1)]);
    }
    for (int round = 0; round < 4; ++round) {
        Range range{
            .region = *src, .piece_bytes = 64 << 10, .block_stride = 64 << 10, .block_count = 1024};
        const auto ticket = consumer->open(pair.at_consumer, {{&range, 1}, b}, {});
        ASSERT_TRUE(ticket);
        ASSERT_TRUE(producer->post(pair.at_producer, *ticket, {{&range, 1}, a}, {}));
        const auto landed = consumer.wait(Event::Landing);
        ASSERT_TRUE(landed);
        EXPECT_EQ(landed->status, Status::Landed);
        const auto done = producer.wait(Event::Post);
        ASSERT_TRUE(done);
        EXPECT_EQ(done->status, Status::Delivered);
        consumer->release(*ticket);
        for (int i = 0; i < 1024; ++i)
            ASSERT_EQ(std::memcmp(from.at(a[i] * 65536ull), to.at(b[i] * 65536ull), 65536), 0);
        std::memset(to.at(0), 0, 64 << 20);
    }
}

INSTANTIATE_TEST_SUITE_P(All, Bytes, testing::Values("tcp", "shm"));

}  // namespace
}  // namespace sluice::transport
