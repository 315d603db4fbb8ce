// SPDX-License-Identifier: Apache-2.0
// CRC32C (Castagnoli), continued over pieces: crc32c(crc32c(0, a), b) is that of a then b.
//
// The processor's instruction where it has one (looked up once, when the program starts), else a
// table. Threads: any. Costs: about 8 bytes in 3 cycles, by table about 1 byte in 3.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace sluice {

std::uint32_t crc32c(std::uint32_t crc, std::span<const std::byte> bytes);

// The table's way, whatever the processor has; for tests.
std::uint32_t crc32c_by_table(std::uint32_t crc, std::span<const std::byte> bytes);

}  // namespace sluice
