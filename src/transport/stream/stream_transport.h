// SPDX-License-Identifier: Apache-2.0
// The owner's half of a transport whose lanes are streams: tables of regions, peers, landings and
// posts, and what the lanes' events mean for them. tcp/ and shm/ say how sockets are made.
//
// A peer is up when all lanes of its connect() are; one lane that breaks takes the peer down, and
// everything with it ends. A landing's or post's slot is free again when its completion has come
// (and, for a landing, release()), no mover is inside its gate, and every lane has given its part
// back. Threads: the owner. Owns: all of it, lanes included. Costs: see transport.h.
#pragma once

#include <string>

#include "transport/senders.h"
#include "transport/stream/stream_lane.h"

namespace sluice::transport {

class StreamTransport : public Transport, protected EventTarget {
public:
    StreamTransport(Senders& senders, const TransportOptions& options);
    ~StreamTransport() override;

    Result<RegionId> register_memory(const Region& region) override;
    Result<void> deregister_memory(RegionId region) override;
    Result<Endpoint> listen(const Endpoint& endpoint) override;
    Result<PeerId> connect(const Endpoint& endpoint) override;
    void close(PeerId peer) override;
    Result<Ticket> open(PeerId peer, const Batch& batch, const LandingOptions& options) override;
    bool revoke(const Ticket& ticket) override;
    std::span<const std::uint64_t> landed_units(const Ticket& ticket) const override;
    bool block_landed(const Ticket& ticket, std::uint32_t block_index) const override;
    void release(const Ticket& ticket) override;
    Result<PostId> post(PeerId peer, const Ticket& ticket, const Batch& batch,
                        const PostOptions& options) override;
    bool revoke(PostId post) override;
    std::size_t poll(Instant now, std::span<Completion> out) override;
    Instant next_deadline() const override;
    TransportCounters counters() const override;

protected:
    // -- how this kind of stream is made
    // A listening socket, non-blocking, and what to tell others.
    virtual Result<int> make_listener(const Endpoint& endpoint, Endpoint& announced) = 0;
    // A socket that is connecting, non-blocking.
    virtual Result<int> start_connect(const Endpoint& endpoint) = 0;
    virtual void prepare_accepted(int fd) = 0;
    virtual std::unique_ptr<StreamLane> make_lane(const LaneSetup& setup);
    virtual Result<void> check_region(const Region&) { return {}; }
    // The fences that readers in other processes look at.
    virtual void open_cell(const Post&, std::uint32_t) {}
    virtual void close_cell(std::uint32_t) {}

    // Derived destructors call it first: lanes use what they own.
    void shut_down();

    const StreamContext& context() const { return context_; }
    const Region* find_region(RegionId id);
    bool has_lanes() const { return !lanes_.empty(); }

private:
    enum class Phase : std::uint8_t { Free, Open, Closing, Done };

    struct LandingState {
        Phase phase = Phase::Free;
        Status status = Status::Landed;
        std::uint64_t epoch = 0;
        std::uint64_t user = 0;
        PeerId peer;
        Instant deadline = kNever;
        std::vector<RegionId> regions;
    };
    struct PostState {
        explicit PostState(std::uint32_t number) : cell(number) {}
        Phase phase = Phase::Free;
        Status status = Status::Delivered;
        std::uint32_t cell;
        std::uint32_t generation = 1;
        std::uint32_t parts = 0;  // with lanes
        std::uint64_t user = 0;
        PeerId peer;
        Instant deadline = kNever;
        std::vector<RegionId> regions;
        std::vector<StreamLane*> lanes;
        Post post;
    };
    struct Peer {
        bool up = false;
        bool down = false;
        bool connecting = false;  // by us
        bool closing = false;     // by the owner: no PeerDown
        std::uint64_t node = 0;
        std::uint64_t group = 0;
        std::uint16_t lanes_wanted = 0;
        std::uint16_t lanes_up = 0;
        unsigned next_lane = 0;
        Instant since;
        std::vector<StreamLane*> lanes;
    };

    void on_event(const LaneEvent& event) final;
    void on_accepted(int fd);
    void on_up(StreamLane& lane);
    void on_down(StreamLane& lane, Status status, int os);
    void on_gone(StreamLane& lane);
    void on_part_done(Post& post, Status status);
    void on_landing_done(const Ticket& ticket, Status status);

    Result<void> add_lane(const LaneSetup& setup, Peer* peer, PeerId id);
    void give(unsigned thread, const LaneJob& job);
    void give_kept();
    void take_down(Peer& peer, Status status, int os);
    void close_lane(StreamLane& lane, bool reset);
    void finish_landing(std::uint32_t slot, Status status);
    void finish_post(PostState& state, Status status);
    void settle();  // what was closing and is quiet now
    void expire();
    void complete(const Completion& completion) { ready_.push_back(completion); }
    PostState* find_post(PostId id);
    bool is_landing(const Ticket& ticket, Phase phase) const;
    void hold_regions(const Batch& batch, std::vector<RegionId>& held);
    void let_regions_go(std::vector<RegionId>& held);

    struct LaneRecord {
        std::unique_ptr<StreamLane> lane;
        PeerId peer;
        bool closing = false;
    };
    LaneRecord* record_of(const Lane& lane);

    Senders& senders_;
    StreamContext context_;
    std::uint64_t next_epoch_ = 1;
    std::uint64_t next_group_ = 1;

    std::vector<Region> regions_;
    std::vector<std::uint32_t> region_users_;

    Slab<Peer> peers_{kPeersMax};
    std::vector<LaneRecord> lanes_;
    std::unique_ptr<Lane> listener_;
    bool listener_gone_ = false;
    unsigned next_thread_ = 0;

    std::vector<LandingState> landings_;  // beside context_.landings
    std::vector<std::uint32_t> free_landings_, live_landings_;
    std::vector<std::unique_ptr<PostState>> posts_;
    std::vector<std::uint32_t> free_posts_, live_posts_;
    std::vector<std::pair<unsigned, LaneJob>> kept_jobs_;  // a ring was full
    std::vector<Completion> ready_;
    std::size_t ready_taken_ = 0;
    std::vector<Endpoint> connected_before_;
    Instant now_;
    Instant earliest_ = kNever;
    bool settling_ = false;
    TransportCounters totals_;
    bool shut_down_ = false;
};

}  // namespace sluice::transport
