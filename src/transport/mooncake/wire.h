// SPDX-License-Identifier: Apache-2.0
// Mooncake's transfer engine over TCP, as its wheels speak it (seen: 0.3.13).
//
//   handshake  one request and answer a connection:  u64 length, u8 type, JSON and a newline
//              (length counts the type). Metadata carries each side's segment (segment.h).
//   data       request, 24 bytes: u64 bytes, u64 address, u8 opcode, 7 that mean nothing.
//              v1: Write has no answer; Read is answered with the bytes; a wrong address by a
//              reset. v2 (bit 0x80 of the opcode, where the peer's segment says version 2): a
//              status word of 8 bytes behind a write's last byte and before a read's first.
//
// Requests that are sent without waiting are answered in their order. Addresses are the peer's own
// and mean nothing to who sends them. All numbers are little-endian. Threads: values.
// Costs: 24 bytes a request. Errors: nothing that does not fit is read; what is held is bounded.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace sluice::transport::mooncake {

enum class Opcode : std::uint8_t { Read = 0, Write = 1 };

struct Request {
    std::uint64_t bytes = 0;
    std::uint64_t address = 0;
    Opcode opcode = Opcode::Write;
    bool acknowledged = false;  // v2
    friend bool operator==(const Request&, const Request&) = default;
};

inline constexpr std::size_t kRequestHeaderBytes = 24;
inline constexpr std::size_t kStatusBytes = 8;
// Payload of one request. vLLM merges what is adjacent on both sides, so one can be a whole region.
inline constexpr std::uint64_t kRequestBytesMax = std::uint64_t{64} << 30;

using RequestHeader = std::array<std::byte, kRequestHeaderBytes>;
using StatusWord = std::array<std::byte, kStatusBytes>;

RequestHeader write_request(const Request& request);
// Nothing: an opcode that does not exist, or more bytes than anybody moves at once.
std::optional<Request> read_request(const RequestHeader& header);

enum class Answer : std::uint32_t { Ok = 0, AddressRefused = 1 };
StatusWord write_status(Answer answer);
// Nothing: no status word. Codes that we don't know count as refused.
std::optional<Answer> read_status(const StatusWord& word);

enum class HandshakeType : std::uint8_t { Connection = 0, Metadata = 1, Notify = 2, Probe = 3 };

// The engine's own limit; a segment of 10,000 buffers is about 600 KiB.
inline constexpr std::size_t kHandshakeBytesMax = 1 << 20;

std::string write_handshake(HandshakeType type, std::string_view json);

// Bytes of a handshake as they come, cut anywhere.
class HandshakeReader {
public:
    enum class State : std::uint8_t { NeedMore, Complete, Malformed };

    // What is behind a complete message is not looked at: nobody sends any.
    State take(std::string_view bytes);

    HandshakeType type() const { return static_cast<HandshakeType>(held_[8]); }
    std::string_view json() const { return std::string_view(held_).substr(9); }
    std::size_t held() const { return held_.size(); }

private:
    std::string held_;
    std::uint64_t length_ = 0;  // of type and JSON; 0: not known yet
};

}  // namespace sluice::transport::mooncake
