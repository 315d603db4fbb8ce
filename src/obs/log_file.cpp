// SPDX-License-Identifier: Apache-2.0
#include "obs/log_file.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace sluice::obs {

namespace {

constexpr int kPollMs = 50;  // how soon a stalled write sees that the process ends

std::expected<int, std::string> open_path(const std::string& path) {
    // Through /proc, since a duplicate of descriptor 1 would share its flags with whoever else has
    // it.
    const char* name = path == "-" ? "/proc/self/fd/1" : path.c_str();
    int fd = ::open(name, O_WRONLY | O_APPEND | O_CREAT | O_NONBLOCK | O_CLOEXEC, 0644);
    if (fd < 0 && path == "-") fd = ::fcntl(1, F_DUPFD_CLOEXEC, 3);  // a socket
    if (fd < 0) return std::unexpected("cannot open \"" + path + "\": " + std::strerror(errno));
    return fd;
}

}  // namespace

std::expected<LogFile, std::string> LogFile::open(const std::string& path) {
    const auto fd = open_path(path);
    if (!fd) return std::unexpected(fd.error());
    return LogFile(path, *fd);
}

LogFile::LogFile(LogFile&& other) noexcept
    : path_(std::move(other.path_)), fd_(std::exchange(other.fd_, -1)) {}

LogFile& LogFile::operator=(LogFile&& other) noexcept {
    std::swap(path_, other.path_);
    std::swap(fd_, other.fd_);
    return *this;
}

LogFile::~LogFile() {
    if (fd_ >= 0) ::close(fd_);
}

std::expected<void, std::string> LogFile::reopen() {
    const auto fd = open_path(path_);
    if (!fd) return std::unexpected(fd.error());
    ::close(std::exchange(fd_, *fd));
    return {};
}

std::size_t LogFile::write(std::string_view bytes, const std::atomic<Instant>& give_up) {
    std::size_t done = 0;
    while (done < bytes.size()) {
        const ssize_t written = ::write(fd_, bytes.data() + done, bytes.size() - done);
        if (written > 0) {
            done += static_cast<std::size_t>(written);
            continue;
        }
        if (errno == EINTR) continue;
        if (errno != EAGAIN || MonotonicClock::now() >= give_up.load(std::memory_order_relaxed))
            return done;
        pollfd ready{fd_, POLLOUT, 0};
        (void)::poll(&ready, 1, kPollMs);
    }
    return done;
}

}  // namespace sluice::obs
