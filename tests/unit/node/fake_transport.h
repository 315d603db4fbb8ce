// SPDX-License-Identifier: Apache-2.0
// A transport on the simulated clock, for tests of the node's own logic: ranges are copied one by
// one, each after a delay, and only into a landing that is open. The real transports have their own
// contract tests.
#pragma once

#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "io/sim/sim_world.h"
#include "transport/transport.h"

namespace sluice::node::test {

class FakeTransport;
using FakeFabric = std::map<std::string, FakeTransport*>;  // by endpoint

class FakeTransport final : public transport::Transport {
public:
    using Completion = transport::Completion;

    FakeTransport(io::sim::SimWorld& world, FakeFabric& fabric, std::string endpoint,
                  std::uint64_t node)
        : world_(world), fabric_(fabric), endpoint_(std::move(endpoint)), node_(node) {
        fabric_[endpoint_] = this;
    }
    ~FakeTransport() override { fabric_.erase(endpoint_); }

    // Where completions go, from outside of every turn.
    std::function<void(const Completion&)> deliver;
    Duration range_delay = std::chrono::microseconds(100);
    std::uint32_t posts_max = 100;
    bool stopped = false;  // its process stands still: sends nothing, says nothing

    const transport::Capabilities& capabilities() const override {
        static const transport::Capabilities kCan{.name = "fake", .fenced = true, .token = true};
        return kCan;
    }
    Result<transport::RegionId> register_memory(const transport::Region& region) override {
        regions_.push_back(region);
        return static_cast<transport::RegionId>(regions_.size() - 1);
    }
    Result<void> deregister_memory(transport::RegionId) override { return {}; }
    Result<transport::Endpoint> listen(const transport::Endpoint&) override { return endpoint_; }

    Result<transport::PeerId> connect(const transport::Endpoint& endpoint) override {
        const transport::PeerId id{next_peer_++, 1};
        later(std::chrono::milliseconds(1), [this, id, endpoint] {
            const auto found = fabric_.find(endpoint);
            Completion completion;
            completion.peer = id;
            if (found == fabric_.end() || found->second->stopped) {
                completion.event = transport::Event::PeerDown;
                completion.status = transport::Status::PeerLost;
                return give(completion);
            }
            FakeTransport& other = *found->second;
            const transport::PeerId theirs{other.next_peer_++, 1};
            peers_[id.index] = {&other, other.node_};
            other.peers_[theirs.index] = {this, node_};
            completion.event = transport::Event::PeerUp;
            completion.peer_node = other.node_;
            give(completion);
            completion.peer = theirs;
            completion.peer_node = node_;
            other.give(completion);
        });
        return id;
    }
    void close(transport::PeerId peer) override { peers_.erase(peer.index); }

    Result<transport::Ticket> open(transport::PeerId, const transport::Batch& batch,
                                   const transport::LandingOptions& options) override {
        const std::uint64_t epoch = next_epoch_++;
        Landing& made = landings_[epoch];
        made.ranges.assign(batch.ranges.begin(), batch.ranges.end());
        made.blocks.assign(batch.blocks.begin(), batch.blocks.end());
        made.landed.resize(made.ranges.size(), false);
        made.user = options.user;
        made.open = true;
        return transport::Ticket{0, epoch};
    }
    bool revoke(const transport::Ticket& ticket) override {
        finish(ticket.epoch, transport::Status::Revoked);
        return true;
    }
    std::span<const std::uint64_t> landed_units(const transport::Ticket&) const override {
        return {};
    }
    bool block_landed(const transport::Ticket& ticket, std::uint32_t block) const override {
        const Landing& landing = landings_.at(ticket.epoch);
        for (std::size_t i = 0; i < landing.ranges.size(); ++i) {
            const transport::Range& range = landing.ranges[i];
            if (block - range.first_block < range.block_count && !landing.landed[i]) return false;
        }
        return true;
    }
    void release(const transport::Ticket& ticket) override { landings_.erase(ticket.epoch); }
    std::size_t landings() const { return landings_.size(); }
    std::size_t posts() const { return posts_.size(); }

    Result<transport::PostId> post(transport::PeerId peer, const transport::Ticket& ticket,
                                   const transport::Batch& batch,
                                   const transport::PostOptions& options) override {
        if (posts_.size() >= posts_max) return fail(Errc::LimitReached);
        const auto found = peers_.find(peer.index);
        if (found == peers_.end()) return fail(Errc::ConnectionClosed);
        const std::uint32_t id = next_post_++;
        Post& made = posts_[id];
        made.ranges.assign(batch.ranges.begin(), batch.ranges.end());
        made.blocks.assign(batch.blocks.begin(), batch.blocks.end());
        made.first = options.first_range;
        made.user = options.user;
        made.to = found->second.first;
        made.to_node = found->second.second;
        made.epoch = ticket.epoch;
        later(range_delay, [this, id] { step(id); });
        return transport::PostId{id, 1};
    }
    bool revoke(transport::PostId post) override {
        end_post(post.index, transport::Status::Revoked);
        return true;
    }
    std::size_t poll(Instant, std::span<Completion>) override { return 0; }
    Instant next_deadline() const override { return kNever; }
    transport::TransportCounters counters() const override { return {}; }

private:
    struct Landing {
        std::vector<transport::Range> ranges;
        std::vector<std::uint32_t> blocks;
        std::vector<bool> landed;
        std::uint64_t user = 0;
        bool open = false;
    };
    struct Post {
        std::vector<transport::Range> ranges;
        std::vector<std::uint32_t> blocks;
        std::uint32_t first = 0, next = 0;
        std::uint64_t user = 0;
        FakeTransport* to = nullptr;
        std::uint64_t to_node = 0;
        std::uint64_t epoch = 0;
    };

    // Not if it has been destroyed meanwhile.
    void later(Duration wait, std::function<void()> what) {
        world_.after(wait, [alive = std::weak_ptr<int>(alive_), what = std::move(what)] {
            if (!alive.expired()) what();
        });
    }
    void give(const Completion& completion) {
        if (deliver) deliver(completion);
    }
    FakeTransport* reachable(const Post& post) {
        for (const auto& [name, each] : fabric_)
            if (each == post.to && each->node_ == post.to_node && !each->stopped) return each;
        return nullptr;
    }

    void step(std::uint32_t id) {
        const auto found = posts_.find(id);
        if (found == posts_.end()) return;
        Post& post = found->second;
        FakeTransport* to = reachable(post);
        if (to == nullptr || stopped)
            return later(std::chrono::seconds(1), [this, id] {
                const auto again = posts_.find(id);
                if (again == posts_.end()) return;
                if (reachable(again->second) == nullptr)
                    return end_post(id, transport::Status::PeerLost);
                step(id);
            });
        const auto landing = to->landings_.find(post.epoch);
        if (landing == to->landings_.end() || !landing->second.open)
            return end_post(id, transport::Status::PeerRevoked);
        if (post.next < post.ranges.size()) {
            const std::uint32_t target = post.first + post.next;
            if (target >= landing->second.ranges.size()) std::abort();
            copy(post.ranges[post.next], post.blocks, *this, landing->second.ranges[target],
                 landing->second.blocks, *to);
            landing->second.landed[target] = true;
            ++post.next;
        }
        if (post.next < post.ranges.size()) return later(range_delay, [this, id] { step(id); });
        bool all = true;
        for (const bool landed : landing->second.landed) all &= landed;
        const std::uint64_t epoch = post.epoch;
        end_post(id, transport::Status::Delivered);
        if (all) to->finish(epoch, transport::Status::Landed);
    }

    static std::vector<std::byte*> bytes_of(const transport::Range& range,
                                            const std::vector<std::uint32_t>& blocks,
                                            FakeTransport& side) {
        std::vector<std::byte*> bytes;
        for (std::uint32_t b = 0; b < range.block_count; ++b)
            for (std::uint32_t o = 0; o < range.outer.count; ++o)
                for (std::uint32_t i = 0; i < range.inner.count; ++i)
                    for (std::uint32_t k = 0; k < range.piece_bytes; ++k)
                        bytes.push_back(side.regions_[range.region].base + range.offset +
                                        blocks[range.first_block + b] * range.block_stride +
                                        o * range.outer.stride + i * range.inner.stride + k);
        return bytes;
    }
    static void copy(const transport::Range& from, const std::vector<std::uint32_t>& from_blocks,
                     FakeTransport& from_side, const transport::Range& to,
                     const std::vector<std::uint32_t>& to_blocks, FakeTransport& to_side) {
        const auto src = bytes_of(from, from_blocks, from_side);
        const auto dst = bytes_of(to, to_blocks, to_side);
        if (src.size() != dst.size()) std::abort();
        for (std::size_t i = 0; i < src.size(); ++i) *dst[i] = *src[i];
    }

    void finish(std::uint64_t epoch, transport::Status status) {
        const auto found = landings_.find(epoch);
        if (found == landings_.end() || !found->second.open) return;
        found->second.open = false;
        Completion completion;
        completion.event = transport::Event::Landing;
        completion.status = status;
        completion.user = found->second.user;
        completion.ticket = {0, epoch};
        later(std::chrono::microseconds(1), [this, completion] { give(completion); });
    }
    void end_post(std::uint32_t id, transport::Status status) {
        const auto found = posts_.find(id);
        if (found == posts_.end()) return;
        Completion completion;
        completion.event = transport::Event::Post;
        completion.status = status;
        completion.user = found->second.user;
        completion.post = {id, 1};
        posts_.erase(found);
        later(std::chrono::microseconds(1), [this, completion] { give(completion); });
    }

    io::sim::SimWorld& world_;
    FakeFabric& fabric_;
    std::string endpoint_;
    std::uint64_t node_;
    std::shared_ptr<int> alive_ = std::make_shared<int>(0);
    std::vector<transport::Region> regions_;
    std::map<std::uint32_t, std::pair<FakeTransport*, std::uint64_t>> peers_;
    std::map<std::uint64_t, Landing> landings_;
    std::map<std::uint32_t, Post> posts_;
    std::uint32_t next_peer_ = 1, next_post_ = 1;
    std::uint64_t next_epoch_ = 1;
};

}  // namespace sluice::node::test
