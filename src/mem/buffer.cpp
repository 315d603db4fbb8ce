// SPDX-License-Identifier: Apache-2.0
#include "mem/buffer.h"

#include <sys/mman.h>

namespace sluice {

namespace {

constexpr std::size_t kHeadersPerChunk = 256;

char* map_bytes(std::size_t bytes) {
    void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return memory == MAP_FAILED ? nullptr : static_cast<char*>(memory);
}

}  // namespace

BufferPool::BufferPool(std::size_t bytes_max) : bytes_max_(bytes_max) {}

BufferPool::~BufferPool() {
    ASSERT(buffers_in_use_ == 0);
    for (std::uint32_t size_class = 1; size_class < kClasses; ++size_class)
        for (Buffer* block = free_[size_class]; block != nullptr; block = block->next_free)
            munmap(block->data, class_bytes(size_class));
    for (auto [memory, bytes] : page_chunks_) munmap(memory, bytes);
}

BufferRef BufferPool::allocate(std::size_t bytes) {
    std::uint32_t size_class = 0;
    while (size_class < kClasses && class_bytes(size_class) < bytes + limits::kBufferSlack)
        ++size_class;
    if (size_class == kClasses || bytes_in_use_ + class_bytes(size_class) > bytes_max_) {
        ++refusals_;
        return {};
    }
    if (free_[size_class] == nullptr) {
        if (size_class == 0) {
            add_pages();
        } else if (Buffer* block = add_block(size_class)) {
            free_[size_class] = block;
            bytes_kept_ += class_bytes(size_class);
        }
    }
    Buffer* buffer = free_[size_class];
    if (buffer == nullptr) {
        ++refusals_;
        return {};
    }
    free_[size_class] = buffer->next_free;
    if (size_class > 0) bytes_kept_ -= class_bytes(size_class);
    bytes_in_use_ += class_bytes(size_class);
    ++buffers_in_use_;
    return BufferRef(buffer);
}

bool BufferPool::add_pages() {
    const std::size_t bytes = kPagesPerChunk * limits::kPageBytes;
    char* memory = map_bytes(bytes);
    if (memory == nullptr) return false;
    page_chunks_.emplace_back(memory, bytes);
    for (std::size_t i = kPagesPerChunk; i-- > 0;) {
        Buffer* page = new_header();
        page->data = memory + i * limits::kPageBytes;
        page->capacity = kPageCapacity;
        page->next_free = free_[0];
        free_[0] = page;
    }
    return true;
}

Buffer* BufferPool::add_block(std::uint32_t size_class) {
    const std::size_t bytes = class_bytes(size_class);
    char* memory = map_bytes(bytes);
    if (memory == nullptr) return nullptr;
    Buffer* block = new_header();
    block->data = memory;
    block->capacity = static_cast<std::uint32_t>(bytes - limits::kBufferSlack);
    block->size_class = size_class;
    return block;
}

Buffer* BufferPool::new_header() {
    if (spare_headers_ != nullptr) {
        Buffer* header = spare_headers_;
        spare_headers_ = header->next_free;
        header->next_free = nullptr;
        header->size_class = 0;
        return header;
    }
    if (headers_.empty() || headers_used_ == kHeadersPerChunk) {
        headers_.push_back(std::make_unique<Buffer[]>(kHeadersPerChunk));
        headers_used_ = 0;
    }
    Buffer* header = &headers_.back()[headers_used_];
    header->pool = this;
    header->number =
        static_cast<std::uint32_t>((headers_.size() - 1) * kHeadersPerChunk + headers_used_);
    ++headers_used_;
    return header;
}

void BufferPool::release(Buffer* buffer) {
    const std::size_t bytes = class_bytes(buffer->size_class);
    bytes_in_use_ -= bytes;
    --buffers_in_use_;
    if (buffer->size_class > 0) {
        if (bytes_kept_ + bytes > kKeptBytes) {
            munmap(buffer->data, bytes);
            buffer->next_free = spare_headers_;
            spare_headers_ = buffer;
            return;
        }
        bytes_kept_ += bytes;
    }
    buffer->next_free = free_[buffer->size_class];
    free_[buffer->size_class] = buffer;
}

}  // namespace sluice
