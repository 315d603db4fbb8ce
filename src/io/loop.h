// SPDX-License-Identifier: Apache-2.0
// One worker's event loop: I/O completions, then what they deferred, then timers. It only
// dispatches.
//
// Everything that arrives in a turn is handled before anything is sent: streams with bytes to send
// defer their flush to the end of the turn, so that what arrived in a turn leaves in one send.
// Threads: one; wake() and stop() from any. Owns: the timer wheel.
#pragma once

#include <atomic>

#include "base/delegate.h"
#include "base/intrusive_list.h"
#include "base/timer_wheel.h"
#include "io/io.h"

namespace sluice::io {

// Work for the end of the current turn, queued at most once.
class Deferred : private ListNode<Deferred> {
public:
    explicit Deferred(Delegate<void()> run) : run_(run) {}
    bool queued() const { return linked(); }
    void cancel() { unlink(); }

private:
    friend class Loop;
    friend class IntrusiveList<Deferred, Deferred>;
    Delegate<void()> run_;
};

// Something that the loop looks at every turn beside its sockets: rings that other threads fill,
// completion queues. Before the loop sleeps it says so and is asked once more; whoever publishes
// after that must wake() the loop's Io.
class Poller : private ListNode<Poller> {
public:
    virtual ~Poller() = default;
    virtual bool poll() = 0;  // true: something was there
    virtual void before_sleep() {}
    virtual void after_sleep() {}
    // poll() must run by then though nobody wakes the loop.
    virtual Instant next_deadline() const { return kNever; }

private:
    friend class Loop;
    friend class IntrusiveList<Poller, Poller>;
};

class Loop {
public:
    explicit Loop(Io& io) : io_(io), timers_(io.now()) {}
    Loop(const Loop&) = delete;
    Loop& operator=(const Loop&) = delete;

    Io& io() { return io_; }
    BufferPool& buffers() { return io_.buffers(); }
    Instant now() const { return io_.now(); }

    void arm(Timer& timer, Duration after) {
        timers_.arm(timer, after >= kForever ? kNever : io_.now() + after);
    }
    void defer(Deferred& work) {
        if (!work.queued()) deferred_.push_back(work);
    }
    // Until it is destroyed.
    void add(Poller& poller) { pollers_.push_back(poller); }
    // Called once between turns, when no reference into a snapshot is held.
    void on_quiescent(Delegate<void()> hook) { quiescent_ = hook; }

    // One turn; waits at most `max_wait` when there is nothing to do.
    void run_turn(Duration max_wait);
    // Turns until stop().
    void run();
    void stop() {
        stopping_.store(true, std::memory_order_relaxed);
        io_.wake();
    }

    Instant next_deadline() const;

private:
    void run_deferred();
    bool poll();

    Io& io_;
    TimerWheel timers_;
    IntrusiveList<Deferred, Deferred> deferred_;
    mutable IntrusiveList<Poller, Poller> pollers_;
    Delegate<void()> quiescent_;
    std::atomic<bool> stopping_{false};
};

}  // namespace sluice::io
