// SPDX-License-Identifier: Apache-2.0
// The next pieces of memory for one vectored call, taken off at the front as the kernel takes them.
//
// Threads: one. Owns: nothing that it points to.
#pragma once

#include <sys/uio.h>

#include <array>
#include <cstddef>
#include <span>

#include "base/assert.h"

namespace sluice::transport {

class IovWindow {
public:
    static constexpr std::size_t kEntries = 256;  // of one call; the kernel's own limit is 1024

    bool empty() const { return at_ == end_; }
    std::size_t room() const { return kEntries - end_; }
    void clear() { at_ = end_ = 0; }

    void add(void* base, std::size_t bytes) {
        DCHECK(room() > 0);
        if (bytes > 0) entries_[end_++] = {base, bytes};
    }
    // Where the next entries go; took() says how many went there.
    std::span<iovec> tail() { return std::span(entries_).subspan(end_); }
    void took(std::size_t entries) { end_ += entries; }

    std::span<iovec> view() { return std::span(entries_).subspan(at_, end_ - at_); }
    std::size_t bytes() const {
        std::size_t sum = 0;
        for (std::size_t i = at_; i < end_; ++i) sum += entries_[i].iov_len;
        return sum;
    }

    void advance(std::size_t bytes) {
        while (bytes > 0) {
            DCHECK(at_ < end_);
            iovec& entry = entries_[at_];
            if (bytes < entry.iov_len) {
                entry.iov_base = static_cast<std::byte*>(entry.iov_base) + bytes;
                entry.iov_len -= bytes;
                return;
            }
            bytes -= entry.iov_len;
            ++at_;
        }
        if (empty()) clear();
    }

private:
    std::array<iovec, kEntries> entries_;
    std::size_t at_ = 0;
    std::size_t end_ = 0;
};

}  // namespace sluice::transport
