// SPDX-License-Identifier: Apache-2.0
// What seeing costs: a histogram entry, a counter, and for comparison the clock read that the loop
// saves.
#include <benchmark/benchmark.h>

#include "base/rng.h"
#include "obs/duration_histogram.h"

namespace sluice {
namespace {

void histogram_record(benchmark::State& state) {
    obs::DurationHistogram histogram;
    Rng rng(1);
    Duration values[256];
    for (Duration& value : values)
        value = Duration(static_cast<std::int64_t>(rng() >> rng.between(24, 50)));
    std::size_t i = 0;
    for (auto _ : state) histogram.record(values[i++ & 255]);
    benchmark::DoNotOptimize(histogram);
}
BENCHMARK(histogram_record);

void counter_add(benchmark::State& state) {
    obs::Counter counter;
    for (auto _ : state) {
        counter.add(3);
        benchmark::ClobberMemory();
    }
}
BENCHMARK(counter_add);

void clock_read(benchmark::State& state) {
    for (auto _ : state) benchmark::DoNotOptimize(MonotonicClock::now());
}
BENCHMARK(clock_read);

}  // namespace
}  // namespace sluice

BENCHMARK_MAIN();
