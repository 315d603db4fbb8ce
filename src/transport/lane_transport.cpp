// SPDX-License-Identifier: Apache-2.0
// Memory, landings, posts, completions. Peers and lanes are in lane_peers.cpp.
#include "transport/lane_transport.h"

#include <algorithm>
#include <thread>

#include "base/cpu.h"

namespace sluice::transport {
namespace {

// Below this a second lane costs more than it brings.
constexpr std::uint64_t kStripeBytes = 4 << 20;
constexpr std::uint32_t kFrameBytesLeast = 4096, kFrameBytesMost = 32 << 20;

// Whether unit i of one has as many bytes as unit i of the other, for all.
bool same_blocks(const Placement& a, const Placement& b) {
    return std::equal(a.ranges().begin(), a.ranges().end(), b.ranges().begin(), b.ranges().end(),
                      [](const PlacedRange& x, const PlacedRange& y) {
                          return x.block_bytes == y.block_bytes && x.block_count == y.block_count;
                      });
}

}  // namespace

LaneTransport::LaneTransport(Senders& senders, const TransportOptions& options)
    : senders_(senders) {
    ASSERT(options.node != 0);
    context_.options = options;
    context_.options.frame_bytes_max =
        std::clamp(options.frame_bytes_max, kFrameBytesLeast, kFrameBytesMost);
    context_.target = this;
    context_.landings = std::make_unique<Landing[]>(kLandingsMax);
    landings_.resize(kLandingsMax);
    for (std::uint32_t slot = kLandingsMax; slot-- > 0;) free_landings_.push_back(slot);
    now_ = MonotonicClock::now();
    // A ticket of an earlier life of this process must not fit a landing of this one.
    next_epoch_ = (random_seed() >> 2) + 1;
}

LaneTransport::~LaneTransport() { ASSERT(shut_down_); }

// -- memory

Result<RegionId> LaneTransport::register_memory(const Region& region) {
    if (region.base == nullptr || region.bytes == 0 || region.kind != MemoryKind::Host)
        return fail(Errc::Unsupported);
    TRY(check_region(region));
    for (RegionId id = 0; id < regions_.size(); ++id) {
        if (regions_[id].base != nullptr) continue;
        regions_[id] = region;
        return id;
    }
    if (regions_.size() == kRegionsMax) return fail(Errc::LimitReached);
    regions_.push_back(region);
    region_users_.push_back(0);
    return static_cast<RegionId>(regions_.size() - 1);
}

Result<void> LaneTransport::deregister_memory(RegionId region) {
    if (find_region(region) == nullptr) return fail(Errc::InvalidAddress);
    if (region_users_[region] > 0) return fail(Errc::LimitReached);
    regions_[region] = Region();
    return {};
}

const Region* LaneTransport::find_region(RegionId id) {
    return id < regions_.size() && regions_[id].base != nullptr ? &regions_[id] : nullptr;
}

void LaneTransport::hold_regions(const Batch& batch, std::vector<RegionId>& held) {
    held.clear();
    for (const Range& range : batch.ranges) {
        held.push_back(range.region);
        ++region_users_[range.region];
    }
}

void LaneTransport::let_regions_go(std::vector<RegionId>& held) {
    for (const RegionId id : held) --region_users_[id];
    held.clear();
}

// -- landings

bool LaneTransport::is_landing(const Ticket& ticket, Phase phase) const {
    return ticket.slot < kLandingsMax && landings_[ticket.slot].epoch == ticket.epoch &&
           landings_[ticket.slot].phase == phase;
}

Result<Ticket> LaneTransport::open(PeerId peer, const Batch& batch, const LandingOptions& options) {
    const Peer* from = peers_.get(peer);
    if (from == nullptr || !from->up || from->down) return fail(Errc::ConnectionClosed);
    return open_for(peer, from->node, batch, options);
}

Result<Ticket> LaneTransport::open_for(PeerId peer, std::uint64_t peer_node, const Batch& batch,
                                       const LandingOptions& options) {
    if (free_landings_.empty()) return fail(Errc::LimitReached);
    const std::uint32_t slot = free_landings_.back();
    Landing& landing = context_.landings[slot];
    TRY(landing.prepare(batch, RegionLookup::to<&LaneTransport::find_region>(*this)));
    const std::uint64_t epoch = new_epoch(landing.placement());
    if (epoch == 0) return fail(Errc::LimitReached);
    free_landings_.pop_back();
    LandingState& state = landings_[slot];
    state.phase = Phase::Open;
    state.epoch = epoch;
    state.user = options.user;
    state.peer = peer;
    state.deadline = options.deadline;
    earliest_ = std::min(earliest_, options.deadline);
    hold_regions(batch, state.regions);
    live_landings_.push_back(slot);
    ++totals_.landings;
    landing.open(epoch, peer_node);
    on_landing_open(slot, epoch, landing.placement());
    return Ticket{slot, state.epoch};
}

bool LaneTransport::revoke(const Ticket& ticket) {
    if (!is_landing(ticket, Phase::Open)) return !is_landing(ticket, Phase::Closing);
    ++totals_.revoked;
    close_landing(ticket.slot, Status::Revoked);
    settle();
    return landings_[ticket.slot].phase == Phase::Done;
}

// Closes its gate; the completion is ready when nobody is inside.
void LaneTransport::close_landing(std::uint32_t slot, Status status) {
    LandingState& state = landings_[slot];
    state.phase = Phase::Closing;
    state.status = status;
    context_.landings[slot].gate.close();
    on_landing_closed(slot);
    settling_ = true;
}

void LaneTransport::on_landing_done(const Ticket& ticket, Status status) {
    if (!is_landing(ticket, Phase::Open)) return;
    close_landing(ticket.slot, status);
    settle();
}

std::span<const std::uint64_t> LaneTransport::landed_units(const Ticket& ticket) const {
    if (!is_landing(ticket, Phase::Done)) return {};
    return context_.landings[ticket.slot].bits();
}

bool LaneTransport::block_landed(const Ticket& ticket, std::uint32_t block_index) const {
    return is_landing(ticket, Phase::Done) &&
           context_.landings[ticket.slot].block_landed(block_index);
}

void LaneTransport::release(const Ticket& ticket) {
    ASSERT(is_landing(ticket, Phase::Done));
    landings_[ticket.slot].phase = Phase::Free;
    free_landings_.push_back(ticket.slot);
}

// -- posts

LaneTransport::PostState* LaneTransport::find_post(PostId id) {
    if (id.index >= posts_.size()) return nullptr;
    PostState& state = *posts_[id.index];
    return state.phase != Phase::Free && state.generation == id.generation ? &state : nullptr;
}

Result<PostId> LaneTransport::post(PeerId peer, const Ticket& ticket, const Batch& batch,
                                   const PostOptions& options) {
    return post_to(peer, ticket, batch, options, nullptr, RegionLookup());
}

Result<PostId> LaneTransport::post_to(PeerId peer, const Ticket& ticket, const Batch& batch,
                                      const PostOptions& options, const Batch* target,
                                      RegionLookup target_regions) {
    Peer* to = peers_.get(peer);
    if (to == nullptr || !to->up || to->down) return fail(Errc::ConnectionClosed);
    if (free_posts_.empty()) {
        if (posts_.size() == kPostsMax) return fail(Errc::LimitReached);
        free_posts_.push_back(static_cast<std::uint32_t>(posts_.size()));
        posts_.push_back(std::make_unique<PostState>(static_cast<std::uint32_t>(posts_.size())));
    }
    const std::uint32_t slot = free_posts_.back();
    PostState& state = *posts_[slot];
    Post& post = state.post;
    TRY(post.placement.assign(batch, RegionLookup::to<&LaneTransport::find_region>(*this)));
    if (target != nullptr) {
        TRY(post.target.assign(*target, target_regions));
        if (!same_blocks(post.placement, post.target)) return fail(Errc::ProtocolViolation);
    }
    post.addressed = target != nullptr;
    free_posts_.pop_back();
    post.ranges.assign(batch.ranges.begin(), batch.ranges.end());
    post.ticket = ticket;
    post.first_range = options.first_range;
    post.priority = options.priority;
    post.epoch = next_epoch_++;
    post.cell = slot;
    state.phase = Phase::Open;
    state.status = Status::Delivered;
    state.user = options.user;
    state.peer = peer;
    state.deadline = options.deadline;
    earliest_ = std::min(earliest_, options.deadline);
    hold_regions(batch, state.regions);
    live_posts_.push_back(slot);
    ++totals_.posts;
    open_cell(post, slot);
    post.gate.open(post.epoch);

    const std::uint64_t units = post.placement.units();
    const std::uint64_t parts = std::clamp<std::uint64_t>(
        post.placement.bytes() / kStripeBytes, 1, std::min<std::uint64_t>(units, to->lanes.size()));
    state.lanes.clear();
    state.parts = static_cast<std::uint32_t>(parts);
    for (std::uint64_t i = 0; i < parts; ++i) {
        PeerLane& lane = *to->lanes[to->next_lane++ % to->lanes.size()];
        state.lanes.push_back(&lane);
        LaneJob job{};
        job.kind = JobKind::Send;
        job.lane = &lane;
        job.post = &post;
        job.first_unit = units * i / parts;
        job.units = units * (i + 1) / parts - job.first_unit;
        give(lane.thread, job);
    }
    return PostId{slot, state.generation};
}

bool LaneTransport::revoke(PostId id) {
    PostState* state = find_post(id);
    if (state == nullptr) return true;
    if (state->phase == Phase::Open) {
        ++totals_.revoked;
        finish_post(*state, Status::Revoked);
    }
    return (stops_reading_at_once() || state->parts == 0) && state->post.gate.quiet();
}

// Closes its gate, now or with the last part, and has every lane give its part back.
void LaneTransport::finish_post(PostState& state, Status status) {
    state.phase = Phase::Closing;
    state.status = status;
    close_cell(state.cell);
    if (stops_reading_at_once()) state.post.gate.close();
    for (PeerLane* lane : state.lanes) {
        LaneJob job{};
        job.kind = JobKind::Revoke;
        job.lane = lane;
        job.post = &state.post;
        give(lane->thread, job);
    }
    settling_ = true;
}

void LaneTransport::on_part_done(Post& post, Status status) {
    PostState& state = *posts_[post.cell];
    ASSERT(state.parts > 0);
    --state.parts;
    settling_ = true;
    if (state.phase != Phase::Open) return;
    if (status != Status::Delivered) return finish_post(state, status);
    if (state.parts == 0) {
        state.phase = Phase::Closing;
        close_cell(state.cell);
        state.post.gate.close();
    }
}

// -- time and completions

void LaneTransport::settle() {
    if (!settling_) return;
    settling_ = false;
    std::erase_if(live_landings_, [&](std::uint32_t slot) {
        LandingState& state = landings_[slot];
        if (state.phase != Phase::Closing) return state.phase != Phase::Open;
        if (!context_.landings[slot].gate.quiet()) {
            settling_ = true;
            return false;
        }
        state.phase = Phase::Done;
        let_regions_go(state.regions);
        Completion done{};
        done.event = Event::Landing;
        done.status = state.status;
        done.user = state.user;
        done.peer = state.peer;
        done.ticket = {slot, state.epoch};
        complete(done);
        return true;
    });
    std::erase_if(live_posts_, [&](std::uint32_t slot) {
        PostState& state = *posts_[slot];
        if (state.phase != Phase::Closing) return false;
        if (state.parts > 0) return false;  // an event will come
        if (!state.post.gate.close()) {
            settling_ = true;
            return false;
        }
        Completion done{};
        done.event = Event::Post;
        done.status = state.status;
        done.user = state.user;
        done.peer = state.peer;
        done.post = {slot, state.generation};
        complete(done);
        let_regions_go(state.regions);
        state.phase = Phase::Free;
        ++state.generation;
        free_posts_.push_back(slot);
        return true;
    });
}

void LaneTransport::expire() {
    if (now_ < earliest_) return;
    earliest_ = kNever;
    for (std::size_t i = 0; i < live_landings_.size(); ++i) {
        LandingState& state = landings_[live_landings_[i]];
        if (state.phase != Phase::Open) continue;
        if (state.deadline > now_) {
            earliest_ = std::min(earliest_, state.deadline);
            continue;
        }
        const std::uint32_t slot = live_landings_[i];
        close_landing(slot, Status::TimedOut);
    }
    for (const std::uint32_t slot : live_posts_) {
        PostState& state = *posts_[slot];
        if (state.phase != Phase::Open) continue;
        if (state.deadline <= now_) {
            finish_post(state, Status::TimedOut);
        } else {
            earliest_ = std::min(earliest_, state.deadline);
        }
    }
    std::vector<PeerId> late;
    peers_.for_each([&](Peer& peer) {
        if (peer.up || peer.down) return;
        const Instant limit = peer.since + 2 * context_.options.connect_timeout;
        if (limit <= now_) {
            late.push_back(peers_.handle_of(peer));
        } else {
            earliest_ = std::min(earliest_, limit);
        }
    });
    for (const PeerId id : late) take_down(*peers_.get(id), Status::TimedOut, ETIMEDOUT);
}

std::size_t LaneTransport::poll(Instant now, std::span<Completion> out) {
    now_ = now;
    senders_.poll();
    if (!kept_jobs_.empty()) give_kept();
    expire();
    settle();
    const std::size_t count = std::min(out.size(), ready_.size() - ready_taken_);
    std::copy_n(ready_.begin() + static_cast<std::ptrdiff_t>(ready_taken_), count, out.begin());
    ready_taken_ += count;
    if (ready_taken_ == ready_.size()) {
        ready_.clear();
        ready_taken_ = 0;
    }
    return count;
}

Instant LaneTransport::next_deadline() const {
    if (settling_ || !kept_jobs_.empty() || ready_taken_ < ready_.size()) return now_;
    return earliest_;
}

TransportCounters LaneTransport::counters() const {
    TransportCounters sum = totals_;
    for (const LaneRecord& record : lanes_) {
        const LaneCounters& lane = record.lane->counters;
        sum.bytes_sent += lane.bytes_sent.value();
        sum.bytes_landed += lane.bytes_landed.value();
        sum.bytes_dropped += lane.bytes_dropped.value();
        sum.frames_sent += lane.frames_sent.value();
        sum.frames_landed += lane.frames_landed.value();
        sum.pieces_sent += lane.pieces_sent.value();
        sum.checksum_errors += lane.checksum_errors.value();
        sum.tokens_refused += lane.tokens_refused.value();
        sum.violations += lane.violations.value();
        sum.stale_reads += lane.stale_reads.value();
    }
    return sum;
}

}  // namespace sluice::transport
