// SPDX-License-Identifier: Apache-2.0
// One loop on either Io, so that one list of scenarios runs on both: simulated, and on real
// loopback sockets.
#pragma once

#include <unistd.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <string>

#include "io/sim/sim_world.h"
#include "io/uring/uring_io.h"
#include "recorder.h"

namespace sluice::io::test {

class Bench {
public:
    virtual ~Bench() = default;
    virtual Io& io() = 0;
    virtual Loop& loop() = 0;
    // False if it takes too long.
    virtual bool run_until(const std::function<bool()>& done) = 0;
    // Turns until nothing more happens of itself.
    virtual void settle() = 0;
};

class SimBench final : public Bench {
public:
    explicit SimBench(std::uint64_t seed = 1, const sim::Faults& faults = {})
        : world_({.seed = seed, .faults = faults}),
          host_(world_.add_host("bench")),
          loop_(host_.io()) {
        host_.attach(loop_);
    }
    ~SimBench() override { world_.check_clean(); }
    Io& io() override { return host_.io(); }
    Loop& loop() override { return loop_; }
    bool run_until(const std::function<bool()>& done) override { return world_.run_until(done); }
    void settle() override { world_.run_for(std::chrono::seconds(1)); }

private:
    sim::SimWorld world_;
    sim::SimHost& host_;
    Loop loop_;
};

class UringBench final : public Bench {
public:
    // As an older kernel has it: no better than `level`. Null where io_uring cannot be used.
    static std::unique_ptr<Bench> create(TaskRun level = TaskRun::Defer) {
        UringOptions options;
        options.capabilities = probe_uring();
        options.capabilities.task_run = std::max(options.capabilities.task_run, level);
        auto io = UringIo::create(options);
        if (!io) return nullptr;
        return std::unique_ptr<Bench>(new UringBench(std::move(*io)));
    }
    Io& io() override { return *io_; }
    Loop& loop() override { return loop_; }
    bool run_until(const std::function<bool()>& done) override {
        const Instant end = MonotonicClock::now() + std::chrono::seconds(10);
        while (!done()) {
            if (MonotonicClock::now() > end) return false;
            loop_.run_turn(std::chrono::milliseconds(1));
        }
        return true;
    }
    void settle() override {
        const Instant end = MonotonicClock::now() + std::chrono::milliseconds(15);
        while (MonotonicClock::now() < end) loop_.run_turn(std::chrono::milliseconds(1));
    }

private:
    explicit UringBench(std::unique_ptr<UringIo> io) : io_(std::move(io)), loop_(*io_) {}

    std::unique_ptr<UringIo> io_;
    Loop loop_;
};

}  // namespace sluice::io::test
