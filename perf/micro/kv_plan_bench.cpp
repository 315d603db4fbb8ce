// SPDX-License-Identifier: Apache-2.0
// Planning one transfer: a million tokens (62,500 blocks of 16) of an 80-layer model, block ids of
// a used pool (shuffled on both sides, nothing merges) and of a fresh one.
//
//   build/release/perf/micro_kv_plan_bench        the target is 5 ms of CPU a plan
#include <benchmark/benchmark.h>

#include "kv/plan.h"

#include "base/rng.h"

namespace {

using namespace sluice;
using namespace sluice::kv;

constexpr std::uint32_t kBlocks = 62500;
constexpr std::uint32_t kPool = 65536;

Shape shape(Layout layout, std::uint32_t tp_rank, std::uint32_t tp_size) {
    Shape made;
    made.rank.tp_rank = tp_rank;
    made.rank.tp_size = tp_size;
    made.kv_heads = 8;
    for (std::uint32_t layer = 0; layer < 80; ++layer)
        for (const Part part : {Part::Key, Part::Value}) {
            Geometry one;
            one.part = part;
            one.layout = layout;
            one.heads = 8 / tp_size;
            one.row_bytes = 256;
            one.block_bytes = one.block_stride = 16 * one.heads * one.row_bytes;
            one.blocks = kPool;
            one.layer = layer;
            one.layer_name = "model.layers." + std::to_string(layer) + ".self_attn.attn";
            made.regions.push_back(one);
        }
    return made;
}

BlocksByGroup ids(bool used, std::uint64_t seed) {
    Rng rng(seed);
    std::vector<BlockId> all(kPool);
    for (std::uint32_t i = 0; i < kPool; ++i) all[i] = i;
    if (used)
        for (std::uint32_t i = kPool; i > 1; --i) std::swap(all[i - 1], all[rng.below(i)]);
    all.resize(kBlocks);
    return {all};
}

void plan(benchmark::State& state) {
    const bool used = state.range(0) != 0;
    const auto route = make_route(shape(Layout::Hnd, 1, 4), shape(Layout::Hnd, 0, 2));
    const BlocksByGroup from = ids(used, 1), to = ids(used, 2);
    std::size_t bytes = 0, ranges = 0;
    std::uint64_t pieces = 0, merged = 0;
    for (auto _ : state) {
        // Both sides', though each has its own machine.
        const auto producer = make_half(*route, Side::Producer, from, counts_of(to));
        const auto consumer = make_half(*route, Side::Consumer, to, counts_of(to));
        benchmark::DoNotOptimize(producer->blocks.data());
        benchmark::DoNotOptimize(consumer->blocks.data());
        bytes = producer->blocks.capacity() * sizeof(BlockId) +
                producer->ranges.capacity() * sizeof(transport::Range);
        ranges = producer->ranges.size();
        pieces = producer->pieces;
        merged = producer->merged;
    }
    state.counters["half_bytes"] = static_cast<double>(bytes);
    state.counters["ranges"] = static_cast<double>(ranges);
    state.counters["pieces"] = static_cast<double>(pieces);
    state.counters["merged"] = static_cast<double>(merged);
}
BENCHMARK(plan)->ArgName("used")->Arg(1)->Arg(0)->Unit(benchmark::kMillisecond);

void route(benchmark::State& state) {
    const Shape from = shape(Layout::Hnd, 1, 4), to = shape(Layout::Hnd, 0, 2);
    for (auto _ : state) benchmark::DoNotOptimize(make_route(from, to));
}
BENCHMARK(route)->Unit(benchmark::kMillisecond);

}  // namespace

BENCHMARK_MAIN();
