// SPDX-License-Identifier: Apache-2.0
#include "support/process.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

namespace sluice::test {

namespace {

using Clock = std::chrono::steady_clock;
using namespace std::chrono_literals;

Clock::time_point after(double seconds) {
    return Clock::now() +
           std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
}

int milliseconds_until(Clock::time_point end) {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(end - Clock::now()).count();
    return left < 0 ? 0 : static_cast<int>(left);
}

bool send_all(int fd, std::string_view bytes) {
    while (!bytes.empty()) {
        const ssize_t sent = ::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
        if (sent <= 0) return false;
        bytes.remove_prefix(static_cast<std::size_t>(sent));
    }
    return true;
}

// More bytes, "" at the end of the stream or the time.
std::string receive_some(int fd, Clock::time_point end) {
    pollfd poll_fd{fd, POLLIN, 0};
    if (::poll(&poll_fd, 1, milliseconds_until(end)) <= 0) return {};
    char buffer[65536];
    const ssize_t got = ::recv(fd, buffer, sizeof buffer, 0);
    return got > 0 ? std::string(buffer, static_cast<std::size_t>(got)) : std::string();
}

// Joins chunks; true when the last one is there.
bool join_chunks(std::string_view raw, std::string& body) {
    body.clear();
    while (true) {
        const auto line_end = raw.find("\r\n");
        if (line_end == std::string_view::npos) return false;
        const std::size_t size =
            std::strtoul(std::string(raw.substr(0, line_end)).c_str(), nullptr, 16);
        raw.remove_prefix(line_end + 2);
        if (size == 0) return raw.starts_with("\r\n");
        if (raw.size() < size + 2) {
            body.append(raw.substr(0, size));
            return false;
        }
        body.append(raw.substr(0, size));
        raw.remove_prefix(size + 2);
    }
}

}  // namespace

Process::Process(std::vector<std::string> command, std::string log_path,
                 std::map<std::string, std::string> environment)
    : log_path_(std::move(log_path)) {
    std::vector<char*> arguments;
    for (std::string& word : command) arguments.push_back(word.data());
    arguments.push_back(nullptr);
    pid_ = ::fork();
    if (pid_ != 0) return;
    const int log = ::open(log_path_.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
    ::dup2(log, 1);
    ::dup2(log, 2);
    for (const auto& [name, value] : environment) ::setenv(name.c_str(), value.c_str(), 1);
    ::execv(arguments[0], arguments.data());
    ::_exit(127);
}

Process::~Process() {
    if (!running()) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
}

void Process::signal(int number) {
    if (running()) ::kill(pid_, number);
}

bool Process::running() {
    if (status_ >= 0) return false;
    int status = 0;
    if (::waitpid(pid_, &status, WNOHANG) != pid_) return true;
    status_ = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    return false;
}

int Process::wait(double seconds) {
    for (const auto end = after(seconds); running() && Clock::now() < end;)
        std::this_thread::sleep_for(5ms);
    return status_;
}

std::string Process::log() const {
    std::ifstream file(log_path_);
    std::stringstream text;
    text << file.rdbuf();
    return text.str();
}

int Process::open_descriptors() const {
    int count = 0;
    for ([[maybe_unused]] const auto& entry :
         std::filesystem::directory_iterator("/proc/" + std::to_string(pid_) + "/fd"))
        ++count;
    return count;
}

// Below the range that the kernel gives to connections (32768 and up): a server that is killed and
// started again would otherwise find its port taken by somebody's connection, now and then.
int free_port() {
    constexpr unsigned kFirst = 15'000, kCount = 17'000;
    static std::atomic<unsigned> next{static_cast<unsigned>(::getpid()) * 37U};
    while (true) {
        const int port = static_cast<int>(kFirst + next++ % kCount);
        if (is_port_free(port)) return port;
    }
}

bool is_port_free(int port) {
    const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
    const int yes = 1;  // what lingers of old connections does not count
    ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_ANY);
    address.sin_port = htons(static_cast<std::uint16_t>(port));
    const bool free = ::bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
    ::close(fd);
    return free;
}

int connect_to(int port, int seconds, int receive_buffer) {
    const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (receive_buffer > 0)
        ::setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
    const timeval limit{seconds, 0};
    ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<std::uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) return fd;
    ::close(fd);
    return -1;
}

HttpAnswer http_call(int port, const std::string& method, const std::string& path,
                     const std::string& body, const std::string& fields, double seconds) {
    HttpAnswer answer;
    const auto end = after(seconds);
    const int fd = connect_to(port);
    if (fd < 0) return answer;
    std::string request =
        method + " " + path + " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n" + fields;
    if (!body.empty() || method == "POST")
        request +=
            "Content-Type: application/json\r\nContent-Length: " + std::to_string(body.size()) +
            "\r\n";
    std::string raw;
    if (send_all(fd, request + "\r\n" + body))
        for (std::string more = receive_some(fd, end); !more.empty(); more = receive_some(fd, end))
            raw += more;
    ::close(fd);
    const auto head_end = raw.find("\r\n\r\n");
    if (head_end == std::string::npos || raw.size() < 12) return answer;
    answer.head = raw.substr(0, head_end + 4);
    answer.status = std::atoi(raw.c_str() + 9);
    const std::string_view rest = std::string_view(raw).substr(head_end + 4);
    if (answer.head.find("Transfer-Encoding: chunked") != std::string::npos) {
        answer.complete = join_chunks(rest, answer.body);
    } else {
        answer.body = rest;
        const auto length = answer.head.find("Content-Length: ");
        answer.complete =
            length == std::string::npos ||
            answer.body.size() == std::strtoul(answer.head.c_str() + length + 16, nullptr, 10);
    }
    return answer;
}

std::string raw_call(int port, const std::string& bytes, double seconds, bool half_close) {
    const auto end = after(seconds);
    const int fd = connect_to(port);
    if (fd < 0) return "(no connection)";
    std::string raw;
    if (send_all(fd, bytes)) {
        if (half_close) ::shutdown(fd, SHUT_WR);
        for (std::string more = receive_some(fd, end); !more.empty(); more = receive_some(fd, end))
            raw += more;
    }
    ::close(fd);
    return raw;
}

bool wait_until_ok(int port, const std::string& path, double seconds) {
    for (const auto end = after(seconds); Clock::now() < end; std::this_thread::sleep_for(20ms))
        if (http_call(port, "GET", path, {}, {}, 1).status == 200) return true;
    return false;
}

}  // namespace sluice::test
