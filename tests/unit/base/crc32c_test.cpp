// SPDX-License-Identifier: Apache-2.0
#include "base/crc32c.h"

#include <gtest/gtest.h>

#include <cstring>
#include <string_view>
#include <vector>

#include "base/rng.h"

namespace sluice {
namespace {

std::span<const std::byte> bytes_of(std::string_view text) {
    return std::as_bytes(std::span(text.data(), text.size()));
}

// RFC 3720, B.4, and the check value of the catalogue.
TEST(Crc32c, KnownValues) {
    EXPECT_EQ(crc32c(0, bytes_of("123456789")), 0xE3069283u);
    EXPECT_EQ(crc32c(0, std::vector<std::byte>(32, std::byte{0})), 0x8A9136AAu);
    EXPECT_EQ(crc32c(0, std::vector<std::byte>(32, std::byte{0xFF})), 0x62A8AB43u);
    EXPECT_EQ(crc32c(0, {}), 0u);
}

TEST(Crc32c, TheInstructionAndTheTableAgreeInAnyPieces) {
    Rng rng{4};
    std::vector<std::byte> bytes(5000);
    for (auto& byte : bytes) byte = std::byte(rng());
    for (int i = 0; i < 300; ++i) {
        const std::size_t from = rng.below(200), size = rng.below(4000), cut = rng.below(size + 1);
        const auto piece = std::span(bytes).subspan(from, size);
        const std::uint32_t whole = crc32c_by_table(0, piece);
        EXPECT_EQ(crc32c(0, piece), whole);
        EXPECT_EQ(crc32c(crc32c(0, piece.first(cut)), piece.subspan(cut)), whole);
    }
}

}  // namespace
}  // namespace sluice
