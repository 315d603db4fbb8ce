// SPDX-License-Identifier: Apache-2.0
#include "http/head_collector.h"

#include <cstring>

namespace sluice::http {

namespace {

constexpr std::size_t kFirstLineMax = limits::kRequestTargetMax + 1024;
constexpr const char* kLineTooLong = "the request line is too long";
constexpr const char* kHeadTooLarge = "the head is too large";

}  // namespace

void HeadCollector::reset() {
    held_ = Slice();
    head_ = Slice();
    line_begin_ = scanned_ = 0;
    empty_lines_ = 0;
    in_head_ = false;
}

HeadCollector::State HeadCollector::refuse(std::uint16_t status, const char* message) {
    reset();
    error_ = {status, message};
    return State::Bad;
}

bool HeadCollector::append(const Slice& bytes, BufferPool& pool) {
    const std::size_t end = held_.offset + held_.size;
    if (!held_.buffer.unique() || end + bytes.size > held_.buffer.capacity()) {
        BufferRef larger = pool.allocate((held_.size + bytes.size) * 2);
        if (!larger) return false;
        std::memcpy(larger.data(), held_.data(), held_.size);
        held_ = Slice{std::move(larger), 0, held_.size};
    }
    std::memcpy(held_.buffer.data() + held_.offset + held_.size, bytes.data(), bytes.size);
    held_.size += bytes.size;
    return true;
}

HeadCollector::State HeadCollector::feed(Slice bytes, BufferPool& pool) {
    if (held_.empty()) {
        held_ = std::move(bytes);
    } else if (!append(bytes, pool)) {
        return refuse(503, "out of buffer memory");
    }
    while (true) {
        const char* begin = held_.data();
        const void* found = std::memchr(begin + scanned_, '\n', held_.size - scanned_);
        if (found == nullptr) break;
        const auto at = static_cast<std::size_t>(static_cast<const char*>(found) - begin);
        scanned_ = at + 1;
        // Whatever the network's cuts: a head that is too large is that first.
        if (!in_head_ && at > kFirstLineMax) return refuse(414, kLineTooLong);
        if (scanned_ > limits::kHeadBytesMax) return refuse(431, kHeadTooLarge);
        if (at == line_begin_ || begin[at - 1] != '\r')
            return refuse(400, "a line feed without a carriage return");
        const bool empty_line = at - 1 == line_begin_;
        line_begin_ = at + 1;
        if (!empty_line) {
            in_head_ = true;
        } else if (in_head_) {
            head_ = held_.part(0, scanned_);
            held_ = held_.from(scanned_);
            line_begin_ = scanned_ = 0;
            empty_lines_ = 0;
            in_head_ = false;
            return State::Complete;
        } else {
            // Empty lines before a request are tolerated, a few of them (RFC 9112, 2.2).
            if (++empty_lines_ > limits::kLeadingEmptyLinesMax)
                return refuse(400, "empty lines instead of a request");
            held_ = held_.from(scanned_);
            line_begin_ = scanned_ = 0;
            if (held_.empty()) {
                held_ = Slice();
                return State::NeedMore;
            }
        }
    }
    scanned_ = held_.size;
    if (!in_head_ && held_.size > kFirstLineMax) return refuse(414, kLineTooLong);
    if (held_.size > limits::kHeadBytesMax) return refuse(431, kHeadTooLarge);
    return State::NeedMore;
}

}  // namespace sluice::http
