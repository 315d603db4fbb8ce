// SPDX-License-Identifier: Apache-2.0
#include "transport/mooncake/wire.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace sluice::transport::mooncake {
namespace {

static_assert(std::endian::native == std::endian::little, "the wire is what is in memory");

constexpr std::uint8_t kAcknowledged = 0x80;
constexpr std::uint32_t kStatusMark = 0x4D435456;
constexpr std::size_t kLengthBytes = 8;

}  // namespace

RequestHeader write_request(const Request& request) {
    RequestHeader header{};
    std::memcpy(header.data(), &request.bytes, 8);
    std::memcpy(header.data() + 8, &request.address, 8);
    header[16] = std::byte{static_cast<std::uint8_t>(static_cast<unsigned>(request.opcode) |
                                                     (request.acknowledged ? kAcknowledged : 0U))};
    return header;
}

std::optional<Request> read_request(const RequestHeader& header) {
    Request request;
    std::memcpy(&request.bytes, header.data(), 8);
    std::memcpy(&request.address, header.data() + 8, 8);
    const auto opcode = std::to_integer<std::uint8_t>(header[16]);
    request.acknowledged = (opcode & kAcknowledged) != 0;
    request.opcode = static_cast<Opcode>(opcode & ~kAcknowledged);
    if (request.opcode > Opcode::Write || request.bytes > kRequestBytesMax) return std::nullopt;
    return request;
}

StatusWord write_status(Answer answer) {
    return std::bit_cast<StatusWord>(std::uint64_t{kStatusMark} << 32 |
                                     static_cast<std::uint32_t>(answer));
}

std::optional<Answer> read_status(const StatusWord& word) {
    const auto value = std::bit_cast<std::uint64_t>(word);
    if (value >> 32 != kStatusMark) return std::nullopt;
    return static_cast<std::uint32_t>(value) == 0 ? Answer::Ok : Answer::AddressRefused;
}

std::string write_handshake(HandshakeType type, std::string_view json) {
    const std::uint64_t length = 1 + json.size();
    std::string message(kLengthBytes, '\0');
    std::memcpy(message.data(), &length, kLengthBytes);
    message += static_cast<char>(type);
    message += json;
    return message;
}

HandshakeReader::State HandshakeReader::take(std::string_view bytes) {
    if (length_ == 0) {
        const std::size_t part = std::min(bytes.size(), kLengthBytes - held_.size());
        held_ += bytes.substr(0, part);
        bytes.remove_prefix(part);
        if (held_.size() < kLengthBytes) return State::NeedMore;
        std::memcpy(&length_, held_.data(), kLengthBytes);
        if (length_ < 2 || length_ > kHandshakeBytesMax) {
            length_ = 0;
            held_.resize(kLengthBytes);
            return State::Malformed;
        }
    }
    // Held is what has come, not what was announced.
    held_ += bytes.substr(0, std::min(bytes.size(), kLengthBytes + length_ - held_.size()));
    // Peers before there were types begin with their JSON. They want a queue pair of us.
    if (held_.size() > kLengthBytes && static_cast<std::uint8_t>(held_[kLengthBytes]) >
                                           static_cast<unsigned>(HandshakeType::Probe))
        return State::Malformed;
    return held_.size() == kLengthBytes + length_ ? State::Complete : State::NeedMore;
}

}  // namespace sluice::transport::mooncake
