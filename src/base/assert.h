// SPDX-License-Identifier: Apache-2.0
// Assertions for programmer errors. Expected errors are values (result.h).
//
// ASSERT stays on in release builds: it guards invariants whose violation would corrupt somebody's
// answer. DCHECK is for checks that cost too much for that. Both print the place and abort.
#pragma once

namespace sluice {
[[noreturn]] void assertion_failed(const char* condition, const char* file, int line) noexcept;
}  // namespace sluice

#define ASSERT(condition)                                               \
    do {                                                                \
        if (!(condition)) [[unlikely]]                                  \
            ::sluice::assertion_failed(#condition, __FILE__, __LINE__); \
    } while (false)

#ifdef NDEBUG
#define DCHECK(condition) \
    do {                  \
    } while (false)
#else
#define DCHECK(condition) ASSERT(condition)
#endif

#define UNREACHABLE() ::sluice::assertion_failed("unreachable", __FILE__, __LINE__)
