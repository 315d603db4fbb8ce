// SPDX-License-Identifier: Apache-2.0
// One worker's proxy on the simulated I/O, one pair of scripted instances behind it, and clients
// that send what the test says. When a bench is destroyed nothing may be left of anything.
//
// Threads: one.
#pragma once

#include <gtest/gtest.h>

#include "pd/proxy.h"
#include "support/http_bench.h"
#include "support/raw_http_peer.h"

namespace sluice::test {

inline std::string ok_answer(std::string_view body) {
    return "HTTP/1.1 200 OK\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" +
           std::string(body);
}

class ProxyBench {
public:
    struct Setup {
        io::sim::Faults faults = {};
        std::uint64_t seed = 1;
        std::size_t body_bytes_max = 1 << 20;
        fleet::DialectKind dialect = fleet::DialectKind::Nixl;
    };

    explicit ProxyBench(const Setup& setup)
        : world_({.seed = setup.seed, .faults = setup.faults}),
          engines_(world_.add_host("engines")),
          front_(world_.add_host("proxy")),
          outside_(world_.add_host("clients")),
          engine_loop_(engines_.io()),
          proxy_loop_(front_.io()),
          client_loop_(outside_.io()),
          options_(options(setup)),
          fleet_(one_pair(setup.dialect)),
          shared_(options_, fleet_),
          prefill_(engine_loop_,
                   [this](RawConnection& connection, const RawRequest& request) {
                       prefill(connection, request);
                   }),
          decode_(engine_loop_, [this](RawConnection& connection, const RawRequest& request) {
              decode(connection, request);
          }) {
        engines_.attach(engine_loop_);
        front_.attach(proxy_loop_);
        outside_.attach(client_loop_);
        prefill_.listen(fleet_.load()->prefill[0].address);
        decode_.listen(fleet_.load()->decode[0].address);
        proxy_ = std::make_unique<pd::Proxy>(proxy_loop_, shared_, setup.seed);
        shared_.metrics.push_back(&proxy_->metrics());
        proxy_loop_.on_quiescent(Delegate<void()>::to<&pd::Proxy::between_turns>(*proxy_));
        proxy_->add_listener(*front_.io().listen(address_, false));
    }

    ~ProxyBench() {
        proxy_->shut_down();
        prefill_.stop();
        decode_.stop();
        EXPECT_TRUE(world_.run_until(
            [&] { return proxy_->finished() && prefill_.finished() && decode_.finished(); }));
        EXPECT_EQ(shared_.admission.in_flight(), 0);
        proxy_.reset();
        for (auto* host : {&engines_, &front_, &outside_}) host->detach();
    }

    // False if it does not come to be within a virtual hour.
    bool run(const std::function<bool()>& done) { return world_.run_until(done); }
    void run_for(Duration time) { world_.run_for(time); }
    Instant now() const { return front_.io().now(); }
    std::unique_ptr<Recorder> connect() {
        auto client = std::make_unique<Recorder>(client_loop_);
        EXPECT_TRUE(client->stream.connect(address_));
        client->stream.set_reading(true);
        return client;
    }
    void part(Recorder& client) {
        client.close();
        EXPECT_TRUE(run([&] { return client.stream.idle(); }));
        EXPECT_EQ(client.violation, "");
    }

    // What the instances do.
    RawHttpPeer::Script prefill = [](RawConnection& connection, const RawRequest&) {
        connection.send(ok_answer(R"({"kv_transfer_params":{"remote":1}})"));
        connection.next_request();
    };
    RawHttpPeer::Script decode;
    RawHttpPeer& decode_peer() { return decode_; }

private:
    // Destroyed when the loops are, and looks whether all is clean.
    struct CleanAtEnd {
        io::sim::SimWorld& world;
        ~CleanAtEnd() { world.check_clean(); }
    };

    static pd::ProxyOptions options(const Setup& setup) {
        pd::ProxyOptions options;
        options.server.body_bytes_max = setup.body_bytes_max;
        options.retries = 0;
        return options;
    }
    static std::shared_ptr<const fleet::FleetSnapshot> one_pair(fleet::DialectKind dialect) {
        auto fleet = std::make_shared<fleet::FleetSnapshot>();
        const auto add = [&](std::vector<fleet::Instance>& to, fleet::Role role, const char* ip) {
            fleet::Instance instance;
            instance.role = role;
            instance.host_header = std::string(ip) + ":8000";
            instance.url = "http://" + instance.host_header;
            instance.address = *io::Address::from_ip(ip, 8000);
            instance.state = std::make_shared<fleet::InstanceState>();
            if (role == fleet::Role::Prefill) {
                instance.dialect = dialect;
                instance.bootstrap_url = std::string("http://") + ip + ":8998";
                instance.ranks = {{0, "an-engine"}};
            }
            to.push_back(std::move(instance));
        };
        add(fleet->prefill, fleet::Role::Prefill, "10.0.1.1");
        add(fleet->decode, fleet::Role::Decode, "10.0.2.1");
        return fleet;
    }

    const io::Address address_ = *io::Address::from_ip("10.0.0.1", 80);
    io::sim::SimWorld world_;
    io::sim::SimHost& engines_;
    io::sim::SimHost& front_;
    io::sim::SimHost& outside_;
    CleanAtEnd clean_{world_};
    io::Loop engine_loop_;
    io::Loop proxy_loop_;
    io::Loop client_loop_;
    const pd::ProxyOptions options_;
    fleet::Fleet fleet_;
    pd::Shared shared_;
    RawHttpPeer prefill_;
    RawHttpPeer decode_;
    std::unique_ptr<pd::Proxy> proxy_;
};

}  // namespace sluice::test
