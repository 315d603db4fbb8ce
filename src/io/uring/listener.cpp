// SPDX-License-Identifier: Apache-2.0
#include "io/uring/listener.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/limits.h"

namespace sluice::io {

namespace {

// A peer that vanished without a word is noticed by the kernel after about a minute, whatever our
// timers say.
constexpr int kKeepAliveIdleSeconds = 30;
constexpr int kKeepAliveIntervalSeconds = 10;
constexpr int kKeepAliveProbes = 3;
constexpr unsigned kUnacknowledgedMs = 60'000;

void set_option(int fd, int level, int name, int value) {
    // Options improve behaviour; a kernel that refuses one still serves.
    (void)setsockopt(fd, level, name, &value, sizeof value);
}

void set_tcp_options(int fd) {
    set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
    set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, kKeepAliveIdleSeconds);
    set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, kKeepAliveIntervalSeconds);
    set_option(fd, IPPROTO_TCP, TCP_KEEPCNT, kKeepAliveProbes);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &kUnacknowledgedMs,
                     sizeof kUnacknowledgedMs);
}

// True if somebody accepts on this path.
bool unix_path_is_live(const Address& address) {
    const int probe = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (probe < 0) return true;
    const bool live = ::connect(probe, address.raw(), address.size()) == 0 || errno == EAGAIN;
    ::close(probe);
    return live;
}

}  // namespace

Result<int> open_listener(const Address& address, bool shared_port) {
    const int fd = ::socket(address.family(), SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return fail_errno();
    if (!address.is_unix()) {
        set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1);
        set_tcp_options(fd);
        const int on = 1;
        if (shared_port && setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) != 0)
            return close_and_fail(fd);
    }
    int bound = ::bind(fd, address.raw(), address.size());
    if (bound != 0 && errno == EADDRINUSE && address.is_unix() && !unix_path_is_live(address)) {
        ::unlink(reinterpret_cast<const sockaddr_un*>(address.raw())->sun_path);
        bound = ::bind(fd, address.raw(), address.size());
    }
    if (bound != 0) return close_and_fail(fd);
    if (::listen(fd, limits::kListenBacklog) != 0) return close_and_fail(fd);
    return fd;
}

Result<int> open_client(const Address& peer) {
    const int fd = ::socket(peer.family(), SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return fail_errno();
    if (!peer.is_unix()) set_tcp_options(fd);
    return fd;
}

}  // namespace sluice::io
