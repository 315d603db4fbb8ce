// SPDX-License-Identifier: Apache-2.0
#include "transport/peer_lane.h"

#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

namespace sluice::transport {

void PeerLane::adopt(LaneHost& host) {
    host_ = &host;
    started_ = last_heard_ = last_sent_ = host.now();
    host.want_step(*this);
}

void PeerLane::on_ready(std::uint32_t epoll_events) {
    if ((epoll_events & EPOLLIN) != 0) readable_ = true;
    if ((epoll_events & EPOLLOUT) != 0) writable_ = true;
    if ((epoll_events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) {
        ending_ = readable_ = true;
        if ((epoll_events & EPOLLERR) != 0) writable_ = true;
    }
    host_->want_step(*this);
}

void PeerLane::emit(LaneEvent event) {
    event.target = context_.target;
    event.lane = this;
    host_->emit(event);
}

void PeerLane::say_up() {
    LaneEvent event{};
    event.kind = EventKind::Up;
    emit(event);
}

void PeerLane::say_down(Status status, int os) {
    LaneEvent event{};
    event.kind = EventKind::Down;
    event.status = status;
    event.os = os;
    emit(event);
}

void PeerLane::say_part_done(Post& post, Status status) {
    LaneEvent event{};
    event.kind = EventKind::PartDone;
    event.status = status;
    event.post = &post;
    emit(event);
}

void PeerLane::say_landing_done(const Ticket& ticket, Status status) {
    LaneEvent event{};
    event.kind = EventKind::LandingDone;
    event.status = status;
    event.ticket = ticket;
    emit(event);
}

void PeerLane::close_and_say_gone(int& fd, bool reset) {
    if (fd >= 0) {
        if (reset) {
            const linger at_once{1, 0};
            setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
        }
        ::close(fd);
        fd = -1;
    }
    LaneEvent event{};
    event.kind = EventKind::Gone;
    emit(event);
}

}  // namespace sluice::transport
