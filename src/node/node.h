// SPDX-License-Identifier: Apache-2.0
// A KV node: one rank's registered memory, its control connections, and what moves between it and
// its peers. Producer and consumer in one; the role says which half is open.
//
//   Node node(loop, options, events);
//   node.add_transport({"tcp", &tcp, endpoint});      the transports, best first
//   TRY(node.start(regions, control_address));
//   node.publish("id", blocks);                       a producer
//   node.pull({...});                                 a consumer; events.on_pull_ended() follows
//   node.stop(); run the loop until node.finished()
//
// Completions of the transports are handed in through on_completion() by whoever polls them
// (data_plane.h). Threads: one, the loop's. Owns: links, leases, pulls; the regions' memory and the
// transports are the caller's and outlive it. Costs: control plane; a transfer is two or three
// small messages. Errors: Status values and results.
#pragma once

#include <map>
#include <memory>
#include <span>

#include "base/slab.h"
#include "node/consumer.h"
#include "node/producer.h"

namespace sluice::node {

class NodeEvents : public ProducerEvents, public ConsumerEvents {
protected:
    ~NodeEvents() = default;
};

class Node final : private Hub, private Links, private LinkEvents, private io::OpTarget {
public:
    Node(io::Loop& loop, NodeOptions options, NodeEvents& events);
    ~Node();

    // -- before start(), in order of preference
    void add_transport(TransportSlot slot);

    // Checks the regions, registers them with every transport, and listens for control connections.
    kv::Status start(std::span<const kv::Region> regions, const io::Address& control);
    const io::Address& address() const { return address_; }
    const kv::Hello& hello() const { return hello_; }

    // -- a producer
    kv::Status publish(const std::string& transfer, kv::BlocksByGroup blocks,
                       std::uint32_t layers_end = UINT32_MAX);
    kv::Status more_layers(const std::string& transfer, std::uint32_t layers_end);
    void release(const std::string& transfer);

    // -- a consumer
    kv::Outcome<PullId> pull(PullRequest request);
    void abort(PullId pull);

    // -- from who polls the transports
    void on_completion(std::size_t slot, const transport::Completion& completion);

    NodeMetrics& metrics() override { return metrics_; }
    std::size_t slots() const override { return slots_.size(); }
    TransportSlot& slot(std::size_t index) override { return slots_[index]; }
    std::size_t live_pulls() const { return consumer_ ? consumer_->live() : 0; }
    std::size_t live_leases() const { return producer_ ? producer_->leases().live() : 0; }
    std::size_t links() const { return links_.size(); }
    const kv::Pool& pool() const { return *pool_; }

    // Ends every pull (Closed), fenced, and every link.
    void stop();
    bool finished() const;

private:
    io::Loop& loop() override { return loop_; }
    const NodeOptions& options() const override { return options_; }
    const kv::Shape& shape() const override { return hello_.shape; }
    std::optional<transport::PeerId> data_peer(std::size_t slot, std::uint64_t node) override;

    Link* link_to(const io::Address& address) override;
    kv::Status connect_data(std::size_t slot, Link& link) override;
    std::optional<std::size_t> choose(const kv::Hello& peer) override;

    const kv::Hello& own_hello() const override { return hello_; }
    kv::Status judge(Link& link, const kv::Hello& peer) override;
    void on_link_up(Link& link) override;
    void on_link_message(Link& link, kv::Message& message) override;
    void on_link_lost(Link& link, const kv::Status& status) override;
    void on_link_closed(Link& link) override;

    void on_completion(io::Completion& completion) override;  // of accept
    void on_peer_up(std::size_t slot, const transport::Completion& completion);
    void on_peer_down(std::size_t slot, const transport::Completion& completion);
    void purge();
    Link* make_link();

    using DataKey = std::pair<std::size_t, std::uint64_t>;  // slot, peer's node number

    io::Loop& loop_;
    NodeOptions options_;
    NodeEvents& events_;
    kv::Hello hello_;
    std::vector<TransportSlot> slots_;
    NodeMetrics metrics_;
    std::unique_ptr<kv::Pool> pool_;
    std::unique_ptr<Producer> producer_;
    std::unique_ptr<Consumer> consumer_;

    io::Socket listener_ = io::kNoSocket;
    io::OpId accept_;
    io::Address address_;
    std::map<std::uint64_t, std::unique_ptr<Link>> links_;  // by number
    std::map<std::string, Link*> by_address_;               // those that we made, while they live
    std::map<std::string, std::uint64_t> last_node_;        // who answered at an address
    std::vector<std::unique_ptr<Link>> closed_;
    std::map<DataKey, transport::PeerId> data_;
    std::map<DataKey, transport::PeerId> connecting_;
    std::uint64_t next_link_ = 1;
    io::Deferred purge_;
    bool stopping_ = false;
};

// The same for all processes of this machine and no other: its boot id.
std::string machine_name();

}  // namespace sluice::node
