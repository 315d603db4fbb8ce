// SPDX-License-Identifier: Apache-2.0
#include "contract/peer_process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <numeric>
#include <string>

#include "base/assert.h"
#include "base/rng.h"

namespace sluice::transport {
namespace {

std::uint64_t word(std::uint64_t pattern, std::uint32_t block, std::uint64_t at) {
    return (pattern * 0x9E3779B97F4A7C15u) ^ (std::uint64_t{block} << 40) ^ at;
}

}  // namespace

std::vector<std::uint32_t> Shape::ids() const {
    std::vector<std::uint32_t> all(kPoolBytes / block_bytes);
    std::iota(all.begin(), all.end(), 0);
    Rng rng{seed};
    for (std::uint32_t i = 0; i < blocks; ++i)
        std::swap(all[i], all[i + rng.below(all.size() - i)]);
    all.resize(blocks);
    return all;
}

void fill(const Memory& memory, const Shape& shape, std::uint64_t pattern) {
    const auto ids = shape.ids();
    for (std::uint32_t i = 0; i < shape.blocks; ++i)
        for (std::uint64_t at = 0; at + 8 <= shape.block_bytes; at += 8) {
            const std::uint64_t value = word(pattern, i, at);
            std::memcpy(memory.at(std::uint64_t{ids[i]} * shape.block_bytes + at), &value, 8);
        }
}

std::uint64_t wrong_in_block(const Memory& memory, const Shape& shape, std::uint32_t index,
                             std::uint32_t id, std::uint64_t pattern) {
    std::uint64_t wrong = 0;
    for (std::uint64_t at = 0; at + 8 <= shape.block_bytes; at += 8) {
        const std::uint64_t value = word(pattern, index, at);
        const std::byte* there = memory.at(std::uint64_t{id} * shape.block_bytes + at);
        if (std::memcmp(there, &value, 8) == 0) continue;
        for (int i = 0; i < 8; ++i)
            wrong += std::memcmp(there + i, reinterpret_cast<const char*>(&value) + i, 1) != 0;
    }
    return wrong;
}

std::uint64_t wrong_bytes(const Memory& memory, const Shape& shape, std::uint64_t pattern) {
    const auto ids = shape.ids();
    std::uint64_t wrong = 0;
    for (std::uint32_t i = 0; i < shape.blocks; ++i)
        wrong += wrong_in_block(memory, shape, i, ids[i], pattern);
    return wrong;
}

// -- the test's side

PeerProcess::PeerProcess(std::string_view transport, const TransportOptions& options) {
    int ends[2];
    ASSERT(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends) == 0);
    fcntl(ends[0], F_SETFD, FD_CLOEXEC);
    const std::string number = std::to_string(ends[1]);
    const std::string silence = std::to_string(options.silence_max.count());
    const std::string name(transport);
    const std::string first = std::to_string(static_cast<int>(options.token[0]));
    const std::string lanes = std::to_string(options.lanes_per_peer);
    const char* arguments[] = {"/proc/self/exe", "--peer",      number.c_str(), name.c_str(),
                               silence.c_str(),  first.c_str(), lanes.c_str(),  nullptr};
    // vfork's rules: nothing but exec in the child; the parent has threads.
    pid_ = vfork();
    if (pid_ == 0) {
        execv("/proc/self/exe", const_cast<char**>(arguments));
        _exit(127);
    }
    ASSERT(pid_ > 0);
    ::close(ends[1]);
    socket_ = ends[0];
}

PeerProcess::~PeerProcess() {
    if (pid_ > 0) {
        if (stopped_) resume();
        Command quit;
        quit.ask = Ask::Quit;
        tell(quit);
        // It leaves by itself, or when the socket closes.
        ::close(socket_);
        socket_ = -1;
        int status = 0;
        for (int i = 0; i < 500; ++i) {
            if (waitpid(pid_, &status, WNOHANG) == pid_) return;
            usleep(10'000);
        }
        ::kill(pid_, SIGKILL);
        waitpid(pid_, &status, 0);
    }
    if (socket_ >= 0) ::close(socket_);
}

void PeerProcess::tell(const Command& command) {
    if (::send(socket_, &command, sizeof command, MSG_NOSIGNAL) > 0) ++skip_;
}

bool PeerProcess::receive(Answer& answer, Duration limit) {
    pollfd ready{socket_, POLLIN, 0};
    const auto limit_ms = std::chrono::ceil<std::chrono::milliseconds>(limit).count();
    if (::poll(&ready, 1, static_cast<int>(limit_ms)) <= 0) return false;
    return ::recv(socket_, &answer, sizeof answer, 0) == sizeof answer;
}

Answer PeerProcess::ask(const Command& command) {
    Answer answer;
    if (::send(socket_, &command, sizeof command, MSG_NOSIGNAL) < 0) return {};
    while (receive(answer, std::chrono::seconds(20))) {
        if (answer.completion) {
            completions_.push_back(answer.what);
        } else if (skip_ > 0) {
            --skip_;
        } else {
            return answer;
        }
    }
    return {};
}

std::optional<Completion> PeerProcess::wait_completion(Duration limit) {
    const Instant end = MonotonicClock::now() + limit;
    Answer answer;
    while (completions_.empty()) {
        const Duration left = end - MonotonicClock::now();
        if (left <= Duration::zero() || !receive(answer, left)) return std::nullopt;
        if (answer.completion) {
            completions_.push_back(answer.what);
        } else if (skip_ > 0) {
            --skip_;
        }
    }
    const Completion first = completions_.front();
    completions_.pop_front();
    return first;
}

void PeerProcess::stop() {
    ::kill(pid_, SIGSTOP);
    // Stopped for certain when this returns.
    int status = 0;
    waitpid(pid_, &status, WUNTRACED);
    stopped_ = true;
}
void PeerProcess::resume() {
    ::kill(pid_, SIGCONT);
    stopped_ = false;
}
void PeerProcess::kill() {
    ::kill(pid_, SIGKILL);
    int status = 0;
    waitpid(pid_, &status, 0);
    pid_ = -1;
}

Endpoint PeerProcess::listen() {
    Command command;
    command.ask = Ask::Listen;
    return ask(command).endpoint;
}

// -- the process

int run_peer(int, char** argv) {
    const int control = std::stoi(argv[2]);
    const std::string transport = argv[3];
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    TransportOptions options;
    options = patient();
    options.silence_max = Duration(std::stoll(argv[4]));
    options.token = token(static_cast<unsigned char>(std::stoi(argv[5])));
    options.lanes_per_peer = static_cast<unsigned>(std::stoi(argv[6]));
    Memory memory(kPoolBytes);
    Node node(transport, options, {.threads = 2, .pin = false, .spin = Duration::zero()});
    const RegionId region = *node->register_memory(memory.region());
    PeerId peer;
    PostId post;

    for (;;) {
        node.poll();
        while (!node.completions().empty()) {
            const Completion what = node.completions().front();
            node.completions().pop_front();
            if (what.event == Event::PeerUp) peer = what.peer;
            if (what.event == Event::PeerUp || what.event == Event::PeerDown) continue;
            Answer answer;
            answer.completion = true;
            answer.what = what;
            if (what.event == Event::Landing) node->release(what.ticket);
            ::send(control, &answer, sizeof answer, MSG_NOSIGNAL);
        }
        pollfd ready{control, POLLIN, 0};
        if (::poll(&ready, 1, 1) == 0) continue;
        Command command;
        if (::recv(control, &command, sizeof command, 0) != sizeof command) return 0;
        Answer answer;
        const auto ids = command.shape.ids();
        const Range range = command.shape.range(region);
        switch (command.ask) {
            case Ask::Listen: {
                const auto endpoint = node->listen(listen_endpoint(transport));
                answer.ok = endpoint.has_value();
                if (endpoint) endpoint->copy(answer.endpoint, sizeof answer.endpoint - 1);
                break;
            }
            case Ask::Connect: {
                const auto asked = node->connect(command.endpoint);
                const auto up = asked ? node.wait(Event::PeerUp) : std::nullopt;
                answer.ok = up.has_value();
                if (up) peer = up->peer;
                break;
            }
            case Ask::Open: {
                const auto ticket = node->open(peer, {{&range, 1}, ids}, {});
                answer.ok = ticket.has_value();
                if (ticket) answer.ticket = *ticket;
                break;
            }
            case Ask::Post: {
                // Who connected may know of it before we do.
                if (!peer.valid())
                    if (const auto up = node.wait(Event::PeerUp)) peer = up->peer;
                fill(memory, command.shape, command.pattern);
                const auto posted = node->post(peer, command.ticket, {{&range, 1}, ids}, {});
                answer.ok = posted.has_value();
                if (posted) post = *posted;
                break;
            }
            case Ask::RevokeLanding:
                // False: a thread of ours is inside a copy; the blocks are ours at the completion.
                answer.ok = node->revoke(command.ticket) || node.wait(Event::Landing).has_value();
                break;
            case Ask::RevokePost:
                answer.ok = node->revoke(post);
                break;
            case Ask::ClosePeer:
                node->close(peer);
                answer.ok = true;
                break;
            case Ask::Fill:
                fill(memory, command.shape, command.pattern);
                answer.ok = true;
                break;
            case Ask::Wrong:
                answer.number = wrong_bytes(memory, command.shape, command.pattern);
                answer.ok = true;
                break;
            case Ask::Deregister:
                answer.ok = node->deregister_memory(region).has_value();
                break;
            case Ask::Quit:
                return 0;
        }
        ::send(control, &answer, sizeof answer, MSG_NOSIGNAL);
    }
}

}  // namespace sluice::transport
