// SPDX-License-Identifier: Apache-2.0
// Deadlines of one thread: a hierarchical wheel of intrusive timers.
//
// Eight levels of 64 slots, one tick = 2^18 ns (0.26 ms): more than the clock's 292 years. A timer
// fires at the first advance() at or after its deadline, never before it. Arming, re-arming and
// cancelling are O(1) and allocate nothing. Threads: one. Owns: nothing; a Timer cancels itself
// when destroyed.
#pragma once

#include <cstdint>

#include "base/delegate.h"
#include "base/intrusive_list.h"
#include "base/time.h"

namespace sluice {

class TimerWheel;

class Timer : private ListNode<Timer> {
public:
    Timer() = default;
    explicit Timer(Delegate<void()> on_expiry) : on_expiry_(on_expiry) {}
    ~Timer() { cancel(); }

    bool armed() const { return linked(); }
    void cancel();

private:
    friend class TimerWheel;
    friend class IntrusiveList<Timer, Timer>;
    Delegate<void()> on_expiry_;
    std::uint64_t tick_ = 0;
    std::uint8_t level_ = 0;
    std::uint8_t slot_ = 0;
    TimerWheel* wheel_ = nullptr;
};

class TimerWheel {
public:
    explicit TimerWheel(Instant start) : origin_(start) {}
    TimerWheel(const TimerWheel&) = delete;
    TimerWheel& operator=(const TimerWheel&) = delete;

    // Arms (or moves) `timer` to fire at `deadline`; kNever cancels it.
    void arm(Timer& timer, Instant deadline);

    // Fires everything due at `now`. Timers armed from within a callback fire in a later advance().
    void advance(Instant now);

    // No timer is due before this; kNever if none is armed.
    Instant next_deadline() const;

private:
    friend class Timer;
    static constexpr int kLevels = 8;  // six end after 208 days of running
    static constexpr int kSlotBits = 6;
    static constexpr std::uint64_t kSlots = 1ULL << kSlotBits;
    static constexpr int kTickShift = 18;
    static constexpr std::uint64_t kTickMax = (1ULL << (kLevels * kSlotBits)) - 1;

    std::uint64_t tick_at_or_after(Instant when) const;
    std::uint64_t next_event_tick() const;
    void place(Timer& timer);
    void cascade();

    Instant origin_;
    std::uint64_t now_tick_ = 0;
    std::uint64_t occupied_[kLevels] = {};
    IntrusiveList<Timer, Timer> slots_[kLevels][kSlots];
};

}  // namespace sluice
