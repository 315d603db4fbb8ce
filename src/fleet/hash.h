// SPDX-License-Identifier: Apache-2.0
// A hash of bytes that is the same in every process and release, so that several proxies in front
// of one fleet choose alike. Not for secrets, and not for tables that a client can fill.
// Threads: any. Costs: one multiplication a byte; texts here are short.
#pragma once

#include <cstdint>
#include <string_view>

#include "base/rng.h"

namespace sluice::fleet {

inline constexpr std::uint64_t kHashStart = 0xcbf29ce484222325ULL;

// FNV-1a; give the result back as `hash` to go on.
constexpr std::uint64_t hash_bytes(std::string_view bytes, std::uint64_t hash = kHashStart) {
    for (const char c : bytes) {
        hash ^= static_cast<unsigned char>(c);
        hash *= 0x100000001b3ULL;
    }
    return hash;
}

// FNV's high bits mix slowly; this spreads them.
inline std::uint64_t spread(std::uint64_t hash) { return splitmix64(hash); }

}  // namespace sluice::fleet
