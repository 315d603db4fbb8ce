// SPDX-License-Identifier: Apache-2.0
#include "transport/stream/frame.h"

#include <cstring>

#include "base/crc32c.h"

namespace sluice::transport {
namespace {

constexpr std::uint32_t kFrameMagic = 0x564B4C53;             // "SLKV"
constexpr std::uint64_t kHelloMagic = 0x4C4C45484B564C53ULL;  // "SLVKHELL"

// As it is on the wire; no padding.
struct HelloImage {
    std::uint64_t magic;
    std::uint16_t version;
    std::uint8_t verdict;
    std::uint8_t zero;
    std::uint16_t lane;
    std::uint16_t lanes;
    std::uint64_t node;
    std::uint64_t group;
    std::byte token[32];
    std::byte rest[60];
    std::uint32_t crc;
};
static_assert(sizeof(HelloImage) == kHelloBytes);

template <class T>
std::uint32_t crc_of_all_but_the_last_word(const T& image) {
    return crc32c(0, std::as_bytes(std::span(&image, 1)).first(sizeof image - 4));
}

}  // namespace

HelloBytes write_hello(const Hello& hello) {
    HelloImage image{};
    image.magic = kHelloMagic;
    image.version = hello.version;
    image.verdict = static_cast<std::uint8_t>(hello.verdict);
    image.lane = hello.lane;
    image.lanes = hello.lanes;
    image.node = hello.node;
    image.group = hello.group;
    std::memcpy(image.token, hello.token.data(), sizeof image.token);
    image.crc = crc_of_all_but_the_last_word(image);
    return std::bit_cast<HelloBytes>(image);
}

std::optional<Hello> read_hello(const HelloBytes& bytes) {
    const auto image = std::bit_cast<HelloImage>(bytes);
    if (image.magic != kHelloMagic || image.crc != crc_of_all_but_the_last_word(image) ||
        image.verdict > static_cast<std::uint8_t>(HelloVerdict::NoRoom) || image.lanes == 0 ||
        image.lanes > kLanesPerPeerMax || image.lane >= image.lanes)
        return std::nullopt;
    Hello hello;
    hello.version = image.version;
    hello.verdict = static_cast<HelloVerdict>(image.verdict);
    hello.lane = image.lane;
    hello.lanes = image.lanes;
    hello.node = image.node;
    hello.group = image.group;
    std::memcpy(hello.token.data(), image.token, sizeof image.token);
    return hello;
}

bool same_token(const std::array<std::byte, 32>& a, const std::array<std::byte, 32>& b) {
    // volatile: the compiler may not stop at the first difference either.
    volatile unsigned char difference = 0;
    for (std::size_t i = 0; i < a.size(); ++i)
        difference = difference | std::to_integer<unsigned char>(a[i] ^ b[i]);
    return difference == 0;
}

void seal(FrameHeader& header) {
    header.magic = kFrameMagic;
    header.crc = crc_of_all_but_the_last_word(header);
}

bool check(const FrameHeader& header) {
    return header.magic == kFrameMagic && header.crc == crc_of_all_but_the_last_word(header) &&
           header.type >= FrameType::Data && header.type <= FrameType::Regions &&
           header.length <= kFrameBytesMax && header.zero == 0;
}

}  // namespace sluice::transport
