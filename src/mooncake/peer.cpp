// SPDX-License-Identifier: Apache-2.0
#include "mooncake/peer.h"

#include <utility>

namespace sluice::mooncake {

Peer::Peer(io::Loop& loop, SocketType own, PeerEvents& events, std::size_t message_max)
    : loop_(loop),
      events_(events),
      own_(own),
      stream_(loop, *this),
      texts_(loop.buffers()),
      decoder_(own, message_max),
      timer_(Delegate<void()>::to<&Peer::on_timer>(*this)) {}

void Peer::open(io::Socket connected) {
    stream_.open(connected);
    begin();
}

Result<void> Peer::connect(const io::Address& address) {
    TRY(stream_.connect(address));
    loop_.arm(timer_, kHandshakeTimeout);
    return {};
}

void Peer::on_connected() { begin(); }

// Everything of the handshake at once: with the NULL mechanism nothing of ours depends on theirs.
void Peer::begin() {
    loop_.arm(timer_, kHandshakeTimeout);
    write(zmtp_greeting() + zmtp_ready(own_));
    stream_.set_reading(true);
}

void Peer::write(std::string_view bytes) {
    while (!bytes.empty()) {
        const std::string_view part = bytes.substr(0, BufferPool::kPageCapacity / 2);
        TextWriter writer(texts_);
        writer.append(part);
        if (!writer.ok()) return fail_soon();  // half a message is worse than none
        stream_.send(writer.finish());
        bytes.remove_prefix(part.size());
    }
    if (stream_.unsent() > kUnsentMax) fail_soon();
}

void Peer::on_closed() {
    timer_.cancel();
    events_.on_peer_closed(*this);
}

// Not from within the user's call.
void Peer::fail_soon() {
    doomed_ = true;
    loop_.arm(timer_, Duration::zero());
}

void Peer::on_timer() {
    if (over_) return stream_.close();
    gone();
}

void Peer::send(std::string_view message) {
    if (over_ || doomed_) return;
    std::string framed = zmtp_frame_header(message.size());
    framed.append(message);
    if (decoder_.ready()) return write(framed);
    waiting_.append(framed);
}

void Peer::on_bytes(Slice bytes) {
    if (over_) return;
    decoder_.append(bytes.view());
    while (!over_) {
        switch (decoder_.next()) {
            case ZmtpDecoder::Event::NeedMore:
                events_.on_peer_bytes(*this, decoder_.buffered());
                if (over_) return;
                // A deadline for what has begun, none for a peer that is silent.
                if (!decoder_.ready() || doomed_) return;
                if (decoder_.buffered() == 0) {
                    timer_.cancel();
                } else if (!timer_.armed()) {
                    loop_.arm(timer_, kMessageTimeout);
                }
                return;
            case ZmtpDecoder::Event::Ready:
                timer_.cancel();
                write(std::exchange(waiting_, {}));
                if (!doomed_) events_.on_peer_ready(*this);
                break;
            case ZmtpDecoder::Event::Ping:
                write(zmtp_pong(decoder_.view()));
                break;
            case ZmtpDecoder::Event::Message:
                if (!doomed_) timer_.cancel();
                events_.on_peer_message(*this, decoder_.view());
                break;
            case ZmtpDecoder::Event::Malformed:
                return gone();
        }
    }
}

void Peer::gone() {
    if (over_) return;
    close_now();
    events_.on_peer_gone(*this);
}

void Peer::close_now() {
    timer_.cancel();
    over_ = true;
    stream_.close();
}

void Peer::close() {
    if (over_) return;
    if (!stream_.is_open() || stream_.unsent() == 0) return close_now();
    over_ = true;
    stream_.set_reading(false);
    stream_.close_when_sent();
    loop_.arm(timer_, kCloseTimeout);
}

}  // namespace sluice::mooncake
