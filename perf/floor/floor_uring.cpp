// SPDX-License-Identifier: Apache-2.0
// The physical limit with io_uring: as floor_epoll.cpp, with one system call a turn.
//
// A receive for the answer is started together with the send that causes it; sends wait in the
// kernel for the whole of their bytes. SINGLE_ISSUER and DEFER_TASKRUN, registered ring.
#include <liburing.h>

#include <memory>

#include "common.h"

using namespace sluice::floor_limit;

namespace {

enum class Step : std::uint64_t { Accept, Request, ToPrefill, Prefill, ToDecode, Answer, ToClient };

constexpr std::size_t kPiece = 16 * 1024;
constexpr std::uint64_t kStepMask = 7;  // connections are aligned to more than that

struct alignas(64) Connection {
    int client = -1, prefill = -1, decode = -1;
    int in_flight = 0;
    bool closing = false;
    bool sending = false;  // to the client
    std::size_t held = 0;  // bytes of the answer piece that wait for that
    std::size_t done = 0;
    std::unique_ptr<char[]> request;
    std::unique_ptr<char[]> piece;
};

Sizes sizes;
io_uring ring;

io_uring_sqe* sqe_for(Connection* c, Step step) {
    io_uring_sqe* sqe = io_uring_get_sqe(&ring);
    if (sqe == nullptr) {
        io_uring_submit(&ring);
        sqe = io_uring_get_sqe(&ring);
    }
    io_uring_sqe_set_data64(sqe,
                            reinterpret_cast<std::uint64_t>(c) | static_cast<std::uint64_t>(step));
    if (c != nullptr) ++c->in_flight;
    return sqe;
}

// io_uring_prep_* clear user_data, so it is set again behind them.
void receive(Connection* c, Step step, int fd, char* to, std::size_t size) {
    io_uring_sqe* sqe = sqe_for(c, step);
    const auto data = sqe->user_data;
    io_uring_prep_recv(sqe, fd, to, size, 0);
    sqe->user_data = data;
}

void send(Connection* c, Step step, int fd, const char* from, std::size_t size) {
    io_uring_sqe* sqe = sqe_for(c, step);
    const auto data = sqe->user_data;
    io_uring_prep_send(sqe, fd, from, size, MSG_NOSIGNAL | MSG_WAITALL);
    sqe->user_data = data;
}

void receive_request(Connection* c) {
    receive(c, Step::Request, c->client, c->request.get() + c->done, sizes.request - c->done);
}

void start_leg(Connection* c, bool prefill) {
    c->done = 0;
    const int fd = prefill ? c->prefill : c->decode;
    send(c, prefill ? Step::ToPrefill : Step::ToDecode, fd, c->request.get(), sizes.request);
    receive(c, prefill ? Step::Prefill : Step::Answer, fd, c->piece.get(), kPiece);
}

void on_bytes(Connection* c, Step step, std::size_t bytes) {
    switch (step) {
        case Step::Request:
            c->done += bytes;
            if (c->done < sizes.request) return receive_request(c);
            return start_leg(c, sizes.prefill > 0);
        case Step::Prefill:
            c->done += bytes;
            if (c->done < sizes.prefill)
                return receive(c, Step::Prefill, c->prefill, c->piece.get(), kPiece);
            return start_leg(c, false);
        case Step::Answer:
            c->done += bytes;
            return send(c, Step::ToClient, c->client, c->piece.get(), bytes);
        case Step::ToClient:
            if (c->done < sizes.answer)
                return receive(c, Step::Answer, c->decode, c->piece.get(), kPiece);
            c->done = 0;
            return receive_request(c);
        case Step::ToPrefill:
        case Step::ToDecode:
        case Step::Accept:
            return;
    }
}

void on_completion(Connection* c, Step step, int result) {
    --c->in_flight;
    if (result <= 0 && !c->closing) {
        c->closing = true;
        // Ends what is still in flight.
        for (const int fd : {c->client, c->prefill, c->decode})
            if (fd >= 0) ::shutdown(fd, SHUT_RDWR);
    }
    if (!c->closing) return on_bytes(c, step, static_cast<std::size_t>(result));
    if (c->in_flight > 0) return;
    for (const int fd : {c->client, c->prefill, c->decode})
        if (fd >= 0) ::close(fd);
    delete c;
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
    io_uring_params params{};
    params.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_CQSIZE |
                   IORING_SETUP_SUBMIT_ALL;
    params.cq_entries = 16384;
    if (const int error = io_uring_queue_init_params(1024, &ring, &params); error < 0) {
        errno = -error;
        die("io_uring_queue_init");
    }
    io_uring_register_ring_fd(&ring);
    const int listener = listen_on(flags["--listen"], 0);
    io_uring_sqe* sqe = sqe_for(nullptr, Step::Accept);
    io_uring_prep_multishot_accept(sqe, listener, nullptr, nullptr, SOCK_CLOEXEC);
    sqe->user_data = static_cast<std::uint64_t>(Step::Accept);

    while (true) {
        io_uring_submit_and_wait(&ring, 1);
        unsigned head = 0, seen = 0;
        io_uring_cqe* cqe = nullptr;
        io_uring_for_each_cqe(&ring, head, cqe) {
            ++seen;
            const auto step = static_cast<Step>(cqe->user_data & kStepMask);
            if (step != Step::Accept) {
                on_completion(reinterpret_cast<Connection*>(cqe->user_data & ~kStepMask), step,
                              cqe->res);
                continue;
            }
            if (cqe->res < 0) continue;
            auto* c = new Connection;
            c->client = cqe->res;
            c->request = std::make_unique<char[]>(sizes.request);
            c->piece = std::make_unique<char[]>(kPiece);
            if (sizes.prefill > 0) c->prefill = connect_to(flags["--prefill"]);
            c->decode = connect_to(flags["--decode"]);
            receive_request(c);
        }
        io_uring_cq_advance(&ring, seen);
    }
}
