// SPDX-License-Identifier: Apache-2.0
#include "io/sim/sim_world.h"

#include <algorithm>
#include <cstdio>

namespace sluice::io::sim {

Faults& SimHost::faults() {
    if (!own_faults_) {
        own_faults_ = world_faults_;
        io_.set_faults(*own_faults_);
    }
    return *own_faults_;
}

void SimHost::clear_faults() {
    io_.set_faults(world_faults_);
    own_faults_.reset();
}

// The clock starts somewhere else with each seed: nobody may rely on where.
SimWorld::SimWorld(const WorldOptions& options)
    : options_(options),
      rng_(options.seed),
      timeline_(Instant(Duration(static_cast<std::int64_t>(rng_.below(1ULL << 50))))),
      trace_(options.trace_events),
      network_(timeline_, rng_, trace_, options_.faults) {}

SimWorld::~SimWorld() = default;

SimHost& SimWorld::add_host(std::string_view name) {
    const auto number = static_cast<int>(hosts_.size());
    hosts_.push_back(
        std::unique_ptr<SimHost>(new SimHost(std::string(name), number, timeline_, network_, rng_,
                                             trace_, options_.faults, options_.pool_bytes)));
    return *hosts_.back();
}

void SimWorld::poke_all() {
    for (const auto& each : hosts_) each->poke();
}

void SimWorld::after(Duration wait, std::function<void()> what) {
    timeline_.schedule_after(wait, [this, what = std::move(what)] {
        what();
        poke_all();
    });
}

// ---- running

bool SimWorld::is_due(const SimHost& host) const {
    if (host.loop_ == nullptr || host.dead_ || host.frozen_until_ > now()) return false;
    return host.poked_ || host.io_.due() || host.loop_->next_deadline() <= now();
}

void SimWorld::give_turn(SimHost& host) {
    const double freeze = host.own_faults_ ? host.own_faults_->freeze : options_.faults.freeze;
    if (freeze > 0 && rng_.chance(freeze)) {
        const auto most = static_cast<std::uint64_t>(options_.faults.freeze_max.count());
        return this->freeze(host, Duration(static_cast<std::int64_t>(rng_.between(1, most))));
    }
    trace_.add(now(), host.number(), "turn");
    host.poked_ = false;
    in_turn_ = true;
    host.loop_->run_turn(Duration::zero());
    in_turn_ = false;
}

// One thing that is due now. False if nothing is.
bool SimWorld::step() {
    due_.clear();
    for (const auto& each : hosts_)
        if (is_due(*each)) due_.push_back(each.get());
    const bool network_due = timeline_.due();
    const std::size_t choices = due_.size() + (network_due ? 1 : 0);
    if (choices == 0) return false;
    const std::size_t choice = choices == 1 ? 0 : rng_.below(choices);
    if (choice < due_.size())
        give_turn(*due_[choice]);
    else
        timeline_.run_one();
    ++steps_;
    return true;
}

// To the next thing that will be due. False if there is none.
bool SimWorld::advance() {
    Instant next = timeline_.next();
    for (const auto& each : hosts_) {
        if (each->loop_ == nullptr || each->dead_) continue;
        Instant wanted = std::min(each->io_.next_completion(), each->loop_->next_deadline());
        if (each->poked_ || each->io_.due()) wanted = now();
        if (wanted != kNever) next = std::min(next, std::max(wanted, each->frozen_until_));
    }
    if (next == kNever) return false;
    const Faults& faults = options_.faults;
    if (faults.clock_jump > 0 && rng_.chance(faults.clock_jump)) {
        const auto most = static_cast<std::uint64_t>(faults.jump_max.count());
        const Duration jump(static_cast<std::int64_t>(rng_.below(most + 1)));
        trace_.add(now(), -1, "clock jumps", jump.count());
        jumped_ += jump;
        next += jump;
    }
    timeline_.advance_to(next);
    return true;
}

bool SimWorld::give_up(const RunLimits& limits, const char* why) const {
    if (!limits.quiet) std::fprintf(stderr, "simulation: %s\n%s", why, report().c_str());
    return false;
}

bool SimWorld::run_until(const std::function<bool()>& done, const RunLimits& limits) {
    ASSERT(!in_turn_);
    poke_all();
    const std::uint64_t last_step = steps_ + limits.steps;
    const Instant end = now() + limits.time - jumped_;
    while (!done()) {
        if (steps_ >= last_step) return give_up(limits, "too many steps: a livelock?");
        if (now() - jumped_ > end) return give_up(limits, "too much virtual time");
        if (!step() && !advance()) return give_up(limits, "nothing is left to happen");
    }
    return true;
}

bool SimWorld::run_until_idle(const RunLimits& limits) {
    ASSERT(!in_turn_);
    poke_all();
    const std::uint64_t last_step = steps_ + limits.steps;
    const Instant end = now() + limits.time - jumped_;
    while (step() || advance()) {
        if (steps_ >= last_step) return give_up(limits, "too many steps: a livelock?");
        if (now() - jumped_ > end) return give_up(limits, "too much virtual time");
    }
    return true;
}

void SimWorld::run_for(Duration time) {
    bool over = false;
    after(time, [&over] { over = true; });
    const bool ended = run_until([&over] { return over; }, {.time = kForever / 4});
    ASSERT(ended);
}

// ---- faults by hand

void SimWorld::freeze(SimHost& host, Duration time) {
    trace_.add(now(), host.number(), "frozen", time.count());
    host.frozen_until_ = std::max(host.frozen_until_, now() + time);
}

void SimWorld::kill(SimHost& host, Death death) {
    ASSERT(!in_turn_ && !host.dead_);
    trace_.add(now(), host.number(), "killed", static_cast<std::int64_t>(death));
    host.dead_ = true;
    network_.set_host_down(host.number(), true);
    host.io_.sever(death);
}

void SimWorld::bury(SimHost& host) {
    ASSERT(host.dead_);
    trace_.add(now(), host.number(), "buried");
    host.dead_ = false;
    host.poke();
}

void SimWorld::revive(SimHost& host) {
    ASSERT(!host.dead_);
    trace_.add(now(), host.number(), "revived");
    network_.set_host_down(host.number(), false);
}

// ---- the end

std::string SimWorld::leftovers() const {
    std::string text;
    for (const auto& each : hosts_) text += each->io_.leftovers();
    return text;
}

void SimWorld::check_clean() const {
    const std::string left = leftovers();
    if (!left.empty())
        std::fprintf(stderr, "simulation: left over:\n%s%s", left.c_str(), report().c_str());
    ASSERT(left.empty());
}

std::string SimWorld::report() const {
    return "seed " + std::to_string(options_.seed) + ", " + std::to_string(steps_) +
           " steps; the last events:\n" + trace_.text();
}

}  // namespace sluice::io::sim
