// SPDX-License-Identifier: Apache-2.0
// The lane as its thread sees it: jobs, readiness, turns, time. Sending, receiving and the hello
// are in the files beside this one.
#include "transport/stream/stream_lane.h"

#include <sys/socket.h>
#include <unistd.h>

namespace sluice::transport {
namespace {

constexpr int kCallsPerTurn = 4;  // of each direction, before other lanes of the thread
constexpr std::size_t kAnswersMax = 2 * kPostsMax;  // waiting to be sent
constexpr Duration kPingEvery = std::chrono::milliseconds(200);

}  // namespace

StreamLane::StreamLane(const LaneContext& context, const LaneSetup& setup)
    : PeerLane(context), setup_(setup) {
    control_.reserve(64);
    control_going_.reserve(64);
}

StreamLane::~StreamLane() {
    if (setup_.fd >= 0) ::close(setup_.fd);
}

void StreamLane::adopt(LaneHost& host) {
    state_ = setup_.connecting ? State::Connecting : State::Greeting;
    PeerLane::adopt(host);
}

void StreamLane::take(const LaneJob& job) {
    switch (job.kind) {
        case JobKind::Send: {
            Part* part = nullptr;
            if (state_ == State::Up) part = parts_.begin(*job.post, job.first_unit, job.units);
            if (part == nullptr) return say_part_done(*job.post, Status::PeerLost);
            host().want_step(*this);
            return;
        }
        case JobKind::Revoke:
            return revoke(*job.post);
        case JobKind::Close:
            if (state_ != State::Broken) break_down(Status::Revoked);
            state_ = State::Closed;
            return close_and_say_gone(setup_.fd, job.reset);
        default:
            return;
    }
}

bool StreamLane::step() {
    if (state_ == State::Connecting || state_ == State::Greeting) {
        greet();
    }
    if (state_ != State::Up) return false;
    int calls = kCallsPerTurn;
    while (state_ == State::Up && readable_ && calls-- > 0 && receive_some()) {
    }
    calls = kCallsPerTurn;
    while (state_ == State::Up && writable_ && calls-- > 0 && send_some()) {
    }
    if (state_ != State::Up) return false;
    const bool more = step_more();
    if (state_ != State::Up) return false;
    return more || readable_ ||
           (writable_ && (tx_.active || !control_.empty() || parts_.waiting()));
}

void StreamLane::tick() {
    if (state_ == State::Broken || state_ == State::Closed) return;
    const Instant now = host().now();
    if (state_ != State::Up) {
        if (now - started_ > context().options.connect_timeout)
            break_down(Status::PeerLost, ETIMEDOUT);
        return;
    }
    if (!tx_.active && control_.empty() && now - last_sent_ >= kPingEvery) {
        FrameHeader ping;
        ping.type = FrameType::Ping;
        seal(ping);
        control_.push_back(ping);
        host().want_step(*this);
    }
    const Duration silence_max = context().options.silence_max;
    if (silence_max == Duration::zero() || now - last_heard_ <= silence_max) return;
    // It may be we who were not there: what has come counts before the clock does.
    readable_ = true;
    if (receive_some() || state_ != State::Up) return;
    break_down(Status::PeerLost, ETIMEDOUT);
}

void StreamLane::come_up() {
    say_up();
    host().want_step(*this);
}

void StreamLane::break_down(Status status, int os) {
    if (state_ == State::Broken || state_ == State::Closed) return;
    state_ = State::Broken;
    if (status == Status::Violation) counters.violations.add();
    if (tx_.active) tx_ = Send();
    on_closed();
    // Both ends of what we had stop: the socket itself is closed by the owner's last job.
    ::shutdown(setup_.fd, SHUT_RDWR);
    std::vector<Part*> ending;
    parts_.for_each([&](Part& part) { ending.push_back(&part); });
    for (Part* part : ending)
        end_part(*part, status == Status::Revoked ? Status::Revoked : Status::PeerLost);
    say_down(status, os);
}

void StreamLane::queue_ack(const FrameHeader& about, Status status) {
    // Whoever sends so much and takes none of our answers is no peer of ours.
    if (control_.size() >= kAnswersMax) return break_down(Status::Violation);
    FrameHeader ack;
    ack.type = FrameType::Ack;
    ack.slot = about.slot;
    ack.epoch = about.epoch;
    ack.part = about.part;
    ack.offset = static_cast<std::uint64_t>(status);
    seal(ack);
    control_.push_back(ack);
    host().want_step(*this);
}

void StreamLane::end_part(Part& part, Status status) {
    Post& post = *part.post;
    parts_.end(part);
    say_part_done(post, status);
}

}  // namespace sluice::transport
