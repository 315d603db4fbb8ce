// SPDX-License-Identifier: Apache-2.0
#include "transport/mooncake/handshake_lane.h"

#include <sys/socket.h>

#include <array>

namespace sluice::transport::mooncake {

HandshakeLane::HandshakeLane(const LaneContext& context, int fd, const io::Address& to,
                             const Segment& ours)
    : MooncakeLane(context, Role::Handshake, fd),
      asking_(true),
      connected_(false),
      other_(to),
      out_(write_handshake(HandshakeType::Metadata, write_segment(ours))) {}

HandshakeLane::HandshakeLane(const LaneContext& context, int fd, const io::Address& from)
    : MooncakeLane(context, Role::Handshake, fd), asking_(false), connected_(true), other_(from) {}

void HandshakeLane::set_reply(const Segment& ours) {
    reply_ = write_handshake(HandshakeType::Metadata, write_segment(ours));
}

void HandshakeLane::on_job(const LaneJob& job) {
    if (job.kind != JobKind::Send || broken()) return;
    out_ = std::move(reply_);
    host().want_step(*this);
}

bool HandshakeLane::step() {
    if (broken()) return false;
    if (!connected_) {
        if (!connected()) return false;
        connected_ = true;
    }
    constexpr int kCallsPerTurn = 4;
    int calls = kCallsPerTurn;
    while (!broken() && writable_ && !sent_ && calls-- > 0 && write_some()) {
    }
    calls = kCallsPerTurn;
    while (!broken() && readable_ && calls-- > 0 && read_some()) {
    }
    return !broken() && (readable_ || (writable_ && !sent_ && !out_.empty()));
}

bool HandshakeLane::write_some() {
    if (out_.empty()) return false;
    iovec piece{out_.data() + out_sent_, out_.size() - out_sent_};
    std::size_t done = 0;
    if (!send({&piece, 1}, done)) return false;
    out_sent_ += done;
    if (out_sent_ < out_.size()) return true;
    sent_ = true;
    // Who asked reads the end and closes.
    if (!asking_) ::shutdown(fd(), SHUT_WR);
    return false;
}

bool HandshakeLane::read_some() {
    std::array<char, 16 * 1024> bytes;
    iovec piece{bytes.data(), bytes.size()};
    std::size_t done = 0;
    if (!receive({&piece, 1}, done)) return false;
    if (got_) return true;  // nobody says more than one thing
    switch (reader_.take({bytes.data(), done})) {
        case HandshakeReader::State::NeedMore:
            return true;
        case HandshakeReader::State::Malformed:
            break_down(Status::Violation);
            return false;
        case HandshakeReader::State::Complete:
            got_ = true;
            on_message();
            return !broken();
    }
    return false;
}

void HandshakeLane::on_message() {
    if (reader_.type() == HandshakeType::Probe && !asking_) {
        out_ = write_handshake(HandshakeType::Probe, "{\"status\":\"success\"}\n");
        return;
    }
    // Connection handshakes are for queue pairs, notifications for who expects some.
    if (reader_.type() != HandshakeType::Metadata)
        return break_down(Status::Refused, EPROTONOSUPPORT);
    auto segment = read_segment(reader_.json());
    if (!segment) return break_down(Status::Violation);
    theirs_ = std::move(*segment);
    say_up();
}

void HandshakeLane::tick() {
    if (!broken() && host().now() - started_ > context().options.connect_timeout)
        break_down(Status::PeerLost, ETIMEDOUT);
}

}  // namespace sluice::transport::mooncake
