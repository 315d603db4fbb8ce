// SPDX-License-Identifier: Apache-2.0
// The physical limit with epoll: forwards bytes over the same legs as the proxy, looking at none.
//
// A request of a known size is gathered, sent to P, P's answer of a known size is dropped, the
// request is sent to D, and D's bytes go to the client as they come. One thread, edge-triggered,
// registered once, one pair of upstream connections a client connection.
#include <sys/epoll.h>

#include <memory>
#include <vector>

#include "common.h"

using namespace sluice::floor_limit;

namespace {

enum class Phase { Request, ToPrefill, Prefill, ToDecode, Answer };

struct Connection;

struct End {
    Connection* connection = nullptr;
    int fd = -1;
};

struct Connection {
    End client, prefill, decode;
    Phase phase = Phase::Request;
    std::size_t done = 0;    // bytes of the phase
    std::size_t unsent = 0;  // of the answer piece in `scratch`
    std::size_t sent = 0;
    std::unique_ptr<char[]> request;
};

constexpr std::size_t kPiece = 64 * 1024;

Sizes sizes;
char scratch[kPiece];
int epoll_fd;

void watch(End& end, Connection& connection, int fd) {
    end = {&connection, fd};
    epoll_event event{};
    event.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;
    event.data.ptr = &end;
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0) die("epoll_ctl");
}

// False when the phase must wait for its socket, or -1 bytes came.
bool pull(int fd, char* to, std::size_t size, std::size_t& done, std::size_t whole, bool& gone) {
    const ssize_t got = ::recv(fd, to, size, 0);
    if (got <= 0) {
        gone = got == 0 || errno != EAGAIN;
        return false;
    }
    done += static_cast<std::size_t>(got);
    return done < whole ? false : true;
}

bool push(int fd, const char* from, std::size_t& done, std::size_t whole) {
    while (done < whole) {
        const ssize_t put = ::send(fd, from + done, whole - done, MSG_NOSIGNAL);
        if (put <= 0) return false;
        done += static_cast<std::size_t>(put);
    }
    return true;
}

void enter(Connection& c, Phase phase) {
    c.phase = phase;
    c.done = 0;
}

// Goes on until a socket makes it wait. False: the client has gone.
bool advance(Connection& c) {
    bool gone = false;
    while (true) {
        switch (c.phase) {
            case Phase::Request: {
                const std::size_t before = c.done;
                if (!pull(c.client.fd, c.request.get() + c.done, sizes.request - c.done, c.done,
                          sizes.request, gone)) {
                    if (gone) return false;
                    if (c.done > before) continue;  // there may be more: edges come once
                    return true;
                }
                enter(c, sizes.prefill > 0 ? Phase::ToPrefill : Phase::ToDecode);
                break;
            }
            case Phase::ToPrefill:
                if (!push(c.prefill.fd, c.request.get(), c.done, sizes.request)) return true;
                enter(c, Phase::Prefill);
                return true;  // its answer makes an edge
            case Phase::Prefill:
                if (!pull(c.prefill.fd, scratch, kPiece, c.done, sizes.prefill, gone)) return !gone;
                enter(c, Phase::ToDecode);
                break;
            case Phase::ToDecode:
                if (!push(c.decode.fd, c.request.get(), c.done, sizes.request)) return true;
                enter(c, Phase::Answer);
                return true;
            case Phase::Answer: {
                const ssize_t got = ::recv(c.decode.fd, scratch, kPiece, 0);
                if (got <= 0) return got != 0 && errno == EAGAIN;
                std::size_t sent = 0;
                // Answers are small: the client's buffer takes them.
                if (!push(c.client.fd, scratch, sent, static_cast<std::size_t>(got))) die("send");
                c.done += static_cast<std::size_t>(got);
                if (c.done >= sizes.answer) enter(c, Phase::Request);
                return true;
            }
        }
    }
}

void close_all(Connection& c) {
    for (const End* end : {&c.client, &c.prefill, &c.decode})
        if (end->fd >= 0) ::close(end->fd);
}

}  // namespace

int main(int argc, char** argv) {
    auto flags = parse_flags(argc, argv,
                             {{"--listen", 0},
                              {"--prefill", 0},
                              {"--decode", 0},
                              {"--request-bytes", 0},
                              {"--prefill-bytes", 0},
                              {"--answer-bytes", 0}});
    sizes = {static_cast<std::size_t>(flags["--request-bytes"]),
             static_cast<std::size_t>(flags["--prefill-bytes"]),
             static_cast<std::size_t>(flags["--answer-bytes"])};
    prepare_process();
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    End listener;
    listener.fd = listen_on(flags["--listen"], SOCK_NONBLOCK);
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.ptr = &listener;
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener.fd, &event);

    std::vector<epoll_event> events(1024);
    std::vector<Connection*> closed;
    while (true) {
        const int count = epoll_wait(epoll_fd, events.data(), static_cast<int>(events.size()), -1);
        for (int i = 0; i < count; ++i) {
            auto* end = static_cast<End*>(events[static_cast<std::size_t>(i)].data.ptr);
            if (end == &listener) {
                const int fd =
                    ::accept4(listener.fd, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
                if (fd < 0) continue;
                auto* c = new Connection;
                c->request = std::make_unique<char[]>(sizes.request);
                watch(c->client, *c, fd);
                if (sizes.prefill > 0) {
                    const int prefill = connect_to(flags["--prefill"]);
                    set_nonblocking(prefill);
                    watch(c->prefill, *c, prefill);
                }
                const int decode = connect_to(flags["--decode"]);
                set_nonblocking(decode);
                watch(c->decode, *c, decode);
                continue;
            }
            Connection* c = end->connection;
            if (c == nullptr || c->client.fd < 0) continue;
            if (!advance(*c)) {
                close_all(*c);
                c->client.fd = -1;
                closed.push_back(c);
            }
        }
        for (Connection* c : closed) delete c;  // after the batch: it may hold more of theirs
        closed.clear();
    }
}
