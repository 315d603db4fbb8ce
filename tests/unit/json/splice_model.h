// SPDX-License-Identifier: Apache-2.0
#pragma once

// Random edits applied twice: by Splice to the bytes, and by nlohmann/json to a tree. Shared by the
// property test of splice and by the JSON fuzzer.
//
// Threads: any. Owns: its values. Costs: a test's. Errors: check() returns what is wrong, or "".

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "json/scan.h"
#include "json/splice.h"
#include "json/value.h"

namespace sluice::json::test {

using Tree = nlohmann::ordered_json;

// Short names, so that random objects hit them often.
inline constexpr std::array kEditSpecs{
    MemberSpec{"a"},    MemberSpec{"b"},     MemberSpec{"c"},    MemberSpec{"o"},
    MemberSpec{"a", 3}, MemberSpec{"b", 3},  MemberSpec{"p", 3}, MemberSpec{"a", 6},
    MemberSpec{"b", 6}, MemberSpec{"model"},
};
inline constexpr MemberTable kEditTable(kEditSpecs);

// A tiny generator: the same numbers everywhere (std distributions differ between libraries).
class Random {
public:
    explicit Random(std::uint64_t seed) : state_(seed * 2 + 1) {}

    std::uint32_t below(std::uint32_t limit) {
        state_ = state_ * 6364136223846793005U + 1442695040888963407U;
        return static_cast<std::uint32_t>(state_ >> 33U) % limit;
    }

private:
    std::uint64_t state_;
};

inline std::string text_of(std::span<const Piece> pieces) {
    std::string text;
    for (const Piece& piece : pieces) {
        text.append(piece.data, piece.size);
    }
    return text;
}

class EditedTwice {
public:
    EditedTwice(std::string_view body, const Member& root, std::span<const Member> found)
        : body_(body),
          root_(root),
          found_(found.begin(), found.end()),
          fate_(found.size()),
          splice_(body, root, found_),
          tree_(Tree::parse(body)) {}

    void edit_at_random(Random& random) {
        texts_.reserve(kSpliceEditsMax);  // the splice borrows the texts
        const std::uint32_t edits = random.below(10);
        for (std::uint32_t i = 0; i < edits; ++i) {
            const auto member = static_cast<std::int16_t>(random.below(kEditSpecs.size()));
            switch (random.below(3)) {
                case 0:
                    remove(member);
                    break;
                case 1:
                    replace(member, std::to_string(random.below(1000)));
                    break;
                default:
                    insert(random.below(2) == 0 ? kRoot : member, i);
                    break;
            }
        }
        apply_to_tree();
    }

    std::string check() {
        const std::span<const Piece> pieces = splice_.finish();
        const std::string text = text_of(pieces);
        if (text.size() != splice_.total_bytes()) return "total_bytes() is not the text's size";
        if (const std::string gap = check_gaps(pieces); !gap.empty()) return gap;
        const Tree reparsed = Tree::parse(text, nullptr, false);
        if (reparsed.is_discarded()) return "not JSON any more: " + text;
        return reparsed == tree_ ? "" : "expected " + tree_.dump() + " got " + text;
    }

private:
    struct Fate {
        bool removed = false;
        bool replaced = false;
        std::string value;
        std::vector<std::string> inserted;
    };

    Fate& fate(std::int16_t member) {
        return member == kRoot ? root_fate_ : fate_[static_cast<std::size_t>(member)];
    }

    void remove(std::int16_t member) {
        if (splice_.remove(member)) fate(member).removed = true;
    }

    void replace(std::int16_t member, std::string value) {
        texts_.push_back(std::move(value));
        if (splice_.replace(member, texts_.back())) {
            fate(member).replaced = true;
            fate(member).value = texts_.back();
        }
    }

    void insert(std::int16_t parent, std::uint32_t serial) {
        const std::string name = "new" + std::to_string(serial);
        texts_.push_back("\"" + name + "\":true");
        if (splice_.insert(parent, texts_.back())) fate(parent).inserted.push_back(name);
    }

    void apply_to_tree() { rebuild(kRoot, tree_); }

    void rebuild(std::int16_t scope, Tree& object) {
        Tree edited = Tree::object();
        for (const std::string& name : fate(scope).inserted) edited[name] = true;
        for (auto& [name, value] : object.items()) {
            const std::int16_t member = kEditTable.find(scope, name);
            if (member < 0) {
                edited[name] = value;
            } else if (!fate(member).removed) {
                if (fate(member).replaced) {
                    value = Tree::parse(fate(member).value);
                } else if (value.is_object()) {
                    rebuild(member, value);
                }
                edited[name] = value;
            }
        }
        object = std::move(edited);
    }

    // Every body byte that is not in the result belongs to an edited member or to a comma beside
    // it.
    std::string check_gaps(std::span<const Piece> pieces) const {
        std::vector<bool> kept(body_.size(), false);
        const char* at = body_.data();
        for (const Piece& piece : pieces) {
            if (piece.size == 0) return "empty piece";
            if (piece.inserted) continue;
            if (piece.data < at || piece.data + piece.size > body_.data() + body_.size()) {
                return "a piece is out of order";
            }
            at = piece.data + piece.size;
            for (const char* byte = piece.data; byte != at; ++byte) {
                kept[static_cast<std::size_t>(byte - body_.data())] = true;
            }
        }
        for (std::size_t i = 0; i < found_.size(); ++i) {
            const Member& member = found_[i];
            if (!fate_[i].removed && !fate_[i].replaced) continue;
            const std::uint32_t begin =
                member.comma_before == kNoOffset ? member.key_begin : member.comma_before;
            const std::uint32_t end =
                member.comma_after == kNoOffset ? member.value_end : member.comma_after + 1;
            for (std::uint32_t byte = begin; byte != end; ++byte) kept[byte] = true;
        }
        for (const bool byte : kept) {
            if (!byte) return "a byte is lost that no edit names";
        }
        return "";
    }

    std::string_view body_;
    Member root_;
    std::vector<Member> found_;
    std::vector<Fate> fate_;
    Fate root_fate_;
    Splice splice_;
    Tree tree_;
    std::vector<std::string> texts_;
};

}  // namespace sluice::json::test
