// SPDX-License-Identifier: Apache-2.0
// One ZMTP connection on the loop: handshake, messages both ways, and a prompt word when the other
// side has gone.
//
// The handshake is done in kHandshakeTimeout; a message that has begun is complete within
// kMessageTimeout. What is sent before the handshake is over leaves after it. After close(), and
// after on_peer_gone(), no event comes but on_peer_closed(), at which it may be destroyed; it is
// never called from within the user's own call. Threads: one. Owns: the connection.
#pragma once

#include "io/stream.h"
#include "mem/text_arena.h"
#include "mooncake/message.h"
#include "mooncake/zmtp.h"

namespace sluice::mooncake {

class Peer;

class PeerEvents {
public:
    virtual void on_peer_ready(Peer&) {}
    // The bytes are valid during the call.
    virtual void on_peer_message(Peer& peer, std::string_view message) = 0;
    // After each receive: bytes of a message not yet complete. It may be closed then.
    virtual void on_peer_bytes(Peer&, std::size_t) {}
    virtual void on_peer_gone(Peer& peer) = 0;  // the peer or the network ended it; it closes
    virtual void on_peer_closed(Peer& peer) = 0;

protected:
    ~PeerEvents() = default;
};

class Peer final : private io::StreamEvents {
public:
    static constexpr Duration kHandshakeTimeout = std::chrono::seconds(5);
    static constexpr Duration kMessageTimeout = std::chrono::seconds(10);
    static constexpr Duration kCloseTimeout = std::chrono::seconds(5);
    static constexpr std::size_t kUnsentMax = 4 << 20;  // a peer that does not read is let go

    Peer(io::Loop& loop, SocketType own, PeerEvents& events,
         std::size_t message_max = kMessageBytesMax);

    void open(io::Socket connected);
    Result<void> connect(const io::Address& address);
    void send(std::string_view message);
    // What was sent before still leaves, unless that takes longer than kCloseTimeout.
    void close();
    void close_now();
    bool ready() const { return decoder_.ready() && !over_; }
    bool over() const { return over_; }
    std::size_t buffered() const { return decoder_.buffered(); }

private:
    void on_connected() override;
    void on_bytes(Slice bytes) override;
    void on_end() override { gone(); }
    void on_broken(Error) override { gone(); }
    void on_closed() override;
    void on_timer();
    void begin();
    void gone();
    void write(std::string_view bytes);
    void fail_soon();

    io::Loop& loop_;
    PeerEvents& events_;
    SocketType own_;
    io::Stream stream_;
    TextArena texts_;
    ZmtpDecoder decoder_;
    Timer timer_;
    std::string waiting_;  // to be sent when the handshake is over
    bool doomed_ = false;  // gone() is on its way
    bool over_ = false;
};

}  // namespace sluice::mooncake
