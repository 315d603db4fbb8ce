// SPDX-License-Identifier: Apache-2.0
#include "fleet/health.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

#include "base/rng.h"

namespace sluice::fleet {
namespace {

using namespace std::chrono_literals;

struct HealthTest : testing::Test {
    InstanceState state;
    HealthOptions options;
    Instant now{std::chrono::hours(1)};

    void fail(int times = 1) {
        for (int i = 0; i < times; ++i) report(state, Outcome::Failure, now, options, 0);
    }
    Breaker breaker() const { return state.breaker.load(); }
};

TEST_F(HealthTest, OpensAfterFailuresInARow) {
    fail(2);
    EXPECT_TRUE(may_try(state, now));
    report(state, Outcome::Success, now, options, 0);
    fail(2);
    EXPECT_EQ(breaker(), Breaker::Closed) << "not in a row";
    report(state, Outcome::Neutral, now, options, 0);
    EXPECT_EQ(state.consecutive_failures.load(), 2U) << "neutral counts for nothing";
    fail();
    EXPECT_EQ(breaker(), Breaker::Open);
    EXPECT_FALSE(may_try(state, now));
    EXPECT_FALSE(claim(state, now));
}

TEST_F(HealthTest, OneProbeAfterTheWait) {
    fail(3);
    EXPECT_FALSE(may_try(state, now + 999ms));
    now += 1s;
    EXPECT_TRUE(may_try(state, now));
    EXPECT_EQ(breaker(), Breaker::Open) << "looking changes nothing";
    const Claim probe = claim(state, now);
    EXPECT_TRUE(probe);
    EXPECT_NE(probe.ticket, 0U);
    EXPECT_EQ(breaker(), Breaker::HalfOpen);
    EXPECT_FALSE(may_try(state, now));
    EXPECT_FALSE(claim(state, now)) << "somebody has it";
    report(state, Outcome::Success, now, options, probe.ticket);
    EXPECT_EQ(breaker(), Breaker::Closed);
    EXPECT_EQ(state.openings.load(), 0U);
    EXPECT_EQ(claim(state, now).ticket, 0U);
    fail(2);
    EXPECT_EQ(breaker(), Breaker::Closed) << "the count began anew";
}

TEST_F(HealthTest, WaitDoublesUpToTheLimit) {
    options.open_max = 5s;
    fail(3);
    for (const Duration wait : {1s, 2s, 4s, 5s, 5s}) {
        EXPECT_FALSE(may_try(state, now + wait - 1ns));
        now += wait;
        const Claim probe = claim(state, now);
        ASSERT_TRUE(probe);
        report(state, Outcome::Failure, now, options, probe.ticket);
        EXPECT_EQ(breaker(), Breaker::Open);
    }
    now += 5s;
    report(state, Outcome::Success, now, options, claim(state, now).ticket);
    fail(3);
    EXPECT_TRUE(may_try(state, now + 1s)) << "after a success the wait is short again";
}

TEST_F(HealthTest, CancelledProbeGivesItsSlotBack) {
    fail(3);
    now += 1s;
    const Claim first = claim(state, now);
    ASSERT_TRUE(first);
    report(state, Outcome::Neutral, now, options, first.ticket);
    EXPECT_TRUE(may_try(state, now)) << "at once";
    const Claim second = claim(state, now);
    EXPECT_TRUE(second);
    EXPECT_NE(second.ticket, first.ticket);
    report(state, Outcome::Failure, now, options, second.ticket);
    EXPECT_FALSE(may_try(state, now + 1999ms)) << "a neutral end is no step of the back-off";
    EXPECT_TRUE(may_try(state, now + 2s));
}

TEST_F(HealthTest, OldLegsDoNotDecideForTheProbe) {
    fail(3);
    now += 1s;
    const Claim probe = claim(state, now);
    for (const Outcome outcome : {Outcome::Success, Outcome::Failure, Outcome::Neutral}) {
        report(state, outcome, now, options, 0);  // sent while the breaker was closed
        report(state, outcome, now, options, probe.ticket - 1);  // an earlier probe
        EXPECT_EQ(breaker(), Breaker::HalfOpen);
    }
    report(state, Outcome::Success, now, options, probe.ticket);
    EXPECT_EQ(breaker(), Breaker::Closed);
}

TEST_F(HealthTest, LateWordsDoNotTouchAnOpenBreaker) {
    fail(3);
    const auto retry_at = state.retry_at_ns.load();
    for (const std::uint32_t ticket : {0U, state.probe_ticket.load()})
        for (const Outcome outcome : {Outcome::Success, Outcome::Failure, Outcome::Neutral})
            report(state, outcome, now, options, ticket);
    EXPECT_EQ(breaker(), Breaker::Open);
    EXPECT_EQ(state.retry_at_ns.load(), retry_at);
}

TEST_F(HealthTest, AnActiveSuccessEndsTheWait) {
    end_wait(state, now);
    EXPECT_EQ(breaker(), Breaker::Closed);
    fail(3);
    end_wait(state, now);
    EXPECT_EQ(breaker(), Breaker::Open) << "a request has still to prove it";
    EXPECT_TRUE(may_try(state, now));
}

// Several workers send, fail, cancel and succeed; never are two probes under way at once, and the
// slot is never lost.
TEST_F(HealthTest, OneProbeAtATimeWithManyThreads) {
    constexpr int kThreads = 4;
    constexpr int kRounds = 20000;
    options.failures_to_open = 2;
    options.open_first = 1us;
    options.open_max = 8us;
    std::atomic<std::int64_t> clock{0};
    std::atomic<int> probes{0};
    std::atomic<int> probes_seen{0};
    std::atomic<bool> two_probes{false};
    const auto work = [&](std::uint64_t seed) {
        Rng rng(seed);
        for (int i = 0; i < kRounds; ++i) {
            const Instant at{Duration(clock.fetch_add(100, std::memory_order_relaxed))};
            if (!may_try(state, at)) continue;
            const Claim claimed = claim(state, at);
            if (!claimed) continue;
            const bool is_probe = claimed.ticket != 0;
            if (is_probe && probes.fetch_add(1) != 0) two_probes = true;
            if (is_probe) ++probes_seen;
            if (rng.chance(0.2)) std::this_thread::yield();
            const Outcome outcome = rng.chance(0.5)   ? Outcome::Failure
                                    : rng.chance(0.5) ? Outcome::Neutral
                                                      : Outcome::Success;
            if (is_probe) probes.fetch_sub(1);
            report(state, outcome, at, options, claimed.ticket);
            if (rng.chance(0.01)) end_wait(state, at);
        }
    };
    std::vector<std::thread> threads;
    for (int i = 0; i < kThreads; ++i)
        threads.emplace_back(work, static_cast<std::uint64_t>(i) + 1);
    for (std::thread& thread : threads) thread.join();
    EXPECT_FALSE(two_probes.load());
    EXPECT_GT(probes_seen.load(), 100);
    EXPECT_NE(breaker(), Breaker::HalfOpen) << "somebody kept the slot";
    EXPECT_TRUE(may_try(state, Instant{Duration(clock.load())} + 1s));
}

}  // namespace
}  // namespace sluice::fleet
