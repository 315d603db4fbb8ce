// SPDX-License-Identifier: Apache-2.0
#pragma once

// The words of this folder: which members of a body somebody wants (MemberSpec, MemberTable), and
// where in the body they were found (Member).
//
// Threads: any; plain values. A MemberTable is immutable.
// Owns: nothing. A MemberTable borrows its specs (normally static data).
// Costs: a look-up is one hash of four bytes and one comparison of the name.
// Errors: a table that cannot be made (too many specs, bad parent) does not compile when constexpr.

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <type_traits>

namespace sluice::json {

inline constexpr std::size_t kWantedMax = 64;     // members asked for at once
inline constexpr std::size_t kNameBytesMax = 64;  // longest wanted name

inline constexpr std::uint32_t kNoOffset = 0xffffffff;
inline constexpr std::int16_t kRoot = -1;

enum class Kind : std::uint8_t { Absent, Null, Bool, Number, String, Array, Object };

using KindMask = std::uint8_t;

template <typename... Kinds>
requires(std::is_same_v<Kinds, Kind>&&...) constexpr KindMask mask_of(Kinds... kinds) {
    return static_cast<KindMask>((0U | ... | (1U << static_cast<unsigned>(kinds))));
}

inline constexpr KindMask kAnyKind =
    mask_of(Kind::Null, Kind::Bool, Kind::Number, Kind::String, Kind::Array, Kind::Object);

struct MemberSpec {
    std::string_view name;
    std::int16_t parent = kRoot;  // index of the spec of the object it lies in
    KindMask allowed = kAnyKind;
};

struct Member {
    Kind kind = Kind::Absent;
    Kind first_kind = Kind::Absent;       // arrays: kind of the first element
    Kind first_item_kind = Kind::Absent;  // first element is an array: kind of its first element
    std::int16_t parent = kRoot;
    std::uint32_t ordinal = 0;    // it is the ordinal-th member of its object
    std::uint32_t key_begin = 0;  // the key's opening quote
    std::uint32_t value_begin = 0;
    std::uint32_t value_end = 0;             // exact, no trailing blanks
    std::uint32_t comma_before = kNoOffset;  // no offset: it is the first of its object
    std::uint32_t comma_after = kNoOffset;   // no offset: it is the last of its object
    std::uint32_t count = 0;                 // arrays: elements; objects: members
    std::uint32_t first_count = 0;           // first element is an array: its elements

    explicit operator bool() const { return kind != Kind::Absent; }
};

// The specs of one kind of body, arranged for look-up. Made once at start-up (or at compile time).
class MemberTable {
public:
    constexpr explicit MemberTable(std::span<const MemberSpec> specs) : specs_(specs) {
        // More specs than kWantedMax, a name too long or a bad parent is a programming error; the
        // out-of-range access makes it a compile error in constexpr tables.
        for (std::size_t i = specs.size(); i-- > 0;) {
            const MemberSpec& spec = specs[i];
            const bool usable = i < kWantedMax && !spec.name.empty() &&
                                spec.name.size() <= kNameBytesMax && spec.parent >= kRoot &&
                                spec.parent < static_cast<int>(i);
            std::uint8_t& head = heads_.at(usable ? slot(spec.parent, spec.name) : kSlots);
            next_[i] = head;
            head = static_cast<std::uint8_t>(i + 1);
        }
    }

    std::span<const MemberSpec> specs() const { return specs_; }

    // Index of the spec with this name in the object `parent`, or -1.
    std::int16_t find(std::int16_t parent, std::string_view name) const {
        if (name.empty() || name.size() > kNameBytesMax) {
            return -1;
        }
        for (unsigned i = heads_[slot(parent, name)]; i != 0; i = next_[i - 1]) {
            const MemberSpec& spec = specs_[i - 1];
            if (spec.parent == parent && spec.name == name) {
                return static_cast<std::int16_t>(i - 1);
            }
        }
        return -1;
    }

private:
    static constexpr std::size_t kSlots = 128;

    static constexpr std::size_t slot(std::int16_t parent, std::string_view name) {
        const auto byte = [](char c) {
            return static_cast<std::size_t>(static_cast<unsigned char>(c));
        };
        return (name.size() + 7 * byte(name.front()) + 29 * byte(name.back()) +
                53 * byte(name[name.size() / 2]) + 17 * static_cast<std::size_t>(parent + 1)) %
               kSlots;
    }

    std::span<const MemberSpec> specs_;
    std::array<std::uint8_t, kSlots> heads_{};     // index + 1, or 0
    std::array<std::uint8_t, kWantedMax> next_{};  // index + 1, or 0
};

}  // namespace sluice::json
