// SPDX-License-Identifier: Apache-2.0
#pragma once

// Two loops over the bytes of a body: blanks, and arrays of plain integers (a prompt given as token
// ids: most of a megabyte, and simdjson's walk takes 1.5 ns for each of its bytes). Internal to
// src/json.
//
// Threads: any (pure functions). Owns: nothing.
// Costs: SSE2 (every x86-64) checks 64 bytes of integers per step; elsewhere it is byte by byte.
//   No byte at or past `end` is read.
// Errors: none; what is not an array of plain integers is left to the caller.

#include <bit>
#include <cstddef>
#include <cstdint>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace sluice::json::kernel {

inline bool is_blank(char c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; }
inline bool is_digit(char c) { return c >= '0' && c <= '9'; }

inline const char* skip_blanks(const char* at, const char* end) {
    while (at != end && is_blank(*at)) {
        ++at;
    }
    return at;
}

inline const char* skip_digits(const char* at, const char* end) {
    while (at != end && is_digit(*at)) {
        ++at;
    }
    return at;
}

struct IntegerRun {
    const char* resume;   // just behind the last comma that was proven, or where it began
    std::uint32_t count;  // elements passed, each with its comma
};

#if defined(__SSE2__)

template <typename Test>
std::uint64_t mask64(const char* at, Test test) {
    std::uint64_t mask = 0;
    for (unsigned i = 0; i < 4; ++i) {
        const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(at + 16 * i));
        const auto part = static_cast<unsigned>(_mm_movemask_epi8(test(bytes)));
        mask |= static_cast<std::uint64_t>(part) << (16 * i);
    }
    return mask;
}

// `at` is the first digit of an array element. Runs over elements that are plain integers written
// "12,345" or "12, 345", 64 bytes at a time, checking the grammar with bit masks: a comma follows
// a digit, a blank follows a comma, and no number of several digits begins with 0.
inline IntegerRun skip_integers(const char* at, const char* end) {
    IntegerRun run{at, 0};
    std::uint64_t after_digit = 0;
    std::uint64_t after_comma = 1;
    std::uint64_t after_leading_zero = 0;
    for (; end - at >= 64; at += 64) {
        const std::uint64_t digits = mask64(at, [](__m128i v) {
            const __m128i offset = _mm_sub_epi8(v, _mm_set1_epi8('0'));
            return _mm_cmpeq_epi8(_mm_min_epu8(offset, _mm_set1_epi8(9)), offset);
        });
        const auto equal = [at](char c) {
            return mask64(at, [c](__m128i v) { return _mm_cmpeq_epi8(v, _mm_set1_epi8(c)); });
        };
        std::uint64_t commas = equal(',');
        const std::uint64_t blanks = equal(' ');
        const std::uint64_t behind_digit = digits << 1 | after_digit;
        const std::uint64_t behind_comma = commas << 1 | after_comma;
        const std::uint64_t leading_zeros = equal('0') & ~behind_digit;
        const std::uint64_t bad = ~(digits | commas | blanks) | (commas & ~behind_digit) |
                                  (blanks & ~behind_comma) |
                                  ((leading_zeros << 1 | after_leading_zero) & digits);
        if (bad != 0) {
            commas &= (bad & -bad) - 1;  // only those in front of the first bad byte are proven
        }
        if (commas != 0) {
            run.count += static_cast<std::uint32_t>(std::popcount(commas));
            run.resume = at + (64 - std::countl_zero(commas));
        }
        if (bad != 0) {
            break;
        }
        after_digit = digits >> 63;
        after_comma = commas >> 63;
        after_leading_zero = leading_zeros >> 63;
    }
    return run;
}

#else

inline IntegerRun skip_integers(const char* at, const char*) { return {at, 0}; }

#endif

// How many elements the array has whose first element begins at `at`, if each of them is a plain
// integer (digits only) and the array is closed before `end`; else 0.
inline std::uint32_t count_integers(const char* at, const char* end) {
    IntegerRun run = skip_integers(at, end);
    while (true) {
        const char* const number = skip_blanks(run.resume, end);
        const char* const behind = skip_digits(number, end);
        if (behind == number || (*number == '0' && behind - number > 1)) {
            return 0;
        }
        ++run.count;
        const char* const next = skip_blanks(behind, end);
        if (next == end || (*next != ',' && *next != ']')) {
            return 0;
        }
        if (*next == ']') {
            return run.count;
        }
        run.resume = next + 1;
    }
}

}  // namespace sluice::json::kernel
