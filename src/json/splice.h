// SPDX-License-Identifier: Apache-2.0
#pragma once

// Edits on a scanned body without writing it anew: the result is a list of pieces, alternately of
// the body as received and of inserted text, to be sent as one vector. Every byte that no edit
// names stays as it was.
//
// Threads: one at a time; normally a member of the leg that sends the body.
// Owns: fixed arrays only. Body, members and inserted texts are borrowed until the pieces are used.
// Costs: some nanoseconds per edit, no allocation, nothing proportional to the body.
// Errors: edits return false when they do not apply (member absent, no room left); finish() cannot
//   fail.
//
// 1. Edits may come in any order. A later replace() of the same member wins; remove() wins over
//    replace(); an edit inside a member that is itself removed or replaced is dropped.
// 2. Inserted members come first in their object, in the order of the calls.

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "json/member.h"

namespace sluice::json {

inline constexpr std::size_t kSpliceEditsMax = 32;
// Each edit yields at most its text, a comma and the body bytes in front of it; then the rest.
inline constexpr std::size_t kSplicePiecesMax = 3 * kSpliceEditsMax + 1;

struct Piece {
    const char* data = nullptr;
    std::uint32_t size = 0;
    bool inserted = false;  // false: it points into the body
};

class Splice {
public:
    Splice() = default;
    Splice(std::string_view body, const Member& root, std::span<const Member> found) {
        reset(body, root, found);
    }

    // Begins anew on a body and what scan() said about it.
    void reset(std::string_view body, const Member& root, std::span<const Member> found);

    // `member` is an index into the specs (and into found).
    bool remove(std::int16_t member);
    bool replace(std::int16_t member, std::string_view value);

    // `text` is `"key":value`, put behind the opening brace of the object `parent` (kRoot: the
    // body's own).
    bool insert(std::int16_t parent, std::string_view text);

    // The edited body in order; valid until the next call on this object.
    std::span<const Piece> finish();

    // Bytes of the edited body, after finish().
    std::uint64_t total_bytes() const { return total_bytes_; }

private:
    enum class Op : std::uint8_t { Insert, Replace, Remove };

    struct Edit {
        Op op = Op::Insert;
        bool comma = false;       // Insert: a comma follows the text
        std::int16_t member = 0;  // Insert: the parent
        std::uint32_t begin = 0;  // body bytes [begin, end) give way to the text
        std::uint32_t end = 0;
        std::string_view text = {};
    };

    const Member* object(std::int16_t parent) const;
    Edit* add(Op op, std::int16_t member);
    std::uint32_t removed_in(std::int16_t parent, std::uint32_t ordinal_below) const;
    bool more_inserts(const Edit& edit) const;
    void place(Edit& edit) const;
    void emit(std::string_view text, bool inserted);

    std::string_view body_;
    Member root_;
    std::span<const Member> found_;
    std::uint64_t total_bytes_ = 0;
    std::size_t edit_count_ = 0;
    std::size_t piece_count_ = 0;
    std::array<Edit, kSpliceEditsMax> edits_;
    std::array<Piece, kSplicePiecesMax> pieces_;
};

}  // namespace sluice::json
