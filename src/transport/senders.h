// SPDX-License-Identifier: Apache-2.0
// The pinned threads that move bytes: jobs in and events out by lock-free rings.
//
// A node's owner thread has a pair of rings with each sender thread. While both are awake, a
// hand-over is a push and a pop; a sender that found nothing to do for `spin` sleeps in epoll, over
// its lanes' sockets and one eventfd, and is kicked once. Lanes (lane.h) belong to the sender that
// adopted them; it calls them when their socket is ready, when they said that there is more to do,
// and every kTickEvery.
//
// Threads: all public functions the owner's. Owns: the threads; not the lanes. Costs: 64 bytes a
// job or event. Errors: give() answers false when the ring is full: the owner keeps the job.
#pragma once

#include <array>
#include <memory>
#include <vector>

#include "base/waker.h"
#include "transport/lane.h"

namespace sluice::transport {

inline constexpr unsigned kSendersDefault = 10;
inline constexpr unsigned kSendersMax = 64;
inline constexpr std::size_t kJobsMax = 8192;    // of one sender, not yet taken
inline constexpr std::size_t kEventsMax = 8192;  // of one sender, not yet polled

struct SenderOptions {
    unsigned threads = 0;   // 0: kSendersDefault, but never more than the cores
    std::vector<int> cpus;  // pins thread i to cpus[i % size]; empty: the allowed ones in turn
    bool pin = true;
    Duration spin = std::chrono::microseconds(20);  // after the last job, before sleeping
};

// Who gets the events of its lanes.
class EventTarget {
public:
    virtual void on_event(const LaneEvent& event) = 0;

protected:
    ~EventTarget() = default;
};

class Senders {
public:
    // `owner` is notified after events were published.
    static Result<std::unique_ptr<Senders>> start(const SenderOptions& options, Waker& owner);
    ~Senders();  // stops and joins; whatever has lanes has let go of them before

    unsigned size() const { return static_cast<unsigned>(threads_.size()); }
    int cpu_of(unsigned thread) const;  // -1: not pinned

    [[nodiscard]] bool give(unsigned thread, const LaneJob& job);
    // Delivers what has come, to the targets that the events name. Answers how many.
    std::size_t poll();
    bool idle() const;  // nothing to poll

    std::size_t queue_depth(unsigned thread) const;
    std::uint64_t cpu_ns(unsigned thread) const;

private:
    class Thread;
    Senders();
    std::vector<std::unique_ptr<Thread>> threads_;
};

}  // namespace sluice::transport
