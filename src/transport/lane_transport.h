// SPDX-License-Identifier: Apache-2.0
// The owner's half of a transport whose peers are reached over lanes: tables of regions, peers,
// landings and posts, and what the lanes' events mean for them. What a peer's lanes are and how
// they come up is said by stream/ (hello and frames) and mooncake/ (Mooncake's wire).
//
// One lane of a peer that breaks takes the peer down, and everything with it ends. A landing's or
// post's slot is free again when its completion has come (and, for a landing, release()), no mover
// is inside its gate, and every lane has given its part back. Threads: the owner. Owns: all of it,
// lanes included. Costs: see transport.h.
#pragma once

#include <string>

#include "transport/lane_context.h"
#include "transport/peer_lane.h"
#include "transport/post.h"
#include "transport/senders.h"

namespace sluice::transport {

class LaneTransport : public Transport, protected EventTarget {
public:
    LaneTransport(Senders& senders, const TransportOptions& options);
    ~LaneTransport() override;

    Result<RegionId> register_memory(const Region& region) override;
    Result<void> deregister_memory(RegionId region) override;
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
    static constexpr std::size_t kLanesMax = std::size_t{kPeersMax} * 4;  // of all peers

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
        std::vector<PeerLane*> lanes;   // that posts go over
        std::vector<PeerLane*> others;  // that end with it
    };
    struct LaneRecord {
        std::unique_ptr<PeerLane> lane;
        PeerId peer;
        bool closing = false;
    };
    enum class LaneUse : std::uint8_t { Posts, Other };

    // -- what the lanes of this kind say
    virtual void on_accepted(const Lane& listener, int fd) = 0;
    virtual void on_up(PeerLane& lane, LaneRecord& record) = 0;
    virtual Result<void> check_region(const Region&) { return {}; }
    // The fences that readers in other processes look at.
    virtual void open_cell(const Post&, std::uint32_t) {}
    virtual void close_cell(std::uint32_t) {}
    // A landing's name. Never the same twice, nor in the next life of this process; 0: none is
    // left.
    virtual std::uint64_t new_epoch(const Placement&) { return next_epoch_++; }
    virtual void on_landing_open(std::uint32_t, std::uint64_t, const Placement&) {}
    virtual void on_landing_closed(std::uint32_t) {}
    // False: a lane that is told to revoke a post reads the rest of a block that is under way
    // first.
    virtual bool stops_reading_at_once() const { return true; }

    // Derived destructors call it first: lanes use what they own.
    void shut_down();

    const LaneContext& context() const { return context_; }
    const Region* find_region(RegionId id);
    bool has_lanes() const { return !lanes_.empty(); }
    std::size_t lane_count() const { return lanes_.size(); }

    // -- peers and their lanes
    Slab<Peer>& peers() { return peers_; }
    Peer* add_peer(bool connecting, std::uint16_t lanes_wanted);  // nullptr: no room
    std::uint16_t lanes_asked() const;
    void count_connect(const Endpoint& endpoint);
    Lane& add_listener(std::unique_ptr<Lane> listener);
    PeerLane& add_lane(std::unique_ptr<PeerLane> lane, PeerId peer, LaneUse use);
    void assign_lane(LaneRecord& record, Peer& peer, LaneUse use);
    LaneRecord* record_of(const Lane& lane);
    void say_up(Peer& peer);
    void take_down(Peer& peer, Status status, int os);
    void close_lane(PeerLane& lane, bool reset);
    void give_lane(PeerLane& lane, JobKind kind);

    // A landing that ends with `peer`, if there is one.
    Result<Ticket> open_for(PeerId peer, std::uint64_t peer_node, const Batch& batch,
                            const LandingOptions& options);
    // A post, to a landing or to addresses of the peer's: `target`, with those for its regions.
    Result<PostId> post_to(PeerId peer, const Ticket& ticket, const Batch& batch,
                           const PostOptions& options, const Batch* target,
                           RegionLookup target_regions);

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
        std::vector<PeerLane*> lanes;
        Post post;
    };

    void on_event(const LaneEvent& event) final;
    void on_down(PeerLane& lane, Status status, int os);
    void on_gone(PeerLane& lane);
    void on_part_done(Post& post, Status status);
    void on_landing_done(const Ticket& ticket, Status status);

    void give(unsigned thread, const LaneJob& job);
    void give_kept();
    void erase_if_gone(Peer& peer);
    void close_landing(std::uint32_t slot, Status status);
    void finish_post(PostState& state, Status status);
    void settle();  // what was closing and is quiet now
    void expire();
    void complete(const Completion& completion) { ready_.push_back(completion); }
    PostState* find_post(PostId id);
    bool is_landing(const Ticket& ticket, Phase phase) const;
    void hold_regions(const Batch& batch, std::vector<RegionId>& held);
    void let_regions_go(std::vector<RegionId>& held);

    Senders& senders_;
    LaneContext context_;
    std::uint64_t next_epoch_ = 1;

    std::vector<Region> regions_;
    std::vector<std::uint32_t> region_users_;

    Slab<Peer> peers_{kPeersMax};
    std::vector<LaneRecord> lanes_;
    std::vector<std::unique_ptr<Lane>> listeners_;
    std::size_t listeners_gone_ = 0;
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
