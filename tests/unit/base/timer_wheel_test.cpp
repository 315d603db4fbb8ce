// SPDX-License-Identifier: Apache-2.0
#include "base/timer_wheel.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <vector>

#include "base/rng.h"

namespace sluice {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr Duration kTick{1 << 18};
const Instant kStart(seconds(1000));

struct Alarm {
    Alarm() : timer(Delegate<void()>::to<&Alarm::fire>(*this)) {}
    void fire() {
        ++fired;
        if (then) then();
    }
    Timer timer;
    int fired = 0;
    std::function<void()> then;
};

TEST(TimerWheel, FiresAtTheFirstAdvanceAtOrAfterTheDeadline) {
    TimerWheel wheel(kStart);
    Alarm alarm;
    wheel.arm(alarm.timer, kStart + milliseconds(10));
    EXPECT_TRUE(alarm.timer.armed());
    wheel.advance(kStart + milliseconds(10) - kTick);
    EXPECT_EQ(alarm.fired, 0);
    wheel.advance(kStart + milliseconds(10) + kTick);
    EXPECT_EQ(alarm.fired, 1);
    EXPECT_FALSE(alarm.timer.armed());
    wheel.advance(kStart + seconds(10));
    EXPECT_EQ(alarm.fired, 1);
}

TEST(TimerWheel, ADeadlineInThePastFiresWithTheNextTick) {
    TimerWheel wheel(kStart);
    wheel.advance(kStart + seconds(5));
    Alarm alarm;
    wheel.arm(alarm.timer, kStart);
    EXPECT_EQ(alarm.fired, 0);
    wheel.advance(kStart + seconds(5) + 2 * kTick);
    EXPECT_EQ(alarm.fired, 1);
}

TEST(TimerWheel, NeverCancels) {
    TimerWheel wheel(kStart);
    Alarm alarm;
    wheel.arm(alarm.timer, kStart + seconds(1));
    wheel.arm(alarm.timer, kNever);
    EXPECT_FALSE(alarm.timer.armed());
    EXPECT_EQ(wheel.next_deadline(), kNever);
    wheel.advance(kStart + hours(1));
    EXPECT_EQ(alarm.fired, 0);
}

TEST(TimerWheel, RearmingMovesTheDeadlineBothWays) {
    TimerWheel wheel(kStart);
    Alarm later;
    Alarm earlier;
    wheel.arm(later.timer, kStart + seconds(1));
    wheel.arm(later.timer, kStart + seconds(3));
    wheel.arm(earlier.timer, kStart + hours(3));
    wheel.arm(earlier.timer, kStart + seconds(1));
    wheel.advance(kStart + seconds(2));
    EXPECT_EQ(later.fired, 0);
    EXPECT_EQ(earlier.fired, 1);
    wheel.advance(kStart + seconds(4));
    EXPECT_EQ(later.fired, 1);
}

TEST(TimerWheel, CallbacksMayCancelDestroyAndRearmOthersAndThemselves) {
    TimerWheel wheel(kStart);
    Alarm cancelled;
    auto destroyed = std::make_unique<Alarm>();
    auto destroys_itself = std::make_unique<Alarm>();
    Alarm again;
    Alarm first;
    const Instant when = kStart + milliseconds(50);
    wheel.arm(first.timer, when);
    wheel.arm(cancelled.timer, when);
    wheel.arm(destroyed->timer, when);
    wheel.arm(destroys_itself->timer, when);
    wheel.arm(again.timer, when);
    int self_destroyed = 0;
    first.then = [&] {
        cancelled.timer.cancel();
        destroyed.reset();
    };
    destroys_itself->then = [&] {
        ++self_destroyed;
        destroys_itself.reset();
    };
    again.then = [&] {
        if (again.fired == 1) wheel.arm(again.timer, kStart);
    };
    wheel.advance(when + kTick);
    EXPECT_EQ(first.fired, 1);
    EXPECT_EQ(cancelled.fired, 0);
    EXPECT_EQ(self_destroyed, 1);
    EXPECT_GE(again.fired, 1);
    wheel.advance(when + 3 * kTick);
    EXPECT_EQ(again.fired, 2);
    EXPECT_EQ(wheel.next_deadline(), kNever);
}

TEST(TimerWheel, ATimerOutlivesItsWheelUnarmed) {
    Alarm alarm;
    {
        TimerWheel wheel(kStart);
        wheel.arm(alarm.timer, kStart + seconds(1));
    }
    EXPECT_FALSE(alarm.timer.armed());
}

// A process that runs for years: every distance still works when the low levels have wrapped many
// times.
TEST(TimerWheel, WorksAfterYears) {
    TimerWheel wheel(kStart);
    Instant now = kStart;
    for (int year = 0; year < 40; ++year) {
        now += hours(24 * 365);
        wheel.advance(now);
        Alarm soon;
        Alarm far;
        wheel.arm(soon.timer, now + seconds(30));
        wheel.arm(far.timer, now + hours(24 * 300));
        now += seconds(29);
        wheel.advance(now);
        ASSERT_EQ(soon.fired, 0) << "year " << year;
        now += seconds(2);
        wheel.advance(now);
        ASSERT_EQ(soon.fired, 1) << "year " << year;
        now += hours(24 * 299);
        wheel.advance(now);
        ASSERT_EQ(far.fired, 0) << "year " << year;
        now += hours(48);
        wheel.advance(now);
        ASSERT_EQ(far.fired, 1) << "year " << year;
    }
}

// The instant just before the old reach of six levels, and the tick that crosses it.
TEST(TimerWheel, CrossesEveryPowerOfItsSlots) {
    for (int bits = 1; bits <= 44; ++bits) {
        TimerWheel wheel(kStart);
        const Instant edge = kStart + Duration((std::int64_t{1} << bits) * kTick.count());
        wheel.advance(edge - kTick);
        Alarm before;
        Alarm after;
        wheel.arm(before.timer, edge - kTick / 2);
        wheel.arm(after.timer, edge + kTick / 2);
        wheel.advance(edge);
        ASSERT_EQ(before.fired, 1) << bits;
        ASSERT_EQ(after.fired, 0) << bits;
        wheel.advance(edge + kTick);
        ASSERT_EQ(after.fired, 1) << bits;
    }
}

// The reference: a plain list of deadlines.
struct Model {
    struct Entry {
        std::unique_ptr<Alarm> alarm = std::make_unique<Alarm>();
        Instant deadline = kNever;
        Instant armed_at{};
    };
    std::vector<Entry> entries{200};
};

Duration random_distance(Rng& rng) {
    // All scales alike, from below a tick to years.
    const auto bits = rng.between(1, 55);
    return Duration(static_cast<std::int64_t>(rng.below(1ULL << bits)));
}

TEST(TimerWheel, AgreesWithAModelUnderRandomOperationsAndLongJumps) {
    for (std::uint64_t seed = 1; seed <= 30; ++seed) {
        Rng rng(seed);
        TimerWheel wheel(kStart);
        Model model;
        Instant now = kStart;
        for (int step = 0; step < 2000; ++step) {
            Model::Entry& entry = model.entries[rng.below(model.entries.size())];
            const auto what = rng.below(10);
            if (what < 5) {
                entry.deadline = now + random_distance(rng) - Duration(rng.below(1000));
                entry.armed_at = now;
                entry.alarm->fired = 0;
                wheel.arm(entry.alarm->timer, entry.deadline);
            } else if (what < 6) {
                entry.deadline = kNever;
                entry.alarm->fired = 0;
                entry.alarm->timer.cancel();
            } else {
                Instant next = now + random_distance(rng) / (rng.chance(0.9) ? 1024 : 1);
                // Often exactly to where the wheel says that something is.
                if (rng.chance(0.3)) next = std::min(next, std::max(now, wheel.next_deadline()));
                if (next > kStart + hours(24 * 365 * 100)) continue;
                now = next;
                wheel.advance(now);
                for (Model::Entry& each : model.entries) {
                    if (each.alarm->fired > 0) {
                        ASSERT_EQ(each.alarm->fired, 1);
                        ASSERT_NE(each.deadline, kNever);
                        ASSERT_LE(each.deadline, now) << "fired early, seed " << seed;
                        ASSERT_FALSE(each.alarm->timer.armed());
                        each.deadline = kNever;
                        each.alarm->fired = 0;
                    } else if (each.deadline != kNever) {
                        ASSERT_TRUE(each.alarm->timer.armed());
                        // At most a tick late by rounding, or a tick after it was armed.
                        ASSERT_GT(std::max(each.deadline, each.armed_at) + 2 * kTick, now)
                            << "missed, seed " << seed << " step " << step;
                    }
                }
            }
            Instant earliest = kNever;
            for (const Model::Entry& each : model.entries)
                earliest = std::min(earliest, each.deadline);
            if (earliest == kNever)
                ASSERT_EQ(wheel.next_deadline(), kNever);
            else
                ASSERT_LE(wheel.next_deadline(), std::max(earliest, now) + 2 * kTick);
        }
    }
}

// Who sleeps until next_deadline() each time gets every timer, in few steps.
TEST(TimerWheel, SleepingUntilTheNextDeadlineMissesNothing) {
    Rng rng(3);
    TimerWheel wheel(kStart);
    std::vector<std::unique_ptr<Alarm>> alarms;
    for (int i = 0; i < 100; ++i) {
        alarms.push_back(std::make_unique<Alarm>());
        wheel.arm(alarms.back()->timer, kStart + random_distance(rng));
    }
    int steps = 0;
    for (Instant next = wheel.next_deadline(); next != kNever; next = wheel.next_deadline()) {
        wheel.advance(next);
        ASSERT_LT(++steps, 2000);
    }
    for (const auto& each : alarms) EXPECT_EQ(each->fired, 1);
}

}  // namespace
}  // namespace sluice
