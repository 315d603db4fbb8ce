// SPDX-License-Identifier: Apache-2.0
#include "transport/mooncake/mooncake_lane.h"

#include <sys/socket.h>
#include <unistd.h>

namespace sluice::transport::mooncake {

MooncakeLane::~MooncakeLane() {
    if (fd_ >= 0) ::close(fd_);
}

void MooncakeLane::take(const LaneJob& job) {
    if (job.kind != JobKind::Close) return on_job(job);
    break_down(Status::Revoked);
    close_and_say_gone(fd_, job.reset);
}

void MooncakeLane::break_down(Status status, int os) {
    if (broken_) return;
    broken_ = true;
    if (status == Status::Violation) counters.violations.add();
    on_breaking(status);
    // The socket itself is closed by the owner's last job.
    ::shutdown(fd_, SHUT_RDWR);
    say_down(status, os);
}

bool MooncakeLane::connected() {
    if (!writable_) return false;
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(fd_, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error != 0) {
        break_down(Status::PeerLost, error);
        return false;
    }
    sockaddr_storage peer{};
    size = sizeof peer;
    if (::getpeername(fd_, reinterpret_cast<sockaddr*>(&peer), &size) == 0) return true;
    writable_ = false;  // readiness was reported for the socket as it was made
    return false;
}

bool MooncakeLane::receive(std::span<iovec> into, std::size_t& got) {
    std::size_t wanted = 0;
    for (const iovec& piece : into) wanted += piece.iov_len;
    msghdr message{};
    message.msg_iov = into.data();
    message.msg_iovlen = into.size();
    const ssize_t done = ::recvmsg(fd_, &message, MSG_DONTWAIT);
    if (done > 0) {
        got = static_cast<std::size_t>(done);
        last_heard_ = host().now();
        // Less than asked for: the socket is empty, and new bytes will be a new edge.
        if (got < wanted && !ending_) readable_ = false;
        return true;
    }
    if (done == 0) {
        break_down(Status::PeerLost, ECONNRESET);
    } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
        readable_ = false;
    } else if (errno != EINTR) {
        break_down(Status::PeerLost, errno);
    }
    return false;
}

bool MooncakeLane::send(std::span<iovec> from, std::size_t& sent) {
    std::size_t wanted = 0;
    for (const iovec& piece : from) wanted += piece.iov_len;
    msghdr message{};
    message.msg_iov = from.data();
    message.msg_iovlen = from.size();
    const ssize_t done = ::sendmsg(fd_, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (done >= 0) {
        sent = static_cast<std::size_t>(done);
        last_sent_ = host().now();
        if (sent < wanted) writable_ = false;
        return true;
    }
    if (errno == EAGAIN || errno == EWOULDBLOCK) {
        writable_ = false;
    } else if (errno != EINTR) {
        break_down(Status::PeerLost, errno);
    }
    return false;
}

}  // namespace sluice::transport::mooncake
