// SPDX-License-Identifier: Apache-2.0
// A bounded queue between exactly two threads: one pushes, one pops, neither ever waits for the
// other.
//
// Two indices count items since the beginning and wrap freely; a slot is index & mask. Each side
// owns the cache line that it writes and keeps a copy of the other side's index there, which it
// reads again only when its copy says full or empty. So a ring that is neither costs no cache miss
// beyond the items themselves, and a batch costs one.
//
// Memory order, all of it:
//   the producer writes a slot, then stores tail_ with release;
//   the consumer loads tail_ with acquire, so it sees every slot below it; it takes the item out,
//   then stores head_ with release;
//   the producer loads head_ with acquire before it writes a slot again, so that write comes after
//   the consumer's read. A side reads its own index relaxed: nobody else writes it.
// A copy of the other side's index may be old, never ahead: old means fewer items or less room than
// there is, which is always safe.
//
// Threads: try_push, push_some, free_slots: the producer; try_pop, pop_some, consume, empty: the
// consumer; approximate_size: any. Handing a role to another thread needs a happens-before of the
// caller's own. Owns: its items. Costs: allocates once; a push or pop 1-3 ns, a hand-over one cache
// miss for the index and one for the item. Errors: full and empty are answers, not errors.
#pragma once

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <span>
#include <type_traits>
#include <utility>

#include "base/assert.h"

namespace sluice {

// Two lines, for the processors that fetch lines in pairs.
inline constexpr std::size_t kFalseSharingBytes = 128;

template <class T>
class SpscRing {
    static_assert(std::is_nothrow_move_constructible_v<T>, "an item is moved in and out");
    static_assert(std::is_nothrow_destructible_v<T>);
    static_assert(std::atomic<std::size_t>::is_always_lock_free);

public:
    static constexpr std::size_t kCapacityMax = std::size_t{1} << 31;

    // Holds `capacity` items, rounded up to a power of two.
    explicit SpscRing(std::size_t capacity)
        : mask_(std::bit_ceil(std::max<std::size_t>(capacity, 1)) - 1),
          slots_(std::allocator<Slot>().allocate(mask_ + 1)) {
        ASSERT(capacity <= kCapacityMax);
    }
    SpscRing(const SpscRing&) = delete;
    SpscRing& operator=(const SpscRing&) = delete;
    // Both threads have let go of it.
    ~SpscRing() {
        consume([](T&&) {});
        std::allocator<Slot>().deallocate(slots_, mask_ + 1);
    }

    std::size_t capacity() const { return mask_ + 1; }

    // -- producer
    // On false the item is as it was.
    [[nodiscard]] bool try_push(T&& item) {
        const std::size_t tail = producer_.tail.load(std::memory_order_relaxed);
        if (tail - producer_.head_seen > mask_) {
            producer_.head_seen = consumer_.head.load(std::memory_order_acquire);
            if (tail - producer_.head_seen > mask_) return false;
        }
        new (slots_[tail & mask_].bytes) T(std::move(item));
        producer_.tail.store(tail + 1, std::memory_order_release);
        return true;
    }
    [[nodiscard]] bool try_push(const T& item) requires std::is_nothrow_copy_constructible_v<T> {
        return try_push(T(item));
    }

    // Pushes as many of the first items as there is room for, published together. Answers how many.
    [[nodiscard]] std::size_t push_some(
        std::span<const T> items) requires std::is_nothrow_copy_constructible_v<T> {
        const std::size_t tail = producer_.tail.load(std::memory_order_relaxed);
        const std::size_t count = std::min(items.size(), room(tail, items.size()));
        for (std::size_t i = 0; i < count; ++i) new (slots_[(tail + i) & mask_].bytes) T(items[i]);
        if (count > 0) producer_.tail.store(tail + count, std::memory_order_release);
        return count;
    }

    // At least this many pushes will succeed.
    std::size_t free_slots() {
        return room(producer_.tail.load(std::memory_order_relaxed), mask_ + 1);
    }

    // -- consumer
    [[nodiscard]] bool try_pop(T& item) requires std::is_nothrow_move_assignable_v<T> {
        const std::size_t head = consumer_.head.load(std::memory_order_relaxed);
        if (available(head, 1) == 0) return false;
        T& slot = at(head);
        item = std::move(slot);
        slot.~T();
        consumer_.head.store(head + 1, std::memory_order_release);
        return true;
    }

    // Pops up to out.size() items, given back together. Answers how many.
    [[nodiscard]] std::size_t pop_some(
        std::span<T> out) requires std::is_nothrow_move_assignable_v<T> {
        std::size_t count = 0;
        return consume([&](T&& item) { out[count++] = std::move(item); }, out.size());
    }

    // Calls `take` with each item that is there now, at most `count_max`; their slots are given
    // back together, behind the last call. Answers how many. `take` must not touch this ring.
    template <class F>
    requires std::is_invocable_v<F&, T&&> std::size_t consume(F&& take,
                                                              std::size_t count_max = SIZE_MAX) {
        const std::size_t head = consumer_.head.load(std::memory_order_relaxed);
        const std::size_t count = std::min(available(head, count_max), count_max);
        for (std::size_t i = 0; i < count; ++i) {
            T& slot = at(head + i);
            take(std::move(slot));
            slot.~T();
        }
        if (count > 0) consumer_.head.store(head + count, std::memory_order_release);
        return count;
    }

    // True if a pop would find nothing. Looks at the producer's index each time it seems so.
    bool empty() { return available(consumer_.head.load(std::memory_order_relaxed), 1) == 0; }

    // -- any thread
    // Exact when both sides rest; otherwise it was right some moment ago, for metrics.
    std::size_t approximate_size() const {
        const std::size_t head = consumer_.head.load(std::memory_order_relaxed);
        const std::size_t tail = producer_.tail.load(std::memory_order_relaxed);
        return std::min(tail - head, mask_ + 1);
    }

private:
    struct Slot {
        alignas(T) std::byte bytes[sizeof(T)];
    };

    T& at(std::size_t index) {
        return *std::launder(reinterpret_cast<T*>(slots_[index & mask_].bytes));
    }

    // Items that can be popped; looked up again if fewer than `wanted` are known of.
    std::size_t available(std::size_t head, std::size_t wanted) {
        if (consumer_.tail_seen - head < wanted)
            consumer_.tail_seen = producer_.tail.load(std::memory_order_acquire);
        return consumer_.tail_seen - head;
    }
    std::size_t room(std::size_t tail, std::size_t wanted) {
        if (mask_ + 1 - (tail - producer_.head_seen) < wanted)
            producer_.head_seen = consumer_.head.load(std::memory_order_acquire);
        return mask_ + 1 - (tail - producer_.head_seen);
    }

    struct alignas(kFalseSharingBytes) Producer {
        std::atomic<std::size_t> tail{0};  // written by the producer only
        std::size_t head_seen = 0;         // the producer's copy of head
    };
    struct alignas(kFalseSharingBytes) Consumer {
        std::atomic<std::size_t> head{0};  // written by the consumer only
        std::size_t tail_seen = 0;         // the consumer's copy of tail
    };

    // Read only after construction, so both sides keep this line.
    alignas(kFalseSharingBytes) const std::size_t mask_;
    Slot* const slots_;
    Producer producer_;
    Consumer consumer_;
};

}  // namespace sluice
