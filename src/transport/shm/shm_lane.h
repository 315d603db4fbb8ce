// SPDX-License-Identifier: Apache-2.0
// A lane between two processes of one host: a unix socket for messages, the sender's memory mapped
// read-only at the receiver, and one copy, made by the receiver's thread.
//
// The socket is the doorbell: a part of a post is one message (a Grant), its end is one back. The
// receiver copies a slice at a time inside its landing's gate and then looks at the post's cell, a
// number in the sender's shared page: if that has moved, the sender has taken its blocks back, and
// what was copied is not counted as landed. So neither side can be harmed by the other's being
// stopped or killed: nobody else writes into the receiver's blocks, and mappings outlive processes.
// Memory is mapped only if it is sealed against shrinking, so reading it cannot fault.
//
// Threads: the lane's. Owns: its mappings. Costs: a send and a receive a part, a memcpy a slice.
#pragma once

#include <memory>

#include "transport/shm/messages.h"
#include "transport/stream/stream_lane.h"

namespace sluice::transport {

// One side's fences: a cell per post, zero when closed. In a memfd, so that readers see it.
class FenceCells {
public:
    static constexpr std::size_t kBytes = kPostsMax * sizeof(std::uint64_t);

    Result<void> create();
    ~FenceCells();
    int fd() const { return fd_; }
    void open(std::uint32_t cell, std::uint64_t epoch);
    void close(std::uint32_t cell);

private:
    int fd_ = -1;
    std::atomic<std::uint64_t>* cells_ = nullptr;
};

// What all lanes of one ShmTransport read.
struct ShmShared {
    FenceCells cells;
    std::vector<Region> regions;  // as registered; not changed while lanes greet
};

class ShmLane final : public StreamLane {
public:
    ShmLane(const LaneContext& context, const LaneSetup& setup, ShmShared& shared);
    ~ShmLane() override;

private:
    struct Copy;
    struct Mapping {
        std::byte* base = nullptr;
        std::size_t bytes = 0;
    };

    void on_hello_done() override;
    bool builds_frames() const override { return false; }
    bool start_message(Part& part, FrameHeader& header, std::vector<std::byte>& payload) override;
    bool wants_message(const FrameHeader& header) override;
    void on_message(const FrameHeader& header, std::span<const std::byte> payload) override;
    void on_descriptors(std::span<const int> descriptors) override;
    bool step_more() override;
    void on_closed() override;

    bool map_regions(std::span<const std::byte> payload);
    bool begin_copy(const FrameHeader& header, std::span<const std::byte> payload);
    bool copy_slice(Copy& copy);  // true: this copy has ended
    Copy* next_copy();
    const Region* find_mapped(RegionId id);
    void close_descriptors();

    ShmShared& shared_;
    bool mapped_ = false;
    std::vector<int> descriptors_;
    std::vector<Mapping> mappings_;
    std::vector<Region> peer_regions_;
    const std::atomic<std::uint64_t>* peer_cells_ = nullptr;
    std::vector<std::unique_ptr<Copy>> copies_;  // all ever needed at a time
    std::vector<Copy*> spare_copies_;
    std::array<IntrusiveList<Copy>, 3> queues_;  // by priority
    unsigned turns_ = 0;
};

}  // namespace sluice::transport
