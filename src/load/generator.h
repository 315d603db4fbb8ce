// SPDX-License-Identifier: Apache-2.0
// One load thread: its loop, its share of the connections and of the rate.
//
// Closed loop: every call is started again as soon as it has ended. Open loop: requests are meant
// to be sent at times that do not depend on the answers (every 1/rate seconds, or with exponential
// pauses); if all connections are taken a request waits for one, and that wait is part of its
// times. Threads: made on the main thread; run() is the thread's body; ask_to_stop() from any.
// Owns: the calls. Errors: create() when the kernel lacks io_uring or memory is short.
#pragma once

#include <atomic>
#include <deque>
#include <memory>
#include <vector>

#include "io/uring/uring_io.h"
#include "load/call.h"

namespace sluice::load {

// What all threads share.
struct Course {
    Instant begin{};
    std::atomic<std::uint64_t> requests_left{UINT64_MAX};  // after the warm-up
};

class Generator final : private CallOwner {
public:
    static Result<std::unique_ptr<Generator>> create(const LoadOptions& options, Course& course,
                                                     std::uint32_t index);
    ~Generator();

    void run();
    void ask_to_stop() { stop_wanted_.store(true, std::memory_order_relaxed); }
    bool finished() const { return finished_.load(std::memory_order_acquire); }
    const Tally& tally() const { return tally_; }
    Instant last_end() const { return last_end_; }  // of a request; once finished()

private:
    Generator(const LoadOptions& options, Course& course, std::uint32_t index,
              std::unique_ptr<io::UringIo> io);

    void call_ended(Call& call, bool connected) override;
    void start_due();
    // When the next request is meant to be sent; kNever: not before a call ends, or not at all.
    Instant next_due() const;
    bool take_one(Instant meant_at, bool& counts);
    void schedule_next();
    void end_all();

    const LoadOptions& options_;
    Course& course_;
    std::uint32_t index_;
    std::unique_ptr<io::UringIo> io_;
    io::Loop loop_;
    http::UpstreamPool pool_;
    json::Scanner scanner_;
    Tally tally_;
    CallShared shared_;
    RequestMaker maker_;
    Rng rng_;
    io::Deferred start_due_;
    std::deque<Call> calls_;
    std::vector<Call*> idle_;
    std::uint64_t number_ = 0;  // of requests that were due
    Instant due_{};             // of the next one
    Duration pause_{};          // open loop: between two; during the ramp: between two connections
    Instant held_until_{};      // no connection could be made just now
    Instant last_end_{};
    bool over_ = false;  // nothing is started any more
    std::atomic<bool> stop_wanted_{false};
    std::atomic<bool> finished_{false};
};

}  // namespace sluice::load
