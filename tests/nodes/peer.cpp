// SPDX-License-Identifier: Apache-2.0
#include "nodes/peer.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <optional>
#include <sstream>

#include "base/assert.h"

namespace sluice::kv::test {
namespace {

constexpr std::size_t kLineMax = 512;
constexpr timeval kAnswerLimit{60, 0};

std::string receive(int socket) {
    std::array<char, kLineMax> line;
    ssize_t got = 0;
    do got = ::recv(socket, line.data(), line.size(), 0);
    while (got < 0 && errno == EINTR);  // with a time limit it is not restarted
    return got > 0 ? std::string(line.data(), static_cast<std::size_t>(got)) : std::string();
}

}  // namespace

Peer::Peer(Role role, const std::string& transport, std::uint16_t port) {
    int ends[2];
    ASSERT(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends) == 0);
    fcntl(ends[0], F_SETFD, FD_CLOEXEC);
    setsockopt(ends[0], SOL_SOCKET, SO_RCVTIMEO, &kAnswerLimit, sizeof kAnswerLimit);
    std::string number = std::to_string(ends[1]);
    std::string as = role == Role::Producer ? "producer" : "consumer";
    std::string how = transport, where = std::to_string(port);
    std::string self = "/proc/self/exe", flag = "--peer";
    char* arguments[] = {self.data(), flag.data(),  number.data(), as.data(),
                         how.data(),  where.data(), nullptr};
    ASSERT(posix_spawn(&pid_, "/proc/self/exe", nullptr, nullptr, arguments, environ) == 0);
    ::close(ends[1]);
    socket_ = ends[0];
    address_ = ask("address");
    ASSERT(!address_.empty());
}

Peer::~Peer() {
    kill();
    ::close(socket_);
}

std::string Peer::ask(const std::string& command) {
    if (::send(socket_, command.data(), command.size(), MSG_NOSIGNAL) < 0) return {};
    return receive(socket_);
}

void Peer::stop() { ::kill(pid_, SIGSTOP); }
void Peer::resume() { ::kill(pid_, SIGCONT); }
void Peer::kill() {
    if (pid_ < 0) return;
    ::kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
    pid_ = -1;
}

int run_peer(int, char** argv) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    const int socket = std::atoi(argv[2]);
    const Role role = std::string(argv[3]) == "producer" ? Role::Producer : Role::Consumer;
    Side side(role, argv[4], static_cast<std::uint16_t>(std::atoi(argv[5])));
    std::optional<PullHandle> pull;
    for (std::string line; !(line = receive(socket)).empty();) {
        std::istringstream words(line);
        std::string command, id, address, answer = "ok";
        std::uint32_t first = 0, count = 0;
        std::uint64_t pattern = 0;
        words >> command;
        if (command == "address") {
            answer = side->address();
        } else if (command == "fill") {
            words >> pattern;
            side.fill(pattern);
        } else if (command == "publish") {
            words >> id >> first >> count;
            answer = name_of(side->publish(id, Side::producer_blocks(first, count)).code);
        } else if (command == "begin") {
            words >> id >> first >> count;
            answer = name_of(side->publish(id, Side::producer_blocks(first, count), 1).code);
        } else if (command == "finish") {
            words >> id;
            answer = name_of(side->more_layers(id, kLayers).code);
        } else if (command == "release") {
            words >> id;
            side->release(id);
        } else if (command == "pull") {
            words >> id >> address >> first >> count;
            auto begun = side->pull(id, {"p", {{address}}}, Side::consumer_blocks(first, count));
            if (begun) pull = *begun;
            answer = begun ? "ok" : begun.error().sentence;
        } else if (command == "end") {
            words >> first >> count >> pattern;
            const auto result = pull->wait_for(std::chrono::seconds(50));
            std::uint32_t landed = 0;
            std::uint64_t wrong = 0;
            for (std::uint32_t i = 0; result && i < count; ++i)
                if (result->has_landed(0, i)) {
                    ++landed;
                    wrong += side.wrong(first, i, pattern);
                }
            answer = result ? std::string(name_of(result->status.code)) + " " +
                                  std::to_string(landed) + " " + std::to_string(wrong)
                            : "running 0 0";
        }
        ::send(socket, answer.data(), answer.size(), MSG_NOSIGNAL);
    }
    _exit(0);
}

}  // namespace sluice::kv::test
