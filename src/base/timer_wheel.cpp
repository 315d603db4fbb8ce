// SPDX-License-Identifier: Apache-2.0
#include "base/timer_wheel.h"

#include <algorithm>
#include <bit>

namespace sluice {

void Timer::cancel() {
    if (!linked()) return;
    unlink();
    auto& list = wheel_->slots_[level_][slot_];
    if (list.empty()) wheel_->occupied_[level_] &= ~(1ULL << slot_);
}

std::uint64_t TimerWheel::tick_at_or_after(Instant when) const {
    if (when <= origin_) return 0;
    const auto since = static_cast<std::uint64_t>((when - origin_).count());
    return std::min<std::uint64_t>((since + (1ULL << kTickShift) - 1) >> kTickShift, kTickMax);
}

void TimerWheel::arm(Timer& timer, Instant deadline) {
    timer.cancel();
    if (deadline == kNever) return;
    timer.wheel_ = this;
    timer.tick_ = std::max(tick_at_or_after(deadline), now_tick_ + 1);
    place(timer);
}

// The level is that of the highest group of bits in which the deadline differs from now, so a timer
// stays where it is until the wheel reaches the start of its slot.
void TimerWheel::place(Timer& timer) {
    const std::uint64_t difference = timer.tick_ ^ now_tick_;
    const int level = difference == 0 ? 0 : (63 - std::countl_zero(difference)) / kSlotBits;
    const auto slot = (timer.tick_ >> (level * kSlotBits)) & (kSlots - 1);
    timer.level_ = static_cast<std::uint8_t>(level);
    timer.slot_ = static_cast<std::uint8_t>(slot);
    slots_[level][slot].push_back(timer);
    occupied_[level] |= 1ULL << slot;
}

// The earliest tick at which a timer fires or a slot must be spread over the level below.
std::uint64_t TimerWheel::next_event_tick() const {
    for (int level = 0; level < kLevels; ++level) {
        const int shift = level * kSlotBits;
        const auto index = (now_tick_ >> shift) & (kSlots - 1);
        if (index == kSlots - 1) continue;
        const std::uint64_t later = occupied_[level] & (~0ULL << (index + 1));
        if (later == 0) continue;
        const auto slot = static_cast<std::uint64_t>(std::countr_zero(later));
        const std::uint64_t above = (now_tick_ >> (shift + kSlotBits)) << (shift + kSlotBits);
        return above | (slot << shift);
    }
    return UINT64_MAX;
}

void TimerWheel::cascade() {
    for (int level = kLevels - 1; level > 0; --level) {
        const int shift = level * kSlotBits;
        if ((now_tick_ & ((1ULL << shift) - 1)) != 0) continue;
        const auto slot = (now_tick_ >> shift) & (kSlots - 1);
        if ((occupied_[level] & (1ULL << slot)) == 0) continue;
        occupied_[level] &= ~(1ULL << slot);
        while (Timer* timer = slots_[level][slot].pop_front()) place(*timer);
    }
}

void TimerWheel::advance(Instant now) {
    if (now <= origin_) return;
    const auto target = static_cast<std::uint64_t>((now - origin_).count()) >> kTickShift;
    while (now_tick_ < target) {
        const std::uint64_t next = next_event_tick();
        if (next > target) {
            now_tick_ = target;
            return;
        }
        now_tick_ = next;
        cascade();
        const auto slot = now_tick_ & (kSlots - 1);
        // New timers go to later ticks, so this list only shrinks while it is worked off.
        while (Timer* timer = slots_[0][slot].front()) {
            timer->cancel();
            timer->on_expiry_();
        }
    }
}

Instant TimerWheel::next_deadline() const {
    const std::uint64_t tick = next_event_tick();
    if (tick == UINT64_MAX) return kNever;
    return origin_ + Duration(static_cast<std::int64_t>(tick << kTickShift));
}

}  // namespace sluice
