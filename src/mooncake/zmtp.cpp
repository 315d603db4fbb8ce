// SPDX-License-Identifier: Apache-2.0
#include "mooncake/zmtp.h"

#include <algorithm>

namespace sluice::mooncake {

namespace {

constexpr std::uint8_t kMore = 1;
constexpr std::uint8_t kLong = 2;
constexpr std::uint8_t kCommand = 4;
constexpr std::string_view kNull("NULL\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 20);
constexpr std::size_t kPingContextMax = 16;

std::string frame(std::uint8_t flags, std::string_view body) {
    std::string out;
    if (body.size() <= 255) {
        out.push_back(static_cast<char>(flags));
        out.push_back(static_cast<char>(body.size()));
    } else {
        out.push_back(static_cast<char>(flags | kLong));
        for (int shift = 56; shift >= 0; shift -= 8)
            out.push_back(static_cast<char>(body.size() >> shift & 255));
    }
    return out.append(body);
}

std::uint64_t big_endian(std::string_view bytes) {
    std::uint64_t value = 0;
    for (const char c : bytes) value = value << 8 | static_cast<std::uint8_t>(c);
    return value;
}

std::string_view name_of(SocketType type) {
    return type == SocketType::Router ? "ROUTER" : "DEALER";
}

}  // namespace

std::string zmtp_greeting() {
    std::string out(ZmtpDecoder::kGreetingBytes, '\0');
    out[0] = '\xff';
    out[8] = 1;  // what libzmq sends there; the bytes between are padding
    out[9] = '\x7f';
    out[10] = 3;
    out[11] = 1;
    out.replace(12, kNull.size(), kNull);
    return out;
}

std::string zmtp_ready(SocketType type) {
    std::string body("\5READY");
    const auto property = [&](std::string_view name, std::string_view value) {
        body.push_back(static_cast<char>(name.size()));
        body.append(name);
        body.append({0, 0, 0, static_cast<char>(value.size())});
        body.append(value);
    };
    property("Socket-Type", name_of(type));
    property("Identity", "");
    return frame(kCommand, body);
}

std::string zmtp_pong(std::string_view ping_body) {
    if (ping_body.size() < 2 || ping_body.size() > 2 + kPingContextMax) return {};
    return frame(kCommand, std::string("\4PONG").append(ping_body.substr(2)));
}

std::string zmtp_frame_header(std::size_t bytes) {
    std::string out;
    if (bytes <= 255) {
        out.push_back(0);
        out.push_back(static_cast<char>(bytes));
        return out;
    }
    out.push_back(static_cast<char>(kLong));
    for (int shift = 56; shift >= 0; shift -= 8)
        out.push_back(static_cast<char>(bytes >> shift & 255));
    return out;
}

ZmtpDecoder::Event ZmtpDecoder::malformed(const char* why) {
    state_ = State::Broken;
    why_ = why;
    view_ = {};
    return Event::Malformed;
}

void ZmtpDecoder::drop_used() {
    view_ = {};
    if (used_ == 0) return;
    in_.erase(0, used_);
    used_ = 0;
    // A large message's memory is not kept by a connection that waits.
    if (in_.empty() && in_.capacity() > 4096) std::string().swap(in_);
}

ZmtpDecoder::Event ZmtpDecoder::greeting() {
    const std::string_view in(in_);
    // A stranger of another protocol is known by its first bytes.
    if (!in.empty() && in[0] != '\xff') return malformed("not ZMTP");
    if (in.size() > 9 && in[9] != '\x7f') return malformed("not ZMTP");
    if (in.size() > 10 && in[10] < 3) return malformed("ZMTP before 3.0");
    if (in.size() < kGreetingBytes) return Event::NeedMore;
    if (in.substr(12, 20) != kNull) return malformed("a security mechanism other than NULL");
    used_ = kGreetingBytes;
    state_ = State::Handshake;
    return next();
}

ZmtpDecoder::Event ZmtpDecoder::next() {
    drop_used();
    if (state_ == State::Broken) return Event::Malformed;
    if (state_ == State::Greeting) return greeting();
    while (true) {
        const std::string_view in = std::string_view(in_).substr(used_);
        if (in.empty()) return Event::NeedMore;
        const auto flags = static_cast<std::uint8_t>(in[0]);
        if ((flags & ~(kMore | kLong | kCommand)) != 0) return malformed("unknown frame flags");
        const bool is_command = (flags & kCommand) != 0;
        if (is_command && (flags & kMore) != 0) return malformed("a command in parts");
        const std::size_t header = (flags & kLong) != 0 ? 9 : 2;
        if (in.size() < header) return Event::NeedMore;
        const std::uint64_t size = big_endian(in.substr(1, header - 1));
        const std::size_t limit =
            is_command || state_ == State::Handshake ? kHandshakeMax : message_max_;
        if (size > limit || message_bytes_ + size > limit) return malformed("a frame too large");
        if (in.size() - header < size) return Event::NeedMore;
        const std::string_view body = in.substr(header, static_cast<std::size_t>(size));
        used_ += header + body.size();
        if (is_command) {
            const Event event = command(body);
            if (event != Event::NeedMore) return event;
            continue;  // one that means nothing to us
        }
        if (state_ != State::Traffic) return malformed("a message before READY");
        if ((flags & kMore) != 0) {
            message_bytes_ += body.size();
            if (++frames_ >= kFramesMax) return malformed("a message of too many frames");
            continue;
        }
        frames_ = message_bytes_ = 0;
        view_ = body;
        return Event::Message;
    }
}

ZmtpDecoder::Event ZmtpDecoder::command(std::string_view body) {
    if (body.empty()) return malformed("an empty command");
    const auto length = static_cast<std::uint8_t>(body[0]);
    if (body.size() - 1 < length) return malformed("a command name cut short");
    const std::string_view name = body.substr(1, length);
    const std::string_view rest = body.substr(1 + length);
    if (state_ == State::Handshake) return handshake_command(name, rest);
    if (name != "PING") return Event::NeedMore;
    if (zmtp_pong(rest).empty()) return malformed("a PING that is none");
    view_ = rest;
    return Event::Ping;
}

ZmtpDecoder::Event ZmtpDecoder::handshake_command(std::string_view name, std::string_view rest) {
    if (name == "ERROR") return malformed("the peer refused the handshake");
    if (name != "READY") return malformed("a command before READY");
    std::string_view type;
    while (!rest.empty()) {
        const auto length = static_cast<std::uint8_t>(rest[0]);
        if (rest.size() < 1U + length + 4) return malformed("a property cut short");
        const std::string_view property = rest.substr(1, length);
        const std::uint64_t size = big_endian(rest.substr(1U + length, 4));
        rest.remove_prefix(1U + length + 4);
        if (size > rest.size()) return malformed("a property cut short");
        // Names are compared without regard to case.
        constexpr std::string_view kSocketType = "socket-type";
        const bool same = std::ranges::equal(property, kSocketType, [](char a, char b) {
            return (a >= 'A' && a <= 'Z' ? static_cast<char>(a + 32) : a) == b;
        });
        if (same) type = rest.substr(0, static_cast<std::size_t>(size));
        rest.remove_prefix(static_cast<std::size_t>(size));
    }
    if (type != name_of(own_ == SocketType::Router ? SocketType::Dealer : SocketType::Router))
        return malformed("a socket type that does not fit");
    state_ = State::Traffic;
    return Event::Ready;
}

}  // namespace sluice::mooncake
