// SPDX-License-Identifier: Apache-2.0
// KV nodes on simulated hosts, with real memory and a transport on the simulated clock.
#pragma once

#include <gtest/gtest.h>

#include <deque>
#include <memory>

#include "unit/node/fake_transport.h"
#include "node/node.h"
#include "unit/kv/model.h"

namespace sluice::node::test {

using namespace std::chrono_literals;
using kv::Code;
using kv::test::Model;
using kv::test::RankLayout;
using kv::test::RankMemory;

// One node on its own host. It can be taken down as a crash does, and started again.
class Instance final : public NodeEvents {
public:
    Instance(io::sim::SimWorld& in, FakeFabric& fabric, const std::string& called, Model model,
             RankLayout layout)
        : name(called),
          world(in),
          host(in.add_host(called)),
          loop(host.io()),
          memory(model, layout),
          fabric_(fabric) {
        host.attach(loop);
        options.engine_id = called;
        options.rank = layout.rank;
        options.kv_heads = model.kv_heads;
        options.host = called;
    }
    ~Instance() {
        if (node) stop();
        host.detach();
    }

    void start() {
        options.node = ++lives_ * 1000 + static_cast<std::uint64_t>(host.number());
        transport = std::make_unique<FakeTransport>(world, fabric_, "fake:" + name, options.node);
        node = std::make_unique<Node>(loop, options, *this);
        node->add_transport({"fake", transport.get(), "fake:" + name});
        transport->deliver = [this](const transport::Completion& completion) {
            if (node) node->on_completion(0, completion);
        };
        const auto control = io::Address::from_ip("10.1.0." + std::to_string(host.number() + 1),
                                                  lives_ == 1 ? 9000 : address.port());
        const kv::Status status = node->start(memory.regions, *control);
        ASSERT_TRUE(status.ok()) << status.sentence;
        address = node->address();
    }
    void stop() {
        node->stop();
        EXPECT_TRUE(world.run_until([&] { return node->finished(); }));
        world.run_for(1ms);
        EXPECT_EQ(node->pool().claimed(), 0U);
        EXPECT_EQ(transport->landings(), 0U);
        EXPECT_EQ(transport->posts(), 0U);
        node.reset();
        transport.reset();
    }

    void on_lease_ended(const std::string& transfer, const kv::BlocksByGroup&,
                        kv::LeaseEnd end) override {
        leases_ended[transfer] = end;
        ++lease_ends;
    }
    void on_pull_ended(PullId pull, const PullResult& result) override {
        EXPECT_FALSE(ended.contains(pull));
        ended[pull] = result;
        if (when_ended) when_ended(pull, result);
    }

    std::string name;
    io::sim::SimWorld& world;
    io::sim::SimHost& host;
    io::Loop loop;
    RankMemory memory;
    NodeOptions options;
    std::unique_ptr<FakeTransport> transport;
    std::unique_ptr<Node> node;
    io::Address address;
    std::map<std::string, kv::LeaseEnd> leases_ended;
    int lease_ends = 0;
    std::map<PullId, PullResult> ended;
    std::function<void(PullId, const PullResult&)> when_ended;

private:
    FakeFabric& fabric_;
    std::uint64_t lives_ = 0;
};

}  // namespace sluice::node::test
