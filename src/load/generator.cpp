// SPDX-License-Identifier: Apache-2.0
#include "load/generator.h"

#include <algorithm>
#include <cmath>

#include "base/cpu.h"

namespace sluice::load {

namespace {

constexpr Duration kLookRound = std::chrono::milliseconds(50);     // for a wish to stop
constexpr Duration kConnectPause = std::chrono::milliseconds(10);  // after one that failed
constexpr Instant kAtOnce{};
constexpr Duration kCloseLimit = std::chrono::seconds(2);  // for connections to close

std::uint32_t share_of(std::uint32_t whole, std::uint32_t parts, std::uint32_t index) {
    return whole / parts + (index < whole % parts ? 1 : 0);
}

http::UpstreamOptions upstream_options() {
    http::UpstreamOptions options;
    options.connections_max = kConnectionsMax;
    return options;
}

}  // namespace

Result<std::unique_ptr<Generator>> Generator::create(const LoadOptions& options, Course& course,
                                                     std::uint32_t index) {
    auto io = io::UringIo::create({.capabilities = io::probe_uring()});
    if (!io) return std::unexpected(io.error());
    std::unique_ptr<Generator> made(new Generator(options, course, index, std::move(*io)));
    if (!made->maker_.ready()) return fail(Errc::LimitReached);
    return made;
}

Generator::Generator(const LoadOptions& options, Course& course, std::uint32_t index,
                     std::unique_ptr<io::UringIo> io)
    : options_(options),
      course_(course),
      index_(index),
      io_(std::move(io)),
      loop_(*io_),
      pool_(loop_, options.target, upstream_options()),
      shared_{options, loop_, pool_, scanner_, tally_, *this},
      maker_(options, loop_.buffers(), options.seed * 1000 + index),
      rng_(options.seed * 1000 + 500 + index),
      start_due_(Delegate<void()>::to<&Generator::start_due>(*this)) {
    const std::uint32_t count = share_of(options.connections, options.threads, index);
    for (std::uint32_t i = 0; i < count; ++i) idle_.push_back(&calls_.emplace_back(shared_));
    if (options.rate > 0) {
        pause_ = from_seconds(options.threads / options.rate);
    } else if (count > 0) {
        pause_ = options.ramp / count;
    }
}

Generator::~Generator() = default;

void Generator::run() {
    name_this_thread(("load-" + std::to_string(index_)).c_str());
    if (!options_.cpus.empty())
        (void)pin_to_cpu(options_.cpus[index_ % options_.cpus.size()]);  // slower, not wrong
    // The threads' requests interleave.
    due_ = course_.begin + pause_ * index_ / options_.threads;
    while (true) {
        over_ = over_ || stop_wanted_.load(std::memory_order_relaxed);
        if (over_ && idle_.size() == calls_.size()) break;
        const Duration until_due = next_due() - MonotonicClock::now();
        if (until_due <= Duration::zero()) loop_.defer(start_due_);
        loop_.run_turn(std::clamp(until_due, Duration::zero(), kLookRound));
        if (over_ && stop_wanted_.load(std::memory_order_relaxed)) end_all();
    }
    end_all();
    finished_.store(true, std::memory_order_release);
}

// Open loop: by the clock. Closed loop: at once, but the first start of each connection is spread
// over the ramp.
Instant Generator::next_due() const {
    if (over_ || idle_.empty()) return kNever;
    const bool by_clock = options_.rate > 0 || number_ < calls_.size();
    return std::max(by_clock ? due_ : kAtOnce, held_until_);
}

void Generator::schedule_next() {
    ++number_;
    const double factor = options_.poisson ? -std::log(1 - rng_.unit()) : 1;
    due_ += std::chrono::duration_cast<Duration>(pause_ * factor);
}

// Whether a request meant for `meant_at` belongs to the run.
bool Generator::take_one(Instant meant_at, bool& counts) {
    const Instant warm = course_.begin + options_.warm_up;
    counts = meant_at >= warm;
    if (options_.requests == 0) return meant_at < warm + options_.duration;
    if (!counts) return true;
    std::uint64_t left = course_.requests_left.load(std::memory_order_relaxed);
    while (left > 0)
        if (course_.requests_left.compare_exchange_weak(left, left - 1, std::memory_order_relaxed))
            return true;
    return false;
}

void Generator::start_due() {
    while (!idle_.empty() && !over_) {
        const Instant now = MonotonicClock::now();
        const Instant due = next_due();
        if (due > now) return;
        const Instant meant_at = options_.rate > 0 ? due_ : now;
        bool counts = false;
        if (!take_one(meant_at, counts)) {
            over_ = true;
            return;
        }
        schedule_next();
        Call* call = idle_.back();
        idle_.pop_back();
        call->start(maker_.make(), meant_at, counts);
    }
}

void Generator::call_ended(Call& call, bool connected) {
    idle_.push_back(&call);
    last_end_ = loop_.now();
    if (!connected) held_until_ = MonotonicClock::now() + kConnectPause;
    if (next_due() <= loop_.now()) loop_.defer(start_due_);
}

void Generator::end_all() {
    over_ = true;
    for (Call& call : calls_)
        if (call.active()) call.cut();
    pool_.drain();
    const Instant limit = MonotonicClock::now() + kCloseLimit;
    while (pool_.open() > 0 && MonotonicClock::now() < limit) loop_.run_turn(kLookRound);
    ASSERT(pool_.open() == 0);  // closing needs nothing of the peer
}

}  // namespace sluice::load
