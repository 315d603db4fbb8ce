// SPDX-License-Identifier: Apache-2.0
// ZMTP 3.1 over TCP, as ZeroMQ's ROUTER and DEALER speak it with the NULL mechanism: what to send,
// and a decoder of what comes.
//
//   greeting   64 bytes: signature, version 3.x, mechanism, as-server
//   READY      a command with the socket type; the other side sends its own
//   messages   frames of up to 2^63 bytes, chained by a MORE flag
//   PING       is answered with PONG
// Own code and not libzmq: its sockets live in threads of their own behind a file descriptor that
// only says "look again", know nothing of our loop, timers or simulation, have no bound on the
// bytes a stranger may make them hold, and never say that a peer has died, which is what the relay
// is for. What is needed of the protocol is this file. It is tested against libzmq itself.
//
// Threads: one. Owns: the bytes not yet decoded, at most kHandshakeMax before the handshake is over
// and the message limit plus a frame header after it. Costs: a copy of each byte (control
// messages). Errors: Event::Malformed with why(); the connection is then useless.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace sluice::mooncake {

enum class SocketType : std::uint8_t { Router, Dealer };

std::string zmtp_greeting();
std::string zmtp_ready(SocketType type);
// A PONG with the context of a PING's body; empty if that is no valid one.
std::string zmtp_pong(std::string_view ping_body);
// Before the bytes of a message of one frame.
std::string zmtp_frame_header(std::size_t bytes);

class ZmtpDecoder {
public:
    enum class Event : std::uint8_t {
        NeedMore,
        Ready,      // the handshake is over
        Ping,       // answer with zmtp_pong(view())
        Message,    // view() is its last frame, which is all of it between DEALER and ROUTER
        Malformed,  // why()
    };

    // `own`: who we are; the peer must be the other. Messages above `message_max` are malformed.
    ZmtpDecoder(SocketType own, std::size_t message_max) : own_(own), message_max_(message_max) {}

    void append(std::string_view bytes) { in_.append(bytes); }
    Event next();
    // Valid until the next append() or next().
    std::string_view view() const { return view_; }
    const char* why() const { return why_; }
    std::size_t buffered() const { return in_.size(); }
    bool ready() const { return state_ == State::Traffic; }

    static constexpr std::size_t kGreetingBytes = 64;
    static constexpr std::size_t kHandshakeMax = 1024;  // greeting and READY
    static constexpr std::size_t kFramesMax = 8;        // of one message

private:
    enum class State : std::uint8_t { Greeting, Handshake, Traffic, Broken };

    Event greeting();
    Event command(std::string_view body);
    Event handshake_command(std::string_view name, std::string_view rest);
    Event malformed(const char* why);
    void drop_used();

    SocketType own_;
    std::size_t message_max_;
    State state_ = State::Greeting;
    std::string in_;
    std::size_t used_ = 0;
    std::size_t frames_ = 0;         // of the message that is coming
    std::size_t message_bytes_ = 0;  // of its frames before
    std::string_view view_;
    const char* why_ = "";
};

}  // namespace sluice::mooncake
