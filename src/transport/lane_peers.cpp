// SPDX-License-Identifier: Apache-2.0
// Peers: their lanes, how they go down.
#include <unistd.h>

#include <algorithm>
#include <thread>

#include "transport/lane_transport.h"

namespace sluice::transport {

void LaneTransport::give(unsigned thread, const LaneJob& job) {
    // Behind what is kept already, so that a lane's jobs stay in order.
    if (!kept_jobs_.empty() || !senders_.give(thread, job)) kept_jobs_.emplace_back(thread, job);
}

void LaneTransport::give_kept() {
    std::size_t given = 0;
    while (given < kept_jobs_.size() &&
           senders_.give(kept_jobs_[given].first, kept_jobs_[given].second))
        ++given;
    kept_jobs_.erase(kept_jobs_.begin(), kept_jobs_.begin() + static_cast<std::ptrdiff_t>(given));
}

Lane& LaneTransport::add_listener(std::unique_ptr<Lane> listener) {
    listeners_.push_back(std::move(listener));
    Lane& lane = *listeners_.back();
    LaneJob job{};
    job.kind = JobKind::Adopt;
    job.lane = &lane;
    give(lane.thread, job);
    return lane;
}

LaneTransport::Peer* LaneTransport::add_peer(bool connecting, std::uint16_t lanes_wanted) {
    Peer* peer = peers_.emplace();
    if (peer == nullptr) return nullptr;
    peer->connecting = connecting;
    peer->lanes_wanted = lanes_wanted;
    peer->since = connecting ? MonotonicClock::now() : now_;
    earliest_ = std::min(earliest_, peer->since + 2 * context_.options.connect_timeout);
    return peer;
}

std::uint16_t LaneTransport::lanes_asked() const {
    const unsigned asked =
        context_.options.lanes_per_peer == 0 ? senders_.size() : context_.options.lanes_per_peer;
    return static_cast<std::uint16_t>(std::clamp(asked, 1u, kLanesPerPeerMax));
}

void LaneTransport::count_connect(const Endpoint& endpoint) {
    ++totals_.connects;
    if (std::find(connected_before_.begin(), connected_before_.end(), endpoint) !=
        connected_before_.end()) {
        ++totals_.reconnects;
    } else if (connected_before_.size() < kPeersMax) {
        connected_before_.push_back(endpoint);
    }
}

PeerLane& LaneTransport::add_lane(std::unique_ptr<PeerLane> made, PeerId id, LaneUse use) {
    PeerLane& lane = *made;
    lane.thread = next_thread_++ % senders_.size();
    lanes_.push_back({std::move(made), PeerId()});
    if (Peer* peer = peers_.get(id)) assign_lane(lanes_.back(), *peer, use);
    LaneJob job{};
    job.kind = JobKind::Adopt;
    job.lane = &lane;
    give(lane.thread, job);
    return lane;
}

void LaneTransport::assign_lane(LaneRecord& record, Peer& peer, LaneUse use) {
    record.peer = peers_.handle_of(peer);
    (use == LaneUse::Posts ? peer.lanes : peer.others).push_back(record.lane.get());
}

void LaneTransport::say_up(Peer& peer) {
    peer.up = true;
    Completion up{};
    up.event = Event::PeerUp;
    up.peer = peers_.handle_of(peer);
    up.peer_node = peer.node;
    complete(up);
}

LaneTransport::LaneRecord* LaneTransport::record_of(const Lane& lane) {
    const auto found = std::find_if(lanes_.begin(), lanes_.end(),
                                    [&](const LaneRecord& r) { return r.lane.get() == &lane; });
    return found == lanes_.end() ? nullptr : &*found;
}

void LaneTransport::on_event(const LaneEvent& event) {
    switch (event.kind) {
        case EventKind::Accepted: {
            const int fd = static_cast<int>(event.user);
            if (shut_down_ || lanes_.size() >= kLanesMax) {
                ::close(fd);
                return;
            }
            return on_accepted(*event.lane, fd);
        }
        case EventKind::Up: {
            LaneRecord* record = record_of(*event.lane);
            if (!record->closing) on_up(*record->lane, *record);
            return;
        }
        case EventKind::Down:
            return on_down(static_cast<PeerLane&>(*event.lane), event.status, event.os);
        case EventKind::Gone:
            for (const auto& listener : listeners_)
                if (event.lane == listener.get()) {
                    ++listeners_gone_;
                    return;
                }
            return on_gone(static_cast<PeerLane&>(*event.lane));
        case EventKind::PartDone:
            return on_part_done(*event.post, event.status);
        case EventKind::LandingDone:
            return on_landing_done(event.ticket, event.status);
        case EventKind::Echo:
            return;
    }
}

void LaneTransport::on_down(PeerLane& lane, Status status, int os) {
    LaneRecord* record = record_of(lane);
    if (record->closing) return;
    Peer* peer = peers_.get(record->peer);
    if (peer == nullptr) return close_lane(lane, true);
    if (!peer->down) take_down(*peer, status, os);
}

void LaneTransport::take_down(Peer& peer, Status status, int os) {
    const PeerId id = peers_.handle_of(peer);
    peer.down = true;
    ++totals_.peers_lost;
    if (!peer.closing && (peer.up || peer.connecting)) {
        Completion down{};
        down.event = Event::PeerDown;
        down.status = status;
        down.error = os != 0 ? Error{Errc::System, os} : Error{Errc::ConnectionClosed};
        down.peer = id;
        down.peer_node = peer.node;
        complete(down);
    }
    const Status why = peer.closing ? Status::Revoked : Status::PeerLost;
    // Posts first: their lanes must still be there for the jobs that take them back.
    for (const std::uint32_t slot : live_posts_)
        if (posts_[slot]->peer == id && posts_[slot]->phase == Phase::Open)
            finish_post(*posts_[slot], why);
    for (PeerLane* lane : peer.lanes) close_lane(*lane, true);
    for (PeerLane* lane : peer.others) close_lane(*lane, true);
    for (const std::uint32_t slot : live_landings_)
        if (landings_[slot].peer == id && landings_[slot].phase == Phase::Open)
            close_landing(slot, why);
    erase_if_gone(peer);
}

void LaneTransport::erase_if_gone(Peer& peer) {
    if (!peer.down || !peer.lanes.empty() || !peer.others.empty()) return;
    peers_.erase(peer);
}

void LaneTransport::close_lane(PeerLane& lane, bool reset) {
    LaneRecord* record = record_of(lane);
    if (record->closing) return;
    record->closing = true;
    LaneJob job{};
    job.kind = JobKind::Close;
    job.lane = &lane;
    job.reset = reset;
    give(lane.thread, job);
}

void LaneTransport::give_lane(PeerLane& lane, JobKind kind) {
    LaneJob job{};
    job.kind = kind;
    job.lane = &lane;
    give(lane.thread, job);
}

void LaneTransport::close(PeerId id) {
    Peer* peer = peers_.get(id);
    if (peer == nullptr || peer->down) return;
    peer->closing = true;
    take_down(*peer, Status::Revoked, 0);
    --totals_.peers_lost;
    settle();
}

void LaneTransport::on_gone(PeerLane& lane) {
    LaneRecord* record = record_of(lane);
    if (Peer* peer = peers_.get(record->peer)) {
        std::erase(peer->lanes, &lane);
        std::erase(peer->others, &lane);
        erase_if_gone(*peer);
    }
    const LaneCounters& its = lane.counters;
    totals_.bytes_sent += its.bytes_sent.value();
    totals_.bytes_landed += its.bytes_landed.value();
    totals_.bytes_dropped += its.bytes_dropped.value();
    totals_.frames_sent += its.frames_sent.value();
    totals_.frames_landed += its.frames_landed.value();
    totals_.pieces_sent += its.pieces_sent.value();
    totals_.checksum_errors += its.checksum_errors.value();
    totals_.tokens_refused += its.tokens_refused.value();
    totals_.violations += its.violations.value();
    totals_.stale_reads += its.stale_reads.value();
    std::swap(*record, lanes_.back());
    lanes_.pop_back();
}

void LaneTransport::shut_down() {
    if (shut_down_) return;
    shut_down_ = true;
    std::vector<PeerId> all;
    peers_.for_each([&](Peer& peer) { all.push_back(peers_.handle_of(peer)); });
    for (const PeerId id : all) close(id);
    for (std::size_t i = 0; i < lanes_.size(); ++i) close_lane(*lanes_[i].lane, true);
    for (const auto& listener : listeners_) {
        LaneJob job{};
        job.kind = JobKind::Close;
        job.lane = listener.get();
        give(listener->thread, job);
    }
    // Sender threads never block, so each answers its last jobs.
    std::array<Completion, 16> nobody_asks;
    while (!lanes_.empty() || listeners_gone_ < listeners_.size()) {
        if (poll(MonotonicClock::now(), nobody_asks) == 0)
            std::this_thread::sleep_for(std::chrono::microseconds(50));
    }
}

}  // namespace sluice::transport
