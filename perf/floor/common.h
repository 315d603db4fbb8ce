// SPDX-License-Identifier: Apache-2.0
// What the floor's programs share: flags "--name N", sockets, and giving up loudly.
#pragma once

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>

namespace sluice::floor_limit {

[[noreturn]] inline void die(const std::string& what) {
    std::fprintf(stderr, "%s: %s\n", what.c_str(), std::strerror(errno));
    std::exit(1);
}

// Every flag is a name and a whole number; `known` holds the defaults.
inline std::map<std::string, long> parse_flags(int argc, char** argv,
                                               std::map<std::string, long> known) {
    for (int i = 1; i < argc; i += 2) {
        const std::string name = argv[i];
        char* end = nullptr;
        if (i + 1 < argc && known.contains(name)) known[name] = std::strtol(argv[i + 1], &end, 10);
        if (end == nullptr || *end != '\0' || end == argv[i + 1]) {
            std::fprintf(stderr, "%s: bad flag %s; known, each with a number:", argv[0], argv[i]);
            for (const auto& [flag, value] : known)
                std::fprintf(stderr, " %s [%ld]", flag.c_str(), value);
            std::fprintf(stderr, "\n");
            std::exit(2);
        }
    }
    return known;
}

inline void prepare_process() {
    std::signal(SIGPIPE, SIG_IGN);
    rlimit limit{};
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

inline sockaddr_in loopback(long port) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<std::uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

inline void set_no_delay(int fd) {
    const int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

inline int listen_on(long port, int flags) {
    const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);
    const int on = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    set_no_delay(fd);  // accepted sockets have it too
    sockaddr_in address = loopback(port);
    if (::bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) die("bind");
    if (::listen(fd, 4096) != 0) die("listen");
    return fd;
}

// Blocking: over the loopback it takes no time.
inline int connect_to(long port) {
    const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) die("socket");
    set_no_delay(fd);
    sockaddr_in address = loopback(port);
    if (::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) die("connect");
    return fd;
}

inline void set_nonblocking(int fd) { ::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) | O_NONBLOCK); }

// What a forwarder must be told, since it does not look at the bytes.
struct Sizes {
    std::size_t request = 0;  // of each client's request
    std::size_t prefill = 0;  // of P's answer, which ends at the forwarder; 0: one leg only
    std::size_t answer = 0;   // of D's answer, which is the client's
};

}  // namespace sluice::floor_limit
