// SPDX-License-Identifier: Apache-2.0
#include "pd/leg.h"

namespace sluice::pd {

using fleet::Outcome;

Leg::Leg(io::Loop& loop, LegOwner& owner, LegEvents& events, const fleet::Instance& instance,
         std::uint32_t ticket)
    : loop_(loop),
      owner_(owner),
      events_(&events),
      state_(instance.state.get()),
      request_(*this),
      deadline_(Delegate<void()>::to<&Leg::on_deadline>(*this)),
      index_(instance.index),
      ticket_(ticket),
      role_(instance.role) {}

Leg::~Leg() {
    leave_load();
    report(Outcome::Neutral);
}

void Leg::enter_load(std::int64_t prompt_bytes) {
    in_load_ = true;
    prompt_bytes_ = prompt_bytes;
    state_->in_flight.fetch_add(1, std::memory_order_relaxed);
    if (prompt_bytes_ != 0)
        state_->pending_bytes.fetch_add(prompt_bytes_, std::memory_order_relaxed);
}

void Leg::send(http::UpstreamPool& pool, SliceQueue message, Duration time_max,
               bool is_head_method) {
    sent_ = true;
    began_ = loop_.now();
    state_->requests.fetch_add(1, std::memory_order_relaxed);
    loop_.arm(deadline_, time_max);
    request_.start(pool, std::move(message), is_head_method);
}

void Leg::leave_load() {
    if (!in_load_) return;
    in_load_ = false;
    state_->in_flight.fetch_sub(1, std::memory_order_relaxed);
    if (prompt_bytes_ != 0)
        state_->pending_bytes.fetch_sub(prompt_bytes_, std::memory_order_relaxed);
}

void Leg::report(Outcome outcome) {
    if (reported_) return;
    reported_ = true;
    owner_.report(*state_, outcome, ticket_);
}

std::uint32_t Leg::take_over_report() {
    reported_ = true;
    return ticket_;
}

void Leg::end() {
    if (ended_) return;
    ended_ = true;
    deadline_.cancel();
    leave_load();
    report(Outcome::Neutral);  // a probe of a half-open instance must not keep its place for ever
    owner_.leg_ended(*this);
}

void Leg::cancel() {
    events_ = nullptr;
    request_.cancel();
    end();
}

void Leg::detach() {
    events_ = nullptr;
    detached_ = true;
}

void Leg::detach(Duration time_max) {
    detach();
    loop_.arm(deadline_, time_max);
}

void Leg::on_response_head(const http::ResponseHead& head) {
    status_ = head.status;
    if (events_ != nullptr) events_->on_leg_head(*this, head);
}

void Leg::on_response_body(Slice bytes) {
    if (events_ != nullptr) events_->on_leg_body(*this, std::move(bytes));
}

void Leg::on_response_end() {
    answered_ = true;
    // The load is left before anybody decides anything on it.
    if (events_ == nullptr) report(status_ < 500 ? Outcome::Success : Outcome::Neutral);
    LegEvents* events = events_;
    if (events != nullptr) events->on_leg_end(*this);
    end();
}

void Leg::on_response_failed(const http::ClientFailure& failure) {
    LegEvents* events = events_;
    report(failure.is_local() ? Outcome::Neutral : Outcome::Failure);
    if (events != nullptr) events->on_leg_failed(*this, LegFailure{false, failure});
    end();
}

void Leg::on_deadline() {
    // How long a decode takes is for the one who asked to say.
    report(detached_ && role_ == fleet::Role::Decode ? Outcome::Neutral : Outcome::Failure);
    if (events_ != nullptr) {
        LegFailure failure;
        failure.timed_out = late_ = true;
        events_->on_leg_failed(*this, failure);
        if (detached_) return;
    }
    request_.cancel();
    end();
}

}  // namespace sluice::pd
