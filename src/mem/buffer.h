// SPDX-License-Identifier: Apache-2.0
// Reference-counted byte buffers of one worker: 16 KiB pages and larger blocks in powers of four.
//
// Bytes are received into a buffer, parsed where they lie, and sent from there: a Slice names a
// part of a buffer and keeps it alive. Behind every buffer kBufferSlack bytes are readable, so SIMD
// parsers need no copy. Freed buffers are kept for reuse (pages always, larger blocks up to
// kKeptBytes). Threads: one; the counts are not atomic. Owns: the memory. Errors: allocate()
// answers an empty ref at the pool's byte limit, and the caller turns somebody away.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "base/assert.h"
#include "base/limits.h"

namespace sluice {

class BufferPool;

struct Buffer {
    char* data = nullptr;
    std::uint32_t capacity = 0;
    std::uint32_t references = 0;
    std::uint32_t size_class = 0;
    std::uint32_t number = 0;  // unique in the pool
    BufferPool* pool = nullptr;
    Buffer* next_free = nullptr;
};

class BufferRef {
public:
    BufferRef() = default;
    explicit BufferRef(Buffer* buffer) : buffer_(buffer) {
        if (buffer_ != nullptr) ++buffer_->references;
    }
    BufferRef(const BufferRef& other) : BufferRef(other.buffer_) {}
    BufferRef(BufferRef&& other) noexcept : buffer_(std::exchange(other.buffer_, nullptr)) {}
    BufferRef& operator=(BufferRef other) noexcept {
        std::swap(buffer_, other.buffer_);
        return *this;
    }
    ~BufferRef() { reset(); }

    void reset();
    explicit operator bool() const { return buffer_ != nullptr; }
    Buffer* get() const { return buffer_; }
    char* data() const { return buffer_->data; }
    std::uint32_t capacity() const { return buffer_->capacity; }
    bool unique() const { return buffer_->references == 1; }

private:
    Buffer* buffer_ = nullptr;
};

class BufferPool {
public:
    explicit BufferPool(std::size_t bytes_max);
    BufferPool(const BufferPool&) = delete;
    BufferPool& operator=(const BufferPool&) = delete;
    ~BufferPool();

    BufferRef allocate(std::size_t bytes);
    BufferRef allocate_page() { return allocate(kPageCapacity); }

    // Usable bytes of one page.
    static constexpr std::size_t kPageCapacity = limits::kPageBytes - limits::kBufferSlack;

    std::size_t bytes_in_use() const { return bytes_in_use_; }
    std::size_t buffers_in_use() const { return buffers_in_use_; }
    std::size_t bytes_max() const { return bytes_max_; }
    std::uint64_t refusals() const { return refusals_; }

private:
    friend class BufferRef;
    static constexpr std::uint32_t kClasses = 9;         // 16 KiB x 4^n: ... 64 MiB, 256 MiB, 1 GiB
    static constexpr std::size_t kPagesPerChunk = 64;    // 1 MiB
    static constexpr std::size_t kKeptBytes = 64 << 20;  // of larger blocks, in all

    static std::size_t class_bytes(std::uint32_t size_class) {
        return limits::kPageBytes << (2 * size_class);
    }
    bool add_pages();
    Buffer* add_block(std::uint32_t size_class);
    void release(Buffer* buffer);
    Buffer* new_header();

    std::size_t bytes_max_;
    std::size_t bytes_in_use_ = 0;
    std::size_t bytes_kept_ = 0;
    std::size_t buffers_in_use_ = 0;
    std::uint64_t refusals_ = 0;
    std::array<Buffer*, kClasses> free_{};
    std::vector<std::pair<void*, std::size_t>> page_chunks_;
    std::vector<std::unique_ptr<Buffer[]>> headers_;
    std::size_t headers_used_ = 0;
    Buffer* spare_headers_ = nullptr;
};

// A part of a buffer, kept alive. One that was moved from is empty.
struct Slice {
    BufferRef buffer;
    std::uint32_t offset = 0;
    std::uint32_t size = 0;

    Slice() = default;
    Slice(BufferRef of, std::uint32_t from_offset, std::uint32_t bytes)
        : buffer(std::move(of)), offset(from_offset), size(bytes) {}
    Slice(const Slice&) = default;
    Slice(Slice&& other) noexcept
        : buffer(std::move(other.buffer)), offset(other.offset), size(std::exchange(other.size, 0)) {}
    Slice& operator=(Slice other) noexcept {
        std::swap(buffer, other.buffer);
        std::swap(offset, other.offset);
        std::swap(size, other.size);
        return *this;
    }

    const char* data() const { return buffer.data() + offset; }
    std::string_view view() const {
        return size == 0 ? std::string_view() : std::string_view(data(), size);
    }
    bool empty() const { return size == 0; }

    Slice part(std::size_t from, std::size_t count) const {
        DCHECK(from + count <= size);
        return {buffer, static_cast<std::uint32_t>(offset + from),
                static_cast<std::uint32_t>(count)};
    }
    Slice from(std::size_t start) const { return part(start, size - start); }
};

inline void BufferRef::reset() {
    Buffer* buffer = std::exchange(buffer_, nullptr);
    if (buffer != nullptr && --buffer->references == 0) buffer->pool->release(buffer);
}

}  // namespace sluice
