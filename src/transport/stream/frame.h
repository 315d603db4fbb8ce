// SPDX-License-Identifier: Apache-2.0
// What goes over a lane that is a stream of bytes (TCP, a unix socket): a hello each way, then
// frames.
//
//   hello, 128 bytes   magic, version, verdict, lane index and count, node, group, token, CRC32C
//   frame, 48 bytes    magic, type, flags, slot, range, epoch, offset, length, part, header CRC
//   Data               + `length` bytes of the landing's stream from (range, offset) on: whole
//   units
//                      + trailer, 8 bytes: CRC32C of the payload (if the flag says so), verdict
//   Ack                 ends the part: offset holds a Status
//   Grant, Regions     + `length` bytes (shm only; shm/messages.h)
//   Ping
//
// The verdict comes behind the payload because a sender that is told to stop in mid-frame must not
// read its blocks any more: it fills up with zeros and says Void. All numbers are little-endian.
// Threads: values. Costs: a CRC of 44 bytes a frame. Errors: nothing that does not fit is read.
#pragma once

#include <array>
#include <bit>
#include <optional>

#include "transport/transport.h"

namespace sluice::transport {

static_assert(std::endian::native == std::endian::little, "the wire is what is in memory");

inline constexpr std::size_t kHelloBytes = 128;
inline constexpr std::size_t kHeaderBytes = 48;
inline constexpr std::size_t kTrailerBytes = 8;
inline constexpr std::uint16_t kWireVersion = 1;
inline constexpr std::uint32_t kFrameBytesMax = 64 << 20;  // payload of one frame, whoever sends it

enum class HelloVerdict : std::uint8_t { Ok, WrongToken, WrongVersion, NoRoom };

struct Hello {
    std::uint16_t version = kWireVersion;
    HelloVerdict verdict = HelloVerdict::Ok;
    std::uint16_t lane = 0;
    std::uint16_t lanes = 1;
    std::uint64_t node = 0;   // the speaker's process
    std::uint64_t group = 0;  // one number for all lanes of one connect()
    std::array<std::byte, 32> token{};
};

using HelloBytes = std::array<std::byte, kHelloBytes>;
HelloBytes write_hello(const Hello& hello);
// Nothing if it is not a hello at all. The token is compared by whoever reads it.
std::optional<Hello> read_hello(const HelloBytes& bytes);
// Takes as long for any two tokens.
bool same_token(const std::array<std::byte, 32>& a, const std::array<std::byte, 32>& b);

enum class FrameType : std::uint8_t { Data = 1, Ack, Ping, Grant, Regions };

inline constexpr std::uint8_t kLastOfPart = 1;
inline constexpr std::uint8_t kChecksum = 2;

struct FrameHeader {
    std::uint32_t magic = 0;
    FrameType type{};
    std::uint8_t flags = 0;
    std::uint16_t zero = 0;
    std::uint32_t slot = 0;
    std::uint32_t range = 0;
    std::uint64_t epoch = 0;
    std::uint64_t offset = 0;
    std::uint32_t length = 0;
    Handle part;  // the sender's own name for what this belongs to; comes back in Ack
    std::uint32_t crc = 0;
};
static_assert(sizeof(FrameHeader) == kHeaderBytes);

enum class FrameVerdict : std::uint32_t { Good = 0x600D600D, Void = 0 };
struct FrameTrailer {
    std::uint32_t crc = 0;
    FrameVerdict verdict{};
};
static_assert(sizeof(FrameTrailer) == kTrailerBytes);

// Fills in magic and CRC.
void seal(FrameHeader& header);
// False: not a frame of ours; nothing of it may be used.
bool check(const FrameHeader& header);

}  // namespace sluice::transport
