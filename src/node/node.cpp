// SPDX-License-Identifier: Apache-2.0
#include "node/node.h"

#include <algorithm>
#include <cstdio>

#include "base/cpu.h"

namespace sluice::node {

using kv::Code;
using kv::Status;

std::string machine_name() {
    char text[64] = {};
    if (std::FILE* file = std::fopen("/proc/sys/kernel/random/boot_id", "r")) {
        if (std::fgets(text, sizeof text, file) == nullptr) text[0] = '\0';
        std::fclose(file);
    }
    std::string name(text);
    while (!name.empty() && name.back() == '\n') name.pop_back();
    return name;
}

Node::Node(io::Loop& loop, NodeOptions options, NodeEvents& events)
    : loop_(loop),
      options_(std::move(options)),
      events_(events),
      purge_(Delegate<void()>::to<&Node::purge>(*this)) {
    if (options_.node == 0) options_.node = random_seed() | 1;
    if (options_.host.empty()) options_.host = machine_name();
}

Node::~Node() { ASSERT(links_.empty() && listener_ == io::kNoSocket); }

void Node::add_transport(TransportSlot slot) {
    ASSERT(slots_.size() < kTransportsMax && pool_ == nullptr);
    slots_.push_back(std::move(slot));
}

Status Node::start(std::span<const kv::Region> regions, const io::Address& control) {
    if (options_.engine_id.size() > kv::limits::kEngineIdBytesMax)
        return {Code::BadOptions, "the engine id is longer than 256 bytes"};
    auto shape = kv::shape_of(regions, options_.rank, options_.kv_heads);
    if (!shape) return shape.error();
    hello_.token = options_.token;
    hello_.node = options_.node;
    hello_.role = options_.role;
    hello_.engine_id = options_.engine_id;
    hello_.host = options_.host;
    hello_.shape = std::move(*shape);
    for (TransportSlot& slot : slots_) {
        for (const kv::Region& region : regions) {
            if (slot.transport == nullptr) break;
            const auto& can = slot.transport->capabilities();
            if (can.needs_shared_fd && region.memory_fd < 0)
                slot.missing =
                    "region \"" + region.layer_name + "\" is private memory, not a memfd";
            if (region.memory == kv::MemoryKind::Device && !can.device_memory)
                slot.missing = "region \"" + region.layer_name + "\" is device memory";
            if (!slot.missing.empty()) break;
            const auto id = slot.transport->register_memory(
                {static_cast<std::byte*>(region.base), region.bytes,
                 region.memory == kv::MemoryKind::Host ? transport::MemoryKind::Host
                                                       : transport::MemoryKind::Device,
                 region.memory_fd, region.memory_fd_offset});
            if (!id) {
                slot.missing = "region \"" + region.layer_name +
                               "\" cannot be registered: " + describe(id.error());
                break;
            }
            slot.regions.push_back(*id);
        }
        if (!slot.missing.empty()) slot.endpoint.clear();
        hello_.offers.push_back({slot.name, slot.endpoint, slot.missing});
    }
    const auto socket = loop_.io().listen(control, false);
    if (!socket)
        return {Code::System,
                "cannot listen on " + control.text() + ": " + describe(socket.error())};
    const auto bound = loop_.io().local_address(*socket);
    if (!bound) {
        loop_.io().close(*socket, false);
        return {Code::System,
                "cannot listen on " + control.text() + ": " + describe(bound.error())};
    }
    address_ = *bound;
    listener_ = *socket;
    pool_ = std::make_unique<kv::Pool>(hello_.shape);
    Hub& hub = *this;
    Links& links = *this;
    producer_ = std::make_unique<Producer>(hub, *pool_, events_);
    consumer_ = std::make_unique<Consumer>(hub, links, *pool_, events_);
    accept_ = loop_.io().accept(listener_, *this);
    return {};
}

// -- the engine's side

Status Node::publish(const std::string& transfer, kv::BlocksByGroup blocks,
                     std::uint32_t layers_end) {
    if (stopping_ || !producer_) return {Code::Closed, "the node is not running"};
    if (options_.role == kv::Role::Consumer)
        return {Code::BadRole, "a kv_consumer publishes nothing"};
    return producer_->publish(transfer, std::move(blocks), layers_end);
}

Status Node::more_layers(const std::string& transfer, std::uint32_t layers_end) {
    if (stopping_ || !producer_) return {Code::Closed, "the node is not running"};
    return producer_->more_layers(transfer, layers_end);
}

void Node::release(const std::string& transfer) {
    if (producer_) producer_->release(transfer);
}

kv::Outcome<PullId> Node::pull(PullRequest request) {
    if (stopping_ || !consumer_) return kv::refuse(Code::Closed, "the node is not running");
    if (options_.role == kv::Role::Producer)
        return kv::refuse(Code::BadRole, "a kv_producer pulls nothing");
    return consumer_->pull(std::move(request));
}

void Node::abort(PullId pull) {
    if (consumer_) consumer_->abort(pull);
}

// -- links

Link* Node::make_link() {
    if (links_.size() >= options_.peers_max || stopping_) {
        metrics_.peers_refused.add();
        return nullptr;
    }
    auto link = std::make_unique<Link>(loop_, static_cast<LinkEvents&>(*this), options_.link);
    link->number = next_link_++;
    Link* made = link.get();
    links_.emplace(made->number, std::move(link));
    metrics_.peers.set(links_.size());
    return made;
}

Link* Node::link_to(const io::Address& address) {
    const std::string name = address.text();
    if (const auto found = by_address_.find(name); found != by_address_.end()) return found->second;
    Link* link = make_link();
    if (link == nullptr) return nullptr;
    by_address_.emplace(name, link);
    if (last_node_.contains(name)) metrics_.reconnects.add();
    link->connect(address);
    return link;
}

void Node::on_completion(io::Completion& completion) {
    if (!completion.more) accept_ = {};
    if (completion.result >= 0) {
        Link* link = stopping_ ? nullptr : make_link();
        if (link != nullptr)
            link->open(completion.result);
        else
            loop_.io().close(completion.result, true);  // too many peers: it sees a reset
    }
    if (accept_.valid() || listener_ == io::kNoSocket) return;
    if (stopping_) {
        loop_.io().close(std::exchange(listener_, io::kNoSocket), false);
        return;
    }
    accept_ = loop_.io().accept(listener_, *this);
}

Status Node::judge(Link& link, const kv::Hello& peer) {
    if (peer.version != kv::kProtocolVersion) {
        metrics_.wrong_versions.add();
        return {};  // the link says it
    }
    if (!kv::same_token(peer.token, hello_.token)) {
        metrics_.wrong_tokens.add();
        return {};
    }
    if (peer.probe) return {};
    // Who connects consumes, who is connected to produces.
    const bool ours = link.address().valid();
    const kv::Shape& producer = ours ? peer.shape : hello_.shape;
    const kv::Shape& consumer = ours ? hello_.shape : peer.shape;
    const auto route = kv::make_route(producer, consumer);
    if (!route) {
        metrics_.wrong_shapes.add();
        return route.error();
    }
    if (!ours) return {};
    std::uint64_t& last = last_node_[link.address().text()];
    if (last != 0 && last != peer.node) metrics_.restarts_seen.add();
    last = peer.node;
    if (last_node_.size() > 4 * options_.peers_max) last_node_.erase(last_node_.begin());
    return {};
}

void Node::on_link_up(Link& link) { consumer_->on_link_up(link); }

void Node::on_link_message(Link& link, kv::Message& message) {
    if (auto* pull = std::get_if<kv::Pull>(&message)) {
        if (options_.role == kv::Role::Consumer) {
            (void)link.send(kv::Failed{pull->pull, {Code::BadRole, "this node is a kv_consumer"}});
            return;
        }
        return producer_->on_pull(link, *pull);
    }
    if (const auto* landed = std::get_if<kv::Landed>(&message))
        return producer_->on_landed(link, *landed);
    if (const auto* abort = std::get_if<kv::Abort>(&message))
        return producer_->on_abort(link, *abort);
    if (const auto* known = std::get_if<kv::Known>(&message))
        return consumer_->on_known(link, *known);
    if (const auto* failed = std::get_if<kv::Failed>(&message))
        return consumer_->on_failed(link, *failed);
    if (const auto* ack = std::get_if<kv::RevokeAck>(&message))
        return consumer_->on_revoke_ack(link, *ack);
}

void Node::on_link_lost(Link& link, const Status& status) {
    if (!stopping_) metrics_.peers_lost.add();
    if (link.address().valid()) {
        const auto found = by_address_.find(link.address().text());
        if (found != by_address_.end() && found->second == &link) by_address_.erase(found);
    }
    if (producer_) producer_->on_link_lost(link);
    if (consumer_) consumer_->on_link_lost(link, status);
}

void Node::on_link_closed(Link& link) {
    const auto found = links_.find(link.number);
    ASSERT(found != links_.end());
    closed_.push_back(std::move(found->second));  // it is still on the stack
    links_.erase(found);
    metrics_.peers.set(links_.size());
    loop_.defer(purge_);
}

void Node::purge() { closed_.clear(); }

// -- data connections

std::optional<transport::PeerId> Node::data_peer(std::size_t slot, std::uint64_t node) {
    const auto found = data_.find({slot, node});
    if (found == data_.end()) return std::nullopt;
    return found->second;
}

std::optional<std::size_t> Node::choose(const kv::Hello& peer) {
    for (std::size_t i = 0; i < slots_.size(); ++i) {
        if (slots_[i].transport == nullptr || !slots_[i].missing.empty()) continue;
        if (slots_[i].transport->capabilities().same_host_only && peer.host != hello_.host)
            continue;
        const auto offer = std::ranges::find(peer.offers, slots_[i].name, &kv::Offer::transport);
        if (offer != peer.offers.end() && !offer->endpoint.empty()) return i;
    }
    return std::nullopt;
}

Status Node::connect_data(std::size_t slot, Link& link) {
    const DataKey key{slot, link.peer().node};
    if (connecting_.contains(key)) return {};
    const auto offer =
        std::ranges::find(link.peer().offers, slots_[slot].name, &kv::Offer::transport);
    const auto peer = slots_[slot].transport->connect(offer->endpoint);
    if (!peer)
        return {Code::PeerLost, "cannot connect to " + offer->endpoint + " over " +
                                    slots_[slot].name + ": " + describe(peer.error())};
    connecting_.emplace(key, *peer);
    return {};
}

void Node::on_peer_up(std::size_t slot, const transport::Completion& completion) {
    const DataKey key{slot, completion.peer_node};
    std::erase_if(connecting_, [&](const auto& each) {
        return each.first.first == slot && each.second == completion.peer;
    });
    data_[key] = completion.peer;
    consumer_->on_peer_up(slot, completion.peer_node);
    producer_->on_peer_up(slot, completion.peer_node);
}

void Node::on_peer_down(std::size_t slot, const transport::Completion& completion) {
    const auto drop = [&](std::map<DataKey, transport::PeerId>& from) -> std::uint64_t {
        for (auto it = from.begin(); it != from.end(); ++it)
            if (it->first.first == slot && it->second == completion.peer) {
                const std::uint64_t node = it->first.second;
                from.erase(it);
                return node;
            }
        return 0;
    };
    const std::uint64_t connecting = drop(connecting_);
    const std::uint64_t node = connecting != 0 ? connecting : drop(data_);
    if (node == 0) return;
    consumer_->on_peer_down(slot, node, status_of(completion.status));
}

void Node::on_completion(std::size_t slot, const transport::Completion& completion) {
    if (!consumer_) return;
    switch (completion.event) {
        case transport::Event::PeerUp:
            return on_peer_up(slot, completion);
        case transport::Event::PeerDown:
            return on_peer_down(slot, completion);
        case transport::Event::Landing:
            return consumer_->on_landing(slot, completion);
        case transport::Event::Post:
            return producer_->on_post(slot, completion);
    }
}

// -- the end

void Node::stop() {
    if (stopping_) return;
    stopping_ = true;
    const Status status{Code::Closed, "the node is shutting down"};
    if (consumer_) consumer_->fail_all(status);
    std::vector<Link*> open;
    for (const auto& [number, link] : links_) open.push_back(link.get());
    for (Link* link : open) link->close(status);
    for (const auto& [key, peer] : connecting_) slots_[key.first].transport->close(peer);
    for (const auto& [key, peer] : data_) slots_[key.first].transport->close(peer);
    connecting_.clear();
    data_.clear();
    if (listener_ == io::kNoSocket) return;
    if (accept_.valid())
        loop_.io().cancel(accept_);
    else
        loop_.io().close(std::exchange(listener_, io::kNoSocket), false);
}

bool Node::finished() const {
    return links_.empty() && listener_ == io::kNoSocket && (!consumer_ || consumer_->live() == 0) &&
           (!producer_ || producer_->legs() == 0);
}

}  // namespace sluice::node
