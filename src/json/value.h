// SPDX-License-Identifier: Apache-2.0
#pragma once

// Reading the values of a scanned body, and writing strings into JSON.
//
// Threads: any (pure functions). Owns: nothing; results are views of the body or of `out`.
// Costs: proportional to the value; no allocation.
// Errors: std::nullopt when the value is not of that type, out of range, or `out` is too small.
//
// 1. The text given must have passed scan(): these functions stay within it but do not judge it.

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "json/scan.h"

namespace sluice::json {

inline constexpr std::size_t kEscapeGrowthMax = 6;  // one byte becomes at most \u00xx

// The value as it stands in the body; strings with their quotes.
inline std::string_view raw(const Member& member, std::string_view body) {
    return member ? body.substr(member.value_begin, member.value_end - member.value_begin)
                  : std::string_view{};
}

std::optional<bool> as_bool(const Member& member, std::string_view body) noexcept;

// Integers as written (12, -3), not 12.0 or 1e3.
std::optional<std::int64_t> as_int64(const Member& member, std::string_view body) noexcept;

// A string without escapes as a view of the body; otherwise decoded into `out`. A lone surrogate
// escape becomes U+FFFD.
std::optional<std::string_view> as_string(const Member& member, std::string_view body,
                                          std::span<char> out) noexcept;

// Decodes the inside of a JSON string (without its quotes) into `out`.
std::optional<std::string_view> unescape(std::string_view inside, std::span<char> out) noexcept;

// Writes `text` (UTF-8) as the inside of a JSON string, without quotes. 6 times its size always
// fits.
std::optional<std::string_view> escape(std::string_view text, std::span<char> out) noexcept;

// The elements of a scanned array, one after the other, as they stand in the body.
class Elements {
public:
    explicit Elements(std::string_view array_text) : rest_(array_text.substr(1)) {}

    std::optional<std::string_view> next() noexcept;

private:
    std::string_view rest_;  // what follows the opening bracket or the last comma
};

}  // namespace sluice::json
