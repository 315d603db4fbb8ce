// SPDX-License-Identifier: Apache-2.0
// A pool of objects of one type, named by slot and generation.
//
// A Handle outlives its object safely: once the slot has been given to somebody else, its
// generation has moved on and get() answers nullptr. Late completions and late timers are dropped
// by exactly this check. Memory grows in chunks up to `capacity` and is kept, so that a steady
// state allocates nothing. Threads: one. Owns: the objects. Costs: O(1), two cache lines. Errors:
// emplace() answers nullptr at the capacity.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <utility>
#include <vector>

#include "base/assert.h"

namespace sluice {

struct Handle {
    std::uint32_t index = UINT32_MAX;
    std::uint32_t generation = 0;

    bool valid() const { return index != UINT32_MAX; }
    friend bool operator==(const Handle&, const Handle&) = default;
};

template <class T>
class Slab {
public:
    explicit Slab(std::uint32_t capacity) : capacity_(capacity) {}
    Slab(const Slab&) = delete;
    Slab& operator=(const Slab&) = delete;
    ~Slab() {
        for (auto& chunk : chunks_)
            for (std::uint32_t i = 0; i < kChunk; ++i)
                if (chunk[i].live) object(chunk[i])->~T();
    }

    template <class... Args>
    T* emplace(Args&&... args) {
        if (free_ == nullptr && !grow()) return nullptr;
        Cell* cell = free_;
        free_ = cell->next_free;
        T* made = new (cell->storage) T(std::forward<Args>(args)...);
        cell->live = true;
        ++size_;
        return made;
    }

    void erase(T& object_to_erase) {
        Cell& cell = cell_of(object_to_erase);
        ASSERT(cell.live);
        object_to_erase.~T();
        cell.live = false;
        ++cell.generation;
        cell.next_free = free_;
        free_ = &cell;
        --size_;
    }

    Handle handle_of(const T& of) const {
        const Cell& cell = cell_of(const_cast<T&>(of));
        return {cell.index, cell.generation};
    }

    T* get(Handle handle) {
        if (handle.index >= chunks_.size() * kChunk) return nullptr;
        Cell& cell = chunks_[handle.index / kChunk][handle.index % kChunk];
        return cell.live && cell.generation == handle.generation ? object(cell) : nullptr;
    }

    std::uint32_t size() const { return size_; }
    std::uint32_t capacity() const { return capacity_; }

    template <class F>
    void for_each(F&& visit) {
        for (auto& chunk : chunks_)
            for (std::uint32_t i = 0; i < kChunk; ++i)
                if (chunk[i].live) visit(*object(chunk[i]));
    }

private:
    static constexpr std::uint32_t kChunk = 64;

    struct Cell {
        alignas(
            T) std::byte storage[sizeof(T)];  // first, so that an object's address is its cell's
        std::uint32_t index = 0;
        std::uint32_t generation = 1;
        Cell* next_free = nullptr;
        bool live = false;
    };

    static T* object(Cell& cell) { return std::launder(reinterpret_cast<T*>(cell.storage)); }
    static Cell& cell_of(T& of) { return *reinterpret_cast<Cell*>(&of); }

    bool grow() {
        const auto base = static_cast<std::uint32_t>(chunks_.size() * kChunk);
        if (base >= capacity_) return false;
        auto chunk = std::make_unique<Cell[]>(kChunk);
        for (std::uint32_t i = kChunk; i-- > 0;) {
            chunk[i].index = base + i;
            if (base + i >= capacity_) continue;
            chunk[i].next_free = free_;
            free_ = &chunk[i];
        }
        chunks_.push_back(std::move(chunk));
        return true;
    }

    std::uint32_t capacity_;
    std::uint32_t size_ = 0;
    Cell* free_ = nullptr;
    std::vector<std::unique_ptr<Cell[]>> chunks_;
};

}  // namespace sluice
