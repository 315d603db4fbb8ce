// SPDX-License-Identifier: Apache-2.0
#include "io/loop.h"

#include <algorithm>

namespace sluice::io {

void Loop::run_deferred() {
    // What the work itself defers (a stream that became writable again) still leaves in this turn.
    while (Deferred* work = deferred_.pop_front()) work->run_();
}

bool Loop::poll() {
    bool busy = false;
    for (Poller* each = pollers_.front(); each != nullptr; each = pollers_.after(*each))
        busy |= each->poll();
    return busy;
}

Instant Loop::next_deadline() const {
    Instant next = timers_.next_deadline();
    for (Poller* each = pollers_.front(); each != nullptr; each = pollers_.after(*each))
        next = std::min(next, each->next_deadline());
    return next;
}

void Loop::run_turn(Duration max_wait) {
    if (quiescent_) quiescent_();
    Duration wait = max_wait;
    if (poll()) wait = Duration::zero();
    if (!deferred_.empty()) wait = Duration::zero();
    const Instant deadline = next_deadline();
    if (deadline != kNever) wait = std::min(wait, std::max(Duration::zero(), deadline - io_.now()));
    const bool sleeps = wait > Duration::zero() && !pollers_.empty();
    if (sleeps) {
        for (Poller* each = pollers_.front(); each != nullptr; each = pollers_.after(*each))
            each->before_sleep();
        if (poll()) wait = Duration::zero();
    }
    io_.turn(wait);
    if (sleeps)
        for (Poller* each = pollers_.front(); each != nullptr; each = pollers_.after(*each))
            each->after_sleep();
    run_deferred();
    timers_.advance(io_.now());
    run_deferred();
}

void Loop::run() {
    while (!stopping_.load(std::memory_order_relaxed)) run_turn(kForever);
}

}  // namespace sluice::io
