// SPDX-License-Identifier: Apache-2.0
// A first-in first-out queue of slices with its byte count: what waits to be sent, or what is held
// back.
//
// A ring that grows by doubling and is kept; a queue that was never used holds no memory. Rings of
// queues that are gone serve later ones of the thread (slice_rings.h), so that a steady state
// allocates nothing. Threads: one at a time. Owns: references to the slices' buffers.
#pragma once

#include <cstddef>
#include <utility>

#include "mem/buffer.h"
#include "mem/slice_rings.h"

namespace sluice {

class SliceQueue {
public:
    SliceQueue() = default;
    ~SliceQueue() {
        if (ring_ == nullptr) return;
        clear();
        SliceRings::give(ring_, capacity_);
    }
    SliceQueue(SliceQueue&& other) noexcept { swap(other); }
    SliceQueue& operator=(SliceQueue&& other) noexcept {
        SliceQueue taken(std::move(other));
        swap(taken);
        return *this;
    }

    bool empty() const { return count_ == 0; }
    std::size_t count() const { return count_; }
    std::size_t bytes() const { return bytes_; }

    const Slice& operator[](std::size_t i) const { return ring_[(first_ + i) & (capacity_ - 1)]; }

    // Slices that continue each other in one buffer are joined.
    void push(Slice slice) {
        if (slice.size == 0) return;
        bytes_ += slice.size;
        if (count_ > 0) {
            Slice& last = at(count_ - 1);
            if (last.buffer.get() == slice.buffer.get() &&
                last.offset + last.size == slice.offset) {
                last.size += slice.size;
                return;
            }
        }
        if (count_ == capacity_) grow();
        at(count_++) = std::move(slice);
    }

    // Puts a slice back before everything else.
    void push_front(Slice slice) {
        if (slice.size == 0) return;
        bytes_ += slice.size;
        if (count_ == capacity_) grow();
        first_ = (first_ + capacity_ - 1) & (capacity_ - 1);
        ++count_;
        at(0) = std::move(slice);
    }

    void pop_bytes(std::size_t bytes) {
        ASSERT(bytes <= bytes_);
        bytes_ -= bytes;
        while (bytes > 0) {
            Slice& front = at(0);
            if (front.size > bytes) {
                front.offset += static_cast<std::uint32_t>(bytes);
                front.size -= static_cast<std::uint32_t>(bytes);
                return;
            }
            bytes -= front.size;
            front = Slice();
            first_ = (first_ + 1) & (capacity_ - 1);
            --count_;
        }
    }

    void clear() { pop_bytes(bytes_); }

    // Appends everything of `other`, which is empty afterwards.
    void take_all(SliceQueue& other) {
        for (std::size_t i = 0; i < other.count_; ++i) push(std::move(other.at(i)));
        other.bytes_ = 0;
        other.count_ = 0;
        other.first_ = 0;
    }

    void swap(SliceQueue& other) noexcept {
        std::swap(ring_, other.ring_);
        std::swap(capacity_, other.capacity_);
        std::swap(first_, other.first_);
        std::swap(count_, other.count_);
        std::swap(bytes_, other.bytes_);
    }

private:
    Slice& at(std::size_t i) { return ring_[(first_ + i) & (capacity_ - 1)]; }

    void grow() {
        const std::size_t capacity = capacity_ == 0 ? 4 : capacity_ * 2;
        Slice* ring = SliceRings::take(capacity);
        for (std::size_t i = 0; i < count_; ++i) ring[i] = std::move(at(i));
        if (ring_ != nullptr) SliceRings::give(ring_, capacity_);
        ring_ = ring;
        capacity_ = capacity;
        first_ = 0;
    }

    Slice* ring_ = nullptr;
    std::size_t capacity_ = 0;  // a power of two, or 0
    std::size_t first_ = 0;
    std::size_t count_ = 0;
    std::size_t bytes_ = 0;
};

}  // namespace sluice
