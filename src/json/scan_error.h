// SPDX-License-Identifier: Apache-2.0
#pragma once

// Why a body was refused, and the sentence about it for the client.
//
// Threads: any; plain values and a pure function. Owns: nothing.
// Costs: describe() writes some hundred bytes; error path only.
// Errors: a sentence that does not fit is cut short.

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "json/member.h"

namespace sluice::json {

inline constexpr std::size_t kErrorTextBytesMax = 512;  // enough for any real describe()

enum class ScanCode : std::uint8_t {
    Empty,
    TooLarge,
    ByteOrderMark,
    RootNotObject,
    TooDeep,
    UnexpectedEnd,
    ExpectedKey,
    ExpectedColon,
    ExpectedValue,
    ExpectedCommaOrBrace,
    ExpectedCommaOrBracket,
    BadLiteral,
    BadNumber,
    BadEscape,
    ControlCharacter,
    BadUtf8,
    TrailingBytes,
    Duplicate,  // member, offset of the second key
    WrongType,  // member, offset of the value
};

struct ScanError {
    ScanCode code = ScanCode::Empty;
    std::int16_t member = -1;  // index of the spec for Duplicate and WrongType
    std::uint32_t offset = 0;
};

// The sentence for the client, written into `out` (cut short if it does not fit).
std::string_view describe(const ScanError& error, std::span<const MemberSpec> specs,
                          std::span<char> out) noexcept;

}  // namespace sluice::json
