// SPDX-License-Identifier: Apache-2.0
// Bytes that came in pieces, contiguous, with kBufferSlack readable bytes behind them: small
// answers that must be read as a whole.
//
// One piece, the usual case, is kept where it lies; what follows is copied behind it into a buffer
// with room. Threads: one. Owns: the buffer. Errors: append() is false when buffer memory is out.
#pragma once

#include <cstring>

#include "mem/buffer.h"

namespace sluice {

class Gathered {
public:
    bool append(Slice bytes, BufferPool& pool) {
        if (bytes_.empty()) {
            bytes_ = std::move(bytes);
            own_ = false;
            return true;
        }
        if (!own_ || bytes_.size + bytes.size > bytes_.buffer.capacity()) {
            BufferRef larger = pool.allocate((bytes_.size + bytes.size) * 2);
            if (!larger) return false;
            std::memcpy(larger.data(), bytes_.data(), bytes_.size);
            bytes_ = Slice{std::move(larger), 0, bytes_.size};
            own_ = true;
        }
        std::memcpy(bytes_.buffer.data() + bytes_.size, bytes.data(), bytes.size);
        bytes_.size += bytes.size;
        return true;
    }
    void clear() { bytes_ = Slice(); }

    const Slice& slice() const { return bytes_; }
    std::string_view view() const { return bytes_.view(); }
    std::size_t size() const { return bytes_.size; }
    bool empty() const { return bytes_.empty(); }

private:
    Slice bytes_;
    bool own_ = false;  // nobody else has the buffer, and the bytes begin at its start
};

}  // namespace sluice
