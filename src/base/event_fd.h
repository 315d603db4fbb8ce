// SPDX-License-Identifier: Apache-2.0
// An eventfd: what a thread blocks on beside its sockets, and another one (or another process)
// sets.
//
// Threads: set() any; clear() and waiting: the owner. Owns: the descriptor.
#pragma once

#include <utility>

#include "base/result.h"
#include "base/time.h"

namespace sluice {

class EventFd {
public:
    EventFd() = default;
    explicit EventFd(int descriptor) : fd_(descriptor) {}
    EventFd(EventFd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
    EventFd& operator=(EventFd&& other) noexcept;
    ~EventFd();

    static Result<EventFd> create();

    int fd() const { return fd_; }
    void set();
    void clear();
    // False if `limit` passed first.
    bool wait(Duration limit);

private:
    int fd_ = -1;
};

}  // namespace sluice
