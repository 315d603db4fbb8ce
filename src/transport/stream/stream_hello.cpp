// SPDX-License-Identifier: Apache-2.0
// The first 128 bytes each way. Whoever connects speaks first; either end that does not see the
// pool's token closes.
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include "transport/stream/stream_lane.h"

namespace sluice::transport {
namespace {

// A new socket takes 128 bytes at once or is broken.
bool send_all(int fd, const HelloBytes& bytes) {
    return ::send(fd, bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL) ==
           static_cast<ssize_t>(bytes.size());
}

}  // namespace

void StreamLane::greet() {
    if (state_ == State::Connecting) {
        if (!writable_) return;
        int error = 0;
        socklen_t size = sizeof error;
        getsockopt(setup_.fd, SOL_SOCKET, SO_ERROR, &error, &size);
        if (error != 0) return break_down(Status::PeerLost, error);
        Hello hello;
        hello.lane = setup_.lane;
        hello.lanes = setup_.lanes;
        hello.node = context().options.node;
        hello.group = setup_.group;
        hello.token = context().options.token;
        if (!send_all(setup_.fd, write_hello(hello))) {
            // Not connected yet: readiness was reported for the socket as it was made.
            if (errno == ENOTCONN || errno == EAGAIN || errno == EINPROGRESS) {
                writable_ = false;
                return;
            }
            return break_down(Status::PeerLost, errno);
        }
        state_ = State::Greeting;
    }
    if (!read_greeting()) return;
    const auto hello = read_hello(greeting_);
    if (!hello) return break_down(Status::Violation);
    on_greeting(*hello);
}

// True when all of it is there.
bool StreamLane::read_greeting() {
    while (greeting_got_ < kHelloBytes) {
        const ssize_t got = ::recv(setup_.fd, greeting_.data() + greeting_got_,
                                   kHelloBytes - greeting_got_, MSG_DONTWAIT);
        if (got > 0) {
            greeting_got_ += static_cast<std::size_t>(got);
            continue;
        }
        if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            readable_ = false;
        } else if (got < 0 && errno != EINTR) {
            break_down(Status::PeerLost, errno);
        } else if (got == 0) {
            break_down(Status::PeerLost, ECONNRESET);
        }
        return false;
    }
    return true;
}

void StreamLane::on_greeting(const Hello& hello) {
    peer_ = hello;
    if (setup_.connecting) {
        if (hello.verdict != HelloVerdict::Ok) return break_down(Status::Refused);
        if (!same_token(hello.token, context().options.token)) {
            counters.tokens_refused.add();
            return break_down(Status::Refused, EACCES);
        }
        state_ = State::Up;
        return on_hello_done();
    }
    Hello answer;
    answer.node = context().options.node;
    answer.group = hello.group;
    answer.lane = hello.lane;
    answer.lanes = hello.lanes;
    if (hello.version != kWireVersion) answer.verdict = HelloVerdict::WrongVersion;
    if (!same_token(hello.token, context().options.token)) {
        answer.verdict = HelloVerdict::WrongToken;
        counters.tokens_refused.add();
    }
    // Ours is shown only to those who have shown it.
    if (answer.verdict == HelloVerdict::Ok) answer.token = context().options.token;
    const bool sent = send_all(setup_.fd, write_hello(answer));
    if (answer.verdict != HelloVerdict::Ok) return break_down(Status::Refused, EACCES);
    if (!sent) return break_down(Status::PeerLost, errno);
    state_ = State::Up;
    on_hello_done();
}

}  // namespace sluice::transport
