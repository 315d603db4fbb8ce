// SPDX-License-Identifier: Apache-2.0
#include "io/loop.h"

#include <algorithm>

namespace sluice::io {

void Loop::run_deferred() {
    // What the work itself defers (a stream that became writable again) still leaves in this turn.
    while (Deferred* work = deferred_.pop_front()) work->run_();
}

void Loop::run_turn(Duration max_wait) {
    if (quiescent_) quiescent_();
    Duration wait = max_wait;
    if (!deferred_.empty()) wait = Duration::zero();
    const Instant deadline = timers_.next_deadline();
    if (deadline != kNever) wait = std::min(wait, std::max(Duration::zero(), deadline - io_.now()));
    io_.turn(wait);
    run_deferred();
    timers_.advance(io_.now());
    run_deferred();
}

void Loop::run() {
    while (!stopping_.load(std::memory_order_relaxed)) run_turn(kForever);
}

}  // namespace sluice::io
