// SPDX-License-Identifier: Apache-2.0
// Peers: their lanes, how they come up and go down.
#include <unistd.h>

#include <algorithm>
#include <thread>

#include "transport/stream/listen_lane.h"
#include "transport/stream/stream_transport.h"

namespace sluice::transport {
namespace {

constexpr std::size_t kLanesMax = std::size_t{kPeersMax} * 4;  // of all peers, greeting ones too

}  // namespace

std::unique_ptr<StreamLane> StreamTransport::make_lane(const LaneSetup& setup) {
    return std::make_unique<StreamLane>(context_, setup);
}

void StreamTransport::give(unsigned thread, const LaneJob& job) {
    // Behind what is kept already, so that a lane's jobs stay in order.
    if (!kept_jobs_.empty() || !senders_.give(thread, job)) kept_jobs_.emplace_back(thread, job);
}

void StreamTransport::give_kept() {
    std::size_t given = 0;
    while (given < kept_jobs_.size() &&
           senders_.give(kept_jobs_[given].first, kept_jobs_[given].second))
        ++given;
    kept_jobs_.erase(kept_jobs_.begin(), kept_jobs_.begin() + static_cast<std::ptrdiff_t>(given));
}

Result<Endpoint> StreamTransport::listen(const Endpoint& endpoint) {
    if (listener_ != nullptr) return fail(Errc::LimitReached);
    Endpoint announced;
    const auto fd = make_listener(endpoint, announced);
    if (!fd) return std::unexpected(fd.error());
    listener_ = std::make_unique<ListenLane>(*fd, static_cast<EventTarget&>(*this));
    LaneJob job{};
    job.kind = JobKind::Adopt;
    job.lane = listener_.get();
    give(listener_->thread, job);
    return announced;
}

Result<void> StreamTransport::add_lane(const LaneSetup& setup, Peer* peer, PeerId id) {
    LaneRecord record{make_lane(setup), id};
    StreamLane* lane = record.lane.get();
    lane->thread = next_thread_++ % senders_.size();
    if (peer != nullptr) peer->lanes.push_back(lane);
    lanes_.push_back(std::move(record));
    LaneJob job{};
    job.kind = JobKind::Adopt;
    job.lane = lane;
    give(lane->thread, job);
    return {};
}

Result<PeerId> StreamTransport::connect(const Endpoint& endpoint) {
    const unsigned asked =
        context_.options.lanes_per_peer == 0 ? senders_.size() : context_.options.lanes_per_peer;
    const auto count = static_cast<std::uint16_t>(std::clamp(asked, 1u, kLanesPerPeerMax));
    if (lanes_.size() + count > kLanesMax) return fail(Errc::LimitReached);
    std::vector<int> sockets;
    for (unsigned i = 0; i < count; ++i) {
        const auto fd = start_connect(endpoint);
        if (!fd) {
            for (const int made : sockets) ::close(made);
            return std::unexpected(fd.error());
        }
        sockets.push_back(*fd);
    }
    Peer* peer = peers_.emplace();
    if (peer == nullptr) {
        for (const int made : sockets) ::close(made);
        return fail(Errc::LimitReached);
    }
    const PeerId id = peers_.handle_of(*peer);
    peer->connecting = true;
    peer->group = next_group_++;
    peer->lanes_wanted = count;
    peer->since = MonotonicClock::now();
    earliest_ = std::min(earliest_, peer->since + 2 * context_.options.connect_timeout);
    for (std::uint16_t i = 0; i < count; ++i)
        TRY(add_lane({sockets[i], true, i, count, peer->group}, peer, id));
    ++totals_.connects;
    if (std::find(connected_before_.begin(), connected_before_.end(), endpoint) !=
        connected_before_.end()) {
        ++totals_.reconnects;
    } else if (connected_before_.size() < kPeersMax) {
        connected_before_.push_back(endpoint);
    }
    return id;
}

StreamTransport::LaneRecord* StreamTransport::record_of(const Lane& lane) {
    const auto found = std::find_if(lanes_.begin(), lanes_.end(),
                                    [&](const LaneRecord& r) { return r.lane.get() == &lane; });
    return found == lanes_.end() ? nullptr : &*found;
}

void StreamTransport::on_event(const LaneEvent& event) {
    switch (event.kind) {
        case EventKind::Accepted:
            return on_accepted(static_cast<int>(event.user));
        case EventKind::Up:
            return on_up(static_cast<StreamLane&>(*event.lane));
        case EventKind::Down:
            return on_down(static_cast<StreamLane&>(*event.lane), event.status, event.os);
        case EventKind::Gone:
            if (event.lane == listener_.get()) {
                listener_gone_ = true;
                return;
            }
            return on_gone(static_cast<StreamLane&>(*event.lane));
        case EventKind::PartDone:
            return on_part_done(*event.post, event.status);
        case EventKind::LandingDone:
            return on_landing_done(event.ticket, event.status);
        case EventKind::Echo:
            return;
    }
}

void StreamTransport::on_accepted(int fd) {
    if (shut_down_ || lanes_.size() >= kLanesMax) {
        ::close(fd);
        return;
    }
    prepare_accepted(fd);
    LaneSetup setup;
    setup.fd = fd;
    [[maybe_unused]] const auto added = add_lane(setup, nullptr, PeerId());
}

void StreamTransport::on_up(StreamLane& lane) {
    LaneRecord* record = record_of(lane);
    if (record->closing) return;
    Peer* peer = peers_.get(record->peer);
    if (peer == nullptr) {  // accepted: which connect() does it belong to?
        const Hello& hello = lane.peer();
        peers_.for_each([&](Peer& known) {
            if (!known.connecting && !known.down && known.node == hello.node &&
                known.group == hello.group && known.lanes_wanted == hello.lanes && !known.up)
                peer = &known;
        });
        if (peer == nullptr) {
            peer = peers_.emplace();
            if (peer == nullptr) return close_lane(lane, true);
            peer->node = hello.node;
            peer->group = hello.group;
            peer->lanes_wanted = hello.lanes;
            peer->since = now_;
            earliest_ = std::min(earliest_, now_ + 2 * context_.options.connect_timeout);
        }
        record->peer = peers_.handle_of(*peer);
        peer->lanes.push_back(&lane);
    } else {
        peer->node = lane.peer().node;
    }
    if (peer->down || ++peer->lanes_up < peer->lanes_wanted) return;
    peer->up = true;
    Completion up{};
    up.event = Event::PeerUp;
    up.peer = record->peer;
    up.peer_node = peer->node;
    complete(up);
}

void StreamTransport::on_down(StreamLane& lane, Status status, int os) {
    LaneRecord* record = record_of(lane);
    Peer* peer = peers_.get(record->peer);
    if (peer == nullptr) {
        if (!record->closing) close_lane(lane, true);
        return;
    }
    if (!peer->down) take_down(*peer, status, os);
}

void StreamTransport::take_down(Peer& peer, Status status, int os) {
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
    for (StreamLane* lane : peer.lanes) close_lane(*lane, true);
    for (const std::uint32_t slot : live_landings_) {
        LandingState& state = landings_[slot];
        if (state.peer != id || state.phase != Phase::Open) continue;
        state.phase = Phase::Closing;
        state.status = why;
        context_.landings[slot].gate.close();
        settling_ = true;
    }
    if (peer.lanes.empty()) peers_.erase(peer);
}

void StreamTransport::close_lane(StreamLane& lane, bool reset) {
    LaneRecord* record = record_of(lane);
    if (record->closing) return;
    record->closing = true;
    LaneJob job{};
    job.kind = JobKind::Close;
    job.lane = &lane;
    job.reset = reset;
    give(lane.thread, job);
}

void StreamTransport::close(PeerId id) {
    Peer* peer = peers_.get(id);
    if (peer == nullptr || peer->down) return;
    peer->closing = true;
    take_down(*peer, Status::Revoked, 0);
    --totals_.peers_lost;
    settle();
}

void StreamTransport::on_gone(StreamLane& lane) {
    LaneRecord* record = record_of(lane);
    if (Peer* peer = peers_.get(record->peer)) {
        std::erase(peer->lanes, &lane);
        if (peer->lanes.empty()) peers_.erase(*peer);
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

void StreamTransport::shut_down() {
    if (shut_down_) return;
    shut_down_ = true;
    std::vector<PeerId> all;
    peers_.for_each([&](Peer& peer) { all.push_back(peers_.handle_of(peer)); });
    for (const PeerId id : all) close(id);
    for (std::size_t i = 0; i < lanes_.size(); ++i) close_lane(*lanes_[i].lane, true);
    if (listener_ != nullptr) {
        LaneJob job{};
        job.kind = JobKind::Close;
        job.lane = listener_.get();
        give(listener_->thread, job);
    }
    // Sender threads never block, so each answers its last jobs.
    std::array<Completion, 16> nobody_asks;
    while (!lanes_.empty() || (listener_ != nullptr && !listener_gone_)) {
        if (poll(MonotonicClock::now(), nobody_asks) == 0)
            std::this_thread::sleep_for(std::chrono::microseconds(50));
    }
}

}  // namespace sluice::transport
