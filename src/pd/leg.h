// SPDX-License-Identifier: Apache-2.0
// One upstream exchange of a request: the prefill leg or the decode leg, with its place in the
// instance's load.
//
// A leg counts as in flight from enter_load() until its answer ended, failed, or was cancelled. A
// leg may be detached: it then runs to its end under its own deadline with nobody waiting
// for it. Threads: one. Owns: the request in flight; legs live in the proxy's slab and are freed at
// the end of a turn.
#pragma once

#include "base/timer_wheel.h"
#include "fleet/health.h"
#include "http/client.h"

namespace sluice::pd {

class Leg;

struct LegFailure {
    bool timed_out = false;  // it still runs, and ends if it is not detached now
    http::ClientFailure client{http::ClientFailure::Kind::Closed};
};

class LegEvents {
public:
    virtual void on_leg_head(Leg& leg, const http::ResponseHead& head) = 0;
    virtual void on_leg_body(Leg& leg, Slice bytes) = 0;
    virtual void on_leg_end(Leg& leg) = 0;
    virtual void on_leg_failed(Leg& leg, const LegFailure& failure) = 0;

protected:
    ~LegEvents() = default;
};

// Frees legs when it is safe, and says what a leg's end means for its instance's health.
class LegOwner {
public:
    virtual void leg_ended(Leg& leg) = 0;
    virtual void report(fleet::InstanceState& state, fleet::Outcome outcome,
                        std::uint32_t ticket) = 0;

protected:
    ~LegOwner() = default;
};

class Leg final : private http::ResponseEvents {
public:
    // `ticket`: of the instance's half-open probe, if this leg is one (health.h).
    Leg(io::Loop& loop, LegOwner& owner, LegEvents& events, const fleet::Instance& instance,
        std::uint32_t ticket);
    ~Leg();

    // Counts as the instance's load from here on, so that a burst does not all choose the same one.
    // `prompt_bytes` weigh a prefill.
    void enter_load(std::int64_t prompt_bytes);
    // `time_max` for the whole leg; kForever for none.
    void send(http::UpstreamPool& pool, SliceQueue message, Duration time_max, bool is_head_method);
    // Ends it now: the connection is closed. No event follows; the leg is freed.
    void cancel();
    // Lets it finish by itself; one that has no deadline of its own, or is past it, within
    // `time_max`.
    void detach();
    void detach(Duration time_max);
    bool detached() const { return detached_; }
    bool late() const { return late_; }
    // Of the KV relay, which waits for the end of a detached prefill.
    void set_transfer(Handle transfer) { transfer_ = transfer; }
    Handle transfer() const { return transfer_; }
    // The answer came whole.
    bool answered() const { return answered_; }

    void set_reading(bool wanted) { request_.set_reading(wanted); }
    bool sent() const { return sent_; }
    bool ended() const { return ended_; }
    std::uint16_t status() const { return status_; }
    Instant began() const { return began_; }

    // What the leg's end says of its instance; once. Without it the leg is neutral.
    void report(fleet::Outcome outcome);
    // The user reports in the leg's place, later, with the ticket that is returned.
    std::uint32_t take_over_report();

    fleet::Role role() const { return role_; }
    std::uint32_t instance_index() const { return index_; }
    fleet::InstanceState& state() { return *state_; }

private:
    void on_response_head(const http::ResponseHead& head) override;
    void on_response_body(Slice bytes) override;
    void on_response_end() override;
    void on_response_failed(const http::ClientFailure& failure) override;
    void on_deadline();
    void leave_load();
    void end();

    io::Loop& loop_;
    LegOwner& owner_;
    LegEvents* events_;
    fleet::InstanceState* state_;  // lives as long as the fleet
    http::ClientRequest request_;
    Timer deadline_;
    Instant began_{};
    std::int64_t prompt_bytes_ = 0;
    std::uint32_t index_;
    std::uint32_t ticket_;
    fleet::Role role_;
    std::uint16_t status_ = 0;
    bool sent_ = false;
    bool in_load_ = false;
    bool reported_ = false;
    bool ended_ = false;
    bool detached_ = false;
    bool late_ = false;
    bool answered_ = false;
    Handle transfer_;
};

}  // namespace sluice::pd
