// SPDX-License-Identifier: Apache-2.0
// Small texts (heads, chunk lines, inserted JSON) written one after another into shared pages.
//
//   TextWriter w(arena);  w.append("HTTP/1.1 200 OK\r\n");  Slice head = w.finish();
//
// A text is contiguous. One TextWriter is open at a time. A text that outgrows a page moves to a
// larger buffer. Threads: one. Owns: the page being filled; finished slices keep their own. Errors:
// when the pool is exhausted the writer is !ok(), appends nothing more, and finish() is empty.
#pragma once

#include <charconv>
#include <cstring>
#include <string_view>

#include "mem/buffer.h"

namespace sluice {

class TextArena {
public:
    explicit TextArena(BufferPool& pool) : pool_(pool) {}

private:
    friend class TextWriter;
    BufferPool& pool_;
    BufferRef page_;
    std::uint32_t used_ = 0;
};

class TextWriter {
public:
    explicit TextWriter(TextArena& arena) : arena_(arena) {
        if (!arena_.page_ || arena_.page_.capacity() - arena_.used_ < kRoomMin) next_page(kRoomMin);
        begin_ = arena_.used_;
    }
    TextWriter(const TextWriter&) = delete;
    TextWriter& operator=(const TextWriter&) = delete;

    bool ok() const { return ok_; }
    std::size_t size() const { return arena_.used_ - begin_; }

    void append(std::string_view text) {
        // An empty view may have no address, which memcpy must not be given.
        if (text.empty() || !reserve(text.size())) return;
        std::memcpy(arena_.page_.data() + arena_.used_, text.data(), text.size());
        arena_.used_ += static_cast<std::uint32_t>(text.size());
    }
    void append(char c) { append(std::string_view(&c, 1)); }
    void append_number(std::uint64_t value, int base = 10) {
        char digits[24];
        const auto end = std::to_chars(digits, digits + sizeof digits, value, base).ptr;
        append(std::string_view(digits, static_cast<std::size_t>(end - digits)));
    }

    std::string_view view() const {
        return ok_ ? std::string_view(arena_.page_.data() + begin_, size()) : std::string_view();
    }

    Slice finish() {
        if (!ok_) return {};
        Slice slice{arena_.page_, begin_, arena_.used_ - begin_};
        begin_ = arena_.used_;
        return slice;
    }

private:
    static constexpr std::uint32_t kRoomMin = 512;

    bool reserve(std::size_t more) {
        if (!ok_) return false;
        if (arena_.page_.capacity() - arena_.used_ >= more) return true;
        const Slice written{arena_.page_, begin_, arena_.used_ - begin_};
        next_page((written.size + more) * 2);
        if (!ok_) return false;
        std::memcpy(arena_.page_.data(), written.data(), written.size);
        begin_ = 0;
        arena_.used_ = written.size;
        return true;
    }

    void next_page(std::size_t bytes) {
        BufferRef page = bytes <= BufferPool::kPageCapacity ? arena_.pool_.allocate_page()
                                                            : arena_.pool_.allocate(bytes);
        if (!page) {
            ok_ = false;
            return;
        }
        arena_.page_ = std::move(page);
        arena_.used_ = 0;
    }

    TextArena& arena_;
    std::uint32_t begin_ = 0;
    bool ok_ = true;
};

}  // namespace sluice
