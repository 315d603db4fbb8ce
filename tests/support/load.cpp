// SPDX-License-Identifier: Apache-2.0
#include "support/load.h"

#include <memory>
#include <vector>

#include "http/client.h"
#include "io/uring/uring_io.h"
#include "mem/text_arena.h"

namespace sluice::test {

namespace {

class Slot;

struct Run {
    const LoadPlan& plan;
    io::Loop& loop;
    http::UpstreamPool pool;
    TextArena texts;
    std::uint64_t started = 0;
    std::uint64_t ended = 0;
};

// One of the `concurrency` places: asks again as soon as it has been answered.
class Slot final : private http::ResponseEvents {
public:
    explicit Slot(Run& run)
        : run_(run),
          request_(*this),
          leave_(Delegate<void()>::to<&Slot::on_leave>(*this)),
          again_(Delegate<void()>::to<&Slot::next>(*this)) {}

    void next() {
        if (run_.started == run_.plan.requests) return;
        number_ = run_.started++;
        answer_ = {};
        const LoadRequest asked = run_.plan.make(number_);
        TextWriter writer(run_.texts);
        writer.append("POST " + asked.path +
                      " HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\nContent-Length: " +
                      std::to_string(asked.body.size()) + "\r\n\r\n");
        writer.append(asked.body);
        SliceQueue message;
        message.push(writer.finish());
        request_.start(run_.pool, std::move(message));
        if (asked.leave_after_ms >= 0)
            run_.loop.arm(leave_, from_seconds(asked.leave_after_ms / 1000));
    }

private:
    void on_response_head(const http::ResponseHead& head) override { answer_.status = head.status; }
    void on_response_body(Slice bytes) override { answer_.body.append(bytes.view()); }
    void on_response_end() override { end(true); }
    void on_response_failed(const http::ClientFailure& failure) override {
        answer_.failed = true;
        answer_.failure = failure.describe();
        end(true);
    }
    void on_leave() {
        request_.cancel();
        end(false);
    }
    void end(bool judge) {
        leave_.cancel();
        ++run_.ended;
        if (judge) run_.plan.judge(number_, answer_);
        run_.loop.defer(again_);
    }

    Run& run_;
    http::ClientRequest request_;
    Timer leave_;
    io::Deferred again_;
    std::uint64_t number_ = 0;
    LoadAnswer answer_;
};

}  // namespace

std::uint64_t run_load(const LoadPlan& plan) {
    io::UringOptions options;
    options.capabilities = io::probe_uring();
    auto io = io::UringIo::create(options);
    if (!io) return 0;
    io::Loop loop(**io);
    http::UpstreamOptions upstream;
    upstream.connect_timeout = std::chrono::seconds(10);
    Run run{plan, loop, http::UpstreamPool(loop, plan.target, upstream), TextArena(loop.buffers())};
    {
        std::vector<std::unique_ptr<Slot>> slots;
        for (int i = 0; i < plan.concurrency; ++i) slots.push_back(std::make_unique<Slot>(run));
        for (auto& slot : slots) slot->next();
        const Instant end = MonotonicClock::now() + from_seconds(plan.seconds_max);
        while (run.ended < plan.requests && MonotonicClock::now() < end)
            loop.run_turn(std::chrono::milliseconds(100));
    }
    run.pool.drain();
    for (const Instant end = MonotonicClock::now() + std::chrono::seconds(10);
         run.pool.open() > 0 && MonotonicClock::now() < end;)
        loop.run_turn(std::chrono::milliseconds(10));
    return run.ended;
}

}  // namespace sluice::test
