// SPDX-License-Identifier: Apache-2.0
#pragma once

// One strict walk over a JSON body that must be an object. It validates every byte as RFC 8259
// JSON (skipped values too) and notes where the members lie that somebody wants to read or edit.
// It never builds a tree and never copies: a Member is a set of offsets into the body. The walk is
// simdjson's On-Demand; what that leaves unchecked is checked here.
//
// Threads: a Scanner belongs to one thread at a time; normally there is one per worker.
// Owns: simdjson's parser, whose index of a body is kept for the next one (four bytes for each
//   token; the index of a body above kKeptBodyBytes is given back).
// Costs: one pass to index the body, one over its tokens; perf/micro/json_bench.cpp measures it. It
//   allocates when a body is larger than any before it, or than kKeptBodyBytes, and to say what is
//   wrong with a body whose last brace is missing.
// Errors: ScanError by value, with the byte offset; describe() makes the sentence for the client.
//
// What it is strict about, because another reader of the same bytes might see something else:
// 1. A wanted member that appears twice in its object is refused.
// 2. Keys are compared after decoding: "m\u006fdel" is "model".
// 3. A byte order mark, trailing bytes, invalid UTF-8 and bad escapes are refused. Lone surrogate
//    escapes (RFC 8259 section 8.2) and numbers of any size are grammatical and pass.

#include <cstddef>
#include <cstdint>
#include <expected>
#include <memory>
#include <span>
#include <string_view>

#include "base/limits.h"
#include "json/member.h"
#include "json/scan_error.h"

namespace sluice::json {

inline constexpr std::size_t kBodyBytesMax = std::size_t{1} << 30;  // offsets are 32 bits wide
inline constexpr std::size_t kKeptBodyBytes = std::size_t{4} << 20;
inline constexpr std::uint32_t kDepthMax = 1024;  // open objects and arrays

class Scanner {
public:
    Scanner();
    ~Scanner();
    Scanner(const Scanner&) = delete;
    Scanner& operator=(const Scanner&) = delete;

    // Walks the body. limits::kBufferSlack bytes behind it must be readable; what they are does not
    // matter. found[i] describes specs()[i]; found must be as long as the specs. The result is the
    // root object itself (its braces, its number of members), which Splice needs. After an error
    // found holds what was seen so far and is of no use.
    [[nodiscard]] std::expected<Member, ScanError> scan(std::string_view body,
                                                        const MemberTable& wanted,
                                                        std::span<Member> found) noexcept;

private:
    class Impl;
    std::unique_ptr<Impl> impl_;
};

// The same for a text with nothing readable behind it, by a copy and a scanner of its own: for
// tests and for what is read once in a while.
[[nodiscard]] std::expected<Member, ScanError> scan_copy(std::string_view body,
                                                         const MemberTable& wanted,
                                                         std::span<Member> found);

}  // namespace sluice::json
