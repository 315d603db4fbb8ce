// SPDX-License-Identifier: Apache-2.0
#include "json/splice.h"

#include <algorithm>

namespace sluice::json {

void Splice::reset(std::string_view body, const Member& root, std::span<const Member> found) {
    body_ = body;
    root_ = root;
    found_ = found;
    total_bytes_ = 0;
    edit_count_ = 0;
    piece_count_ = 0;
}

bool Splice::remove(std::int16_t member) { return add(Op::Remove, member) != nullptr; }

bool Splice::replace(std::int16_t member, std::string_view value) {
    Edit* const edit = add(Op::Replace, member);
    if (edit != nullptr) {
        edit->text = value;
    }
    return edit != nullptr;
}

bool Splice::insert(std::int16_t parent, std::string_view text) {
    const Member* const target = object(parent);
    if (target == nullptr || edit_count_ == kSpliceEditsMax) {
        return false;
    }
    edits_[edit_count_++] = Edit{.op = Op::Insert, .member = parent, .text = text};
    return true;
}

std::span<const Piece> Splice::finish() {
    total_bytes_ = 0;
    piece_count_ = 0;
    std::array<std::uint8_t, kSpliceEditsMax> order;
    for (std::size_t i = 0; i < edit_count_; ++i) {
        place(edits_[i]);
        order[i] = static_cast<std::uint8_t>(i);
    }
    // Inserts at a position come before the removal of what follows them; else by call.
    std::sort(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(edit_count_),
              [this](std::uint8_t a, std::uint8_t b) {
                  const Edit& left = edits_[a];
                  const Edit& right = edits_[b];
                  if (left.begin != right.begin) {
                      return left.begin < right.begin;
                  }
                  return left.op != right.op ? left.op < right.op : a < b;
              });
    std::uint32_t at = 0;
    for (std::size_t i = 0; i < edit_count_; ++i) {
        const Edit& edit = edits_[order[i]];
        if (edit.begin < at) {
            continue;  // it lies inside a member that is gone
        }
        emit(body_.substr(at, edit.begin - at), false);
        emit(edit.text, true);
        emit(edit.comma ? "," : "", true);
        at = edit.end;
    }
    emit(body_.substr(at), false);
    return {pieces_.data(), piece_count_};
}

const Member* Splice::object(std::int16_t parent) const {
    if (parent == kRoot) {
        return &root_;
    }
    const auto index = static_cast<std::size_t>(parent);
    const bool usable = index < found_.size() && found_[index].kind == Kind::Object;
    return usable ? &found_[index] : nullptr;
}

// The edit of this member, new or the earlier one; null when the member is absent, there is no
// room, or a replace comes after a remove (which then stays: that counts as done).
Splice::Edit* Splice::add(Op op, std::int16_t member) {
    const auto index = static_cast<std::size_t>(member);
    if (member < 0 || index >= found_.size() || !found_[index]) {
        return nullptr;
    }
    for (std::size_t i = 0; i < edit_count_; ++i) {
        Edit& edit = edits_[i];
        if (edit.op != Op::Insert && edit.member == member) {
            edit.op = std::max(edit.op, op);
            return &edit;
        }
    }
    if (edit_count_ == kSpliceEditsMax) {
        return nullptr;
    }
    edits_[edit_count_] = Edit{.op = op, .member = member};
    return &edits_[edit_count_++];
}

// How many members of the object are removed, of those with a smaller ordinal.
std::uint32_t Splice::removed_in(std::int16_t parent, std::uint32_t ordinal_below) const {
    std::uint32_t removed = 0;
    for (std::size_t i = 0; i < edit_count_; ++i) {
        if (edits_[i].op == Op::Remove) {
            const Member& member = found_[static_cast<std::size_t>(edits_[i].member)];
            removed += member.parent == parent && member.ordinal < ordinal_below ? 1 : 0;
        }
    }
    return removed;
}

bool Splice::more_inserts(const Edit& edit) const {
    const Edit* const last = edits_.data() + edit_count_;
    return std::any_of(&edit + 1, last, [&](const Edit& other) {
        return other.op == Op::Insert && other.member == edit.member;
    });
}

// Decides which bytes the edit takes, commas included.
void Splice::place(Edit& edit) const {
    if (edit.op == Op::Insert) {
        const Member& parent = *object(edit.member);
        edit.begin = edit.end = parent.value_begin + 1;
        const bool survivors = removed_in(edit.member, parent.count) < parent.count;
        edit.comma = survivors || more_inserts(edit);
        return;
    }
    const Member& member = found_[static_cast<std::size_t>(edit.member)];
    if (edit.op == Op::Replace) {
        edit.begin = member.value_begin;
        edit.end = member.value_end;
        return;
    }
    // A removed member takes the comma before it; only when no member before it stays, there is no
    // such comma to take, and it takes the one after it.
    edit.text = {};
    edit.comma = false;
    if (removed_in(member.parent, member.ordinal) < member.ordinal) {
        edit.begin = member.comma_before;
        edit.end = member.value_end;
    } else {
        edit.begin = member.key_begin;
        edit.end = member.comma_after == kNoOffset ? member.value_end : member.comma_after + 1;
    }
}

void Splice::emit(std::string_view text, bool inserted) {
    if (!text.empty()) {
        pieces_[piece_count_++] = {text.data(), static_cast<std::uint32_t>(text.size()), inserted};
        total_bytes_ += text.size();
    }
}

}  // namespace sluice::json
