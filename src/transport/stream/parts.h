// SPDX-License-Identifier: Apache-2.0
// What a lane has to send, and whose turn it is.
//
// A part is the share of one post that this lane carries. Parts of one priority take turns, a frame
// each, so a long transfer delays a short one by a frame for each transfer before it. A higher
// priority goes first, except that every kLowEvery-th turn is the lowest's, so nobody starves.
//
// Threads: the lane's. Owns: the parts. Costs: O(1). Errors: begin() answers nullptr when full; the
// owner's limit of posts makes that impossible.
#pragma once

#include "base/intrusive_list.h"
#include "base/slab.h"
#include "transport/post.h"

namespace sluice::transport {

struct Part : ListNode<Part> {
    Post* post = nullptr;
    std::uint64_t epoch = 0;      // of the post
    std::uint64_t next_unit = 0;  // of the post
    std::uint64_t end_unit = 0;
    Place place;  // of next_unit
    bool sent = false;

    // What Mooncake's wire needs beside it.
    struct Cursor {
        Place target;                  // in the peer's addresses
        std::uint64_t left = 0;        // of the cut that is being written
        std::uint32_t unanswered = 0;  // writes
        bool revoked = false;          // ends with the last answer
    } cursor;
};

class Parts {
public:
    Part* begin(Post& post, std::uint64_t first_unit, std::uint64_t units) {
        Part* part = parts_.emplace();
        if (part == nullptr) return nullptr;
        part->post = &post;
        part->epoch = post.epoch;
        part->next_unit = first_unit;
        part->end_unit = first_unit + units;
        part->place = post.placement.place_of_unit(first_unit);
        queue(post.priority).push_back(*part);
        return part;
    }
    void end(Part& part) { parts_.erase(part); }

    bool waiting() const {
        for (const auto& queue : queues_)
            if (!queue.empty()) return true;
        return false;
    }
    // Whose turn it is; it is behind the others of its priority then. nullptr: nothing to send.
    Part* next() {
        const bool low_first = ++turns_ % kLowEvery == 0;
        for (std::size_t i = 0; i < queues_.size(); ++i) {
            auto& queue = queues_[low_first ? i : queues_.size() - 1 - i];
            if (Part* part = queue.pop_front()) {
                queue.push_back(*part);
                return part;
            }
        }
        return nullptr;
    }
    void all_sent(Part& part) {
        part.sent = true;
        part.unlink();
    }

    // Its name on the wire; late acknowledgements of what has ended find nothing.
    Handle name_of(const Part& part) const { return parts_.handle_of(part); }
    Part* find(Handle name) { return parts_.get(name); }
    template <class F>
    void for_each(F&& visit) {
        parts_.for_each(visit);
    }
    std::uint32_t size() const { return parts_.size(); }

private:
    static constexpr unsigned kLowEvery = 16;

    IntrusiveList<Part>& queue(Priority priority) {
        return queues_[static_cast<std::size_t>(priority)];
    }

    Slab<Part> parts_{kPostsMax};
    std::array<IntrusiveList<Part>, 3> queues_;
    unsigned turns_ = 0;
};

}  // namespace sluice::transport
