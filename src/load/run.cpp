// SPDX-License-Identifier: Apache-2.0
#include "load/run.h"

#include <fmt/format.h>

#include <algorithm>
#include <thread>

#include "load/generator.h"
#include "load/process_usage.h"

namespace sluice::load {

namespace {

constexpr Duration kSample = std::chrono::milliseconds(100);

class Run {
public:
    Run(const LoadOptions& options, const std::function<void(std::string_view)>& progress,
        const std::atomic<bool>& interrupt)
        : options_(options), progress_(progress), interrupt_(interrupt) {}

    std::expected<LoadResult, std::string> go();

private:
    bool all_finished() const {
        return std::ranges::all_of(generators_, [](const auto& g) { return g->finished(); });
    }
    std::uint64_t sum(obs::Counter Tally::*counter) const {
        std::uint64_t total = 0;
        for (const auto& generator : generators_) total += (generator->tally().*counter).value();
        return total;
    }
    void begin_measuring();
    void sample_memory();
    void end_measuring();
    void tell_progress(double seconds);

    const LoadOptions& options_;
    const std::function<void(std::string_view)>& progress_;
    const std::atomic<bool>& interrupt_;
    Course course_;
    std::vector<std::unique_ptr<Generator>> generators_;
    LoadResult result_;
    std::uint64_t ended_before_ = 0;
    std::uint64_t events_before_ = 0;
    std::uint64_t told_ = 0;  // requests ended at the last progress line
    double told_at_ = 0;
};

void Run::begin_measuring() {
    ended_before_ = sum(&Tally::ended);
    events_before_ = sum(&Tally::events_seen);
    for (const int pid : options_.pids) {
        TargetUsage target;
        target.pid = pid;
        target.name = name_of_process(pid);
        const auto usage = usage_of(pid);
        target.gone = !usage;
        if (usage) {
            target.cpu_seconds = -usage->cpu_seconds;
            target.resident_bytes_before = target.resident_bytes_max = usage->resident_bytes;
        }
        result_.targets.push_back(std::move(target));
    }
}

void Run::sample_memory() {
    for (TargetUsage& target : result_.targets)
        if (const auto usage = usage_of(target.pid))
            target.resident_bytes_max = std::max(target.resident_bytes_max, usage->resident_bytes);
}

void Run::end_measuring() {
    result_.ended = sum(&Tally::ended) - ended_before_;
    result_.events = sum(&Tally::events_seen) - events_before_;
    for (TargetUsage& target : result_.targets) {
        const auto usage = usage_of(target.pid);
        target.gone |= !usage;
        if (target.gone) continue;
        target.cpu_seconds += usage->cpu_seconds;
        target.resident_bytes_max = std::max(target.resident_bytes_max, usage->resident_bytes);
    }
}

void Run::tell_progress(double seconds) {
    Tally now;
    for (const auto& generator : generators_) now.merge(generator->tally());
    const std::uint64_t ended = now.ended.value();
    const double rate = static_cast<double>(ended - told_) / std::max(0.001, seconds - told_at_);
    std::string line = fmt::format("{:.0f} s: {} requests, {:.0f}/s, {} failed", seconds, ended,
                                   rate, now.failed());
    if (now.first_token.count() > 0)
        line += fmt::format(", first token p50 {:.2f} ms p99 {:.2f} ms",
                            static_cast<double>(now.first_token.quantile(0.5)) / 1e6,
                            static_cast<double>(now.first_token.quantile(0.99)) / 1e6);
    else if (now.total.count() > 0)
        line += fmt::format(", total p50 {:.2f} ms p99 {:.2f} ms",
                            static_cast<double>(now.total.quantile(0.5)) / 1e6,
                            static_cast<double>(now.total.quantile(0.99)) / 1e6);
    progress_(line);
    told_ = ended;
    told_at_ = seconds;
}

std::expected<LoadResult, std::string> Run::go() {
    course_.begin = MonotonicClock::now() + std::chrono::milliseconds(20);  // threads start first
    if (options_.requests > 0) course_.requests_left.store(options_.requests);
    for (std::uint32_t i = 0; i < options_.threads; ++i) {
        auto generator = Generator::create(options_, course_, i);
        if (!generator)
            return std::unexpected("cannot set up a load thread: " + describe(generator.error()) +
                                   "; `sluice doctor` says what the kernel lacks");
        generators_.push_back(std::move(*generator));
    }
    std::vector<std::thread> threads;
    for (const auto& generator : generators_)
        threads.emplace_back([&generator] { generator->run(); });

    const Instant warm = course_.begin + options_.warm_up;
    const Instant stop_at =
        options_.requests > 0 ? kNever : warm + options_.duration + options_.drain;
    Instant next_progress =
        options_.progress > Duration::zero() ? course_.begin + options_.progress : kNever;
    bool measuring = false;
    while (!all_finished()) {
        const Instant now = MonotonicClock::now();
        if (!measuring && now >= warm) {
            measuring = true;
            begin_measuring();
        } else if (measuring) {
            sample_memory();
        }
        result_.interrupted |= interrupt_.load(std::memory_order_relaxed);
        if (now >= stop_at || result_.interrupted)
            for (const auto& generator : generators_) generator->ask_to_stop();
        if (now >= next_progress) {
            tell_progress(to_seconds(now - course_.begin));
            next_progress += options_.progress;
        }
        const Duration wait = measuring ? kSample : std::max(Duration(1), warm - now);
        std::this_thread::sleep_for(std::min(kSample, wait));
    }
    if (!measuring) begin_measuring();
    end_measuring();
    result_.seconds = 0;
    for (std::thread& thread : threads) thread.join();
    for (const auto& generator : generators_) {
        result_.tally->merge(generator->tally());
        result_.seconds = std::max(result_.seconds, to_seconds(generator->last_end() - warm));
    }
    return std::move(result_);
}

}  // namespace

std::expected<LoadResult, std::string> run_load(
    const LoadOptions& options, const std::function<void(std::string_view)>& progress,
    const std::atomic<bool>& interrupt) {
    return Run(options, progress, interrupt).go();
}

}  // namespace sluice::load
