// SPDX-License-Identifier: Apache-2.0
#include "base/event_fd.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>

namespace sluice {

Result<EventFd> EventFd::create() {
    const int descriptor = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (descriptor < 0) return fail_errno();
    return EventFd(descriptor);
}

EventFd& EventFd::operator=(EventFd&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
}

EventFd::~EventFd() {
    if (fd_ >= 0) ::close(fd_);
}

void EventFd::set() {
    const std::uint64_t one = 1;
    // Only a full counter refuses, and then it is set.
    [[maybe_unused]] const ssize_t written = ::write(fd_, &one, sizeof one);
}

void EventFd::clear() {
    std::uint64_t count = 0;
    [[maybe_unused]] const ssize_t got = ::read(fd_, &count, sizeof count);
}

bool EventFd::wait(Duration limit) {
    using std::chrono::milliseconds;
    const auto limit_ms = std::chrono::ceil<milliseconds>(
        std::clamp<Duration>(limit, Duration::zero(), std::chrono::hours(1)));
    pollfd poll_set{fd_, POLLIN, 0};
    if (::poll(&poll_set, 1, static_cast<int>(limit_ms.count())) <= 0) return false;
    clear();
    return true;
}

}  // namespace sluice
