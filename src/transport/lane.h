// SPDX-License-Identifier: Apache-2.0
// One ordered channel to a peer, as a sender thread drives it, and the records that go between the
// owner and that thread.
//
// Life of a lane: the owner makes it and gives the job Adopt; the thread calls it from then on. One
// that breaks says Down and stays, answering what is still given to it; the owner's job Close is
// the last, its answer Gone, and then the owner deletes it. So no job finds a lane that is gone.
// Threads: as said at each function.
#pragma once

#include <cstdint>

#include "base/intrusive_list.h"
#include "transport/transport.h"

namespace sluice::transport {

class EventTarget;
class Lane;
struct Post;

enum class JobKind : std::uint8_t {
    Adopt,   // the lane now belongs to this thread
    Send,    // units [first, first + count) of a post
    Revoke,  // the post's parts end
    Close,   // the lane ends; the last job for it
    Echo,    // comes back as an event: measures the hand-over
    Stop,
};

struct alignas(64) LaneJob {
    JobKind kind{};
    bool reset = false;  // Close: the peer is to see a broken connection
    Lane* lane = nullptr;
    Post* post = nullptr;
    std::uint64_t first_unit = 0;
    std::uint64_t units = 0;
    std::uint64_t user = 0;
    EventTarget* target = nullptr;  // Echo
};
static_assert(sizeof(LaneJob) == 64);

enum class EventKind : std::uint8_t {
    Accepted,  // user: the new socket
    Up,        // the hello is done; node, user: what it said
    Down,      // status, os
    Gone,
    PartDone,     // post, status
    LandingDone,  // ticket, status
    Echo,
};

struct alignas(64) LaneEvent {
    EventKind kind{};
    Status status{};
    std::int32_t os = 0;
    EventTarget* target = nullptr;
    Lane* lane = nullptr;
    Post* post = nullptr;
    Ticket ticket;
    std::uint64_t user = 0;
};
static_assert(sizeof(LaneEvent) == 64);

// What a lane may ask of the thread that drives it.
class LaneHost {
public:
    virtual void emit(const LaneEvent& event) = 0;
    // The lane's step() is called in this round again.
    virtual void want_step(Lane& lane) = 0;
    virtual Instant now() const = 0;

protected:
    ~LaneHost() = default;
};

inline constexpr Duration kTickEvery = std::chrono::milliseconds(50);

class Lane : public ListNode<Lane> {
public:
    virtual ~Lane() = default;

    // -- by the thread that has adopted it
    virtual void adopt(LaneHost& host) = 0;
    virtual void take(const LaneJob& job) = 0;  // Send, Revoke, Close
    virtual void on_ready(std::uint32_t epoll_events) = 0;
    // Does a bounded amount of work; true if there is more that needs no event first.
    virtual bool step() = 0;
    virtual void tick() = 0;
    // Watched edge-triggered for reading and writing from adopt() to close; -1: none.
    virtual int fd() const = 0;

    // -- by the owner
    unsigned thread = 0;

    // -- by the thread
    bool runnable = false;
};

}  // namespace sluice::transport
