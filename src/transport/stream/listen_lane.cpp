// SPDX-License-Identifier: Apache-2.0
#include "transport/stream/listen_lane.h"

#include <sys/socket.h>
#include <unistd.h>

namespace sluice::transport {

ListenLane::~ListenLane() {
    if (fd_ >= 0) ::close(fd_);
}

void ListenLane::adopt(LaneHost& host) {
    host_ = &host;
    host.want_step(*this);
}

void ListenLane::take(const LaneJob& job) {
    if (job.kind != JobKind::Close) return;
    ::close(fd_);
    fd_ = -1;
    emit(EventKind::Gone, 0);
}

void ListenLane::on_ready(std::uint32_t) { host_->want_step(*this); }

bool ListenLane::step() {
    constexpr int kAcceptsPerTurn = 16;
    for (int i = 0; i < kAcceptsPerTurn; ++i) {
        const int accepted = ::accept4(fd_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (accepted < 0) return false;
        emit(EventKind::Accepted, static_cast<std::uint64_t>(accepted));
    }
    return true;
}

void ListenLane::emit(EventKind kind, std::uint64_t user) {
    LaneEvent event{};
    event.kind = kind;
    event.target = &target_;
    event.lane = this;
    event.user = user;
    host_->emit(event);
}

}  // namespace sluice::transport
