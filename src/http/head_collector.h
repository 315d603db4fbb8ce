// SPDX-License-Identifier: Apache-2.0
// Gathers the bytes of one head until its empty line, wherever the network cut them.
//
// The usual head arrives in one piece and is not copied. Pieces that follow are appended behind the
// first (in its page if there is room), so that a client that drips bytes holds one buffer, not one
// page a byte. A line feed without a carriage return is refused as soon as it is seen, not when a
// timer ends. Threads: one. Owns: the gathered buffer. Costs: each byte is looked at once.
#pragma once

#include <optional>

#include "http/head_parser.h"

namespace sluice::http {

class HeadCollector {
public:
    enum class State : unsigned char { NeedMore, Complete, Bad };

    State feed(Slice bytes, BufferPool& pool);

    // After Complete: the head, and what came behind it.
    Slice take_head() { return std::move(head_); }
    Slice take_rest() { return std::move(held_); }
    const HeadError& error() const { return error_; }

    // Whether bytes of an unfinished head are held.
    bool started() const { return !held_.empty(); }
    void reset();

private:
    bool append(const Slice& bytes, BufferPool& pool);
    State refuse(std::uint16_t status, const char* message);

    Slice held_;
    Slice head_;
    HeadError error_{};
    std::size_t line_begin_ = 0;
    std::size_t scanned_ = 0;
    int empty_lines_ = 0;
    bool in_head_ = false;
};

}  // namespace sluice::http
