// SPDX-License-Identifier: Apache-2.0
// What seeing costs: a histogram entry, a counter, a record for the access log (the worker's part),
// its line (the log thread's part), and for comparison the clock read that the loop saves.
#include <benchmark/benchmark.h>

#include "base/rng.h"
#include "base/spsc_ring.h"
#include "obs/duration_histogram.h"
#include "pd/access_record.h"

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

pd::AccessRecord some_record() {
    pd::AccessRecord record;
    record.timeline.began = record.timeline.received = Instant(std::chrono::seconds(1));
    record.timeline.attempts = 1;
    record.ended = record.timeline.last_byte = Instant(std::chrono::seconds(2));
    record.request_id.set("0123456789abcdef0123456789abcdef");
    record.model.set("meta-llama/Llama-3.1-8B-Instruct");
    record.path.set("/v1/chat/completions");
    return record;
}

// Filled into a ring of the log's size, which is emptied meanwhile.
void access_log_record(benchmark::State& state) {
    SpscRing<pd::AccessRecord> ring(4096);
    for (auto _ : state) {
        if (!ring.try_push(some_record())) {
            state.PauseTiming();
            ring.consume([](pd::AccessRecord&&) {});
            state.ResumeTiming();
        }
    }
}
BENCHMARK(access_log_record);

void access_log_line(benchmark::State& state) {
    const pd::AccessRecord record = some_record();
    const pd::AccessContext context;
    std::string out;
    for (auto _ : state) {
        out.clear();
        pd::append_access_line(out, record, context);
        benchmark::DoNotOptimize(out.data());
    }
}
BENCHMARK(access_log_line);

void clock_read(benchmark::State& state) {
    for (auto _ : state) benchmark::DoNotOptimize(MonotonicClock::now());
}
BENCHMARK(clock_read);

}  // namespace
}  // namespace sluice

BENCHMARK_MAIN();
