// SPDX-License-Identifier: Apache-2.0
// Our ZMTP opposite libzmq itself, over loopback, both ways round: its DEALERs at our Router, and
// our Peer at its ROUTER.
#include <gtest/gtest.h>
#include <zmq.h>

#include <functional>
#include <thread>

#include "io/uring/uring_io.h"
#include "mooncake/router.h"

namespace sluice::mooncake {
namespace {

using namespace std::chrono_literals;

class Libzmq : public ::testing::Test, public RouterEvents, public PeerEvents {
protected:
    void SetUp() override {
#ifdef SLUICE_SLOW_BUILD
        GTEST_SKIP() << "libzmq's own threads are not built with the sanitizers";
#endif
        const auto capabilities = io::probe_uring();
        if (!capabilities.sufficient()) GTEST_SKIP() << io::explain_missing(capabilities);
        io_ = std::move(*io::UringIo::create({.capabilities = capabilities}));
        loop_ = std::make_unique<io::Loop>(*io_);
        context_ = zmq_ctx_new();
    }
    void TearDown() override {
        if (context_ != nullptr) zmq_ctx_term(context_);
        if (io_) {
            EXPECT_EQ(io_->operations_in_flight(), 0U);
        }
    }
    bool turn_until(const std::function<bool()>& done) {
        const Instant limit = MonotonicClock::now() + 20s;
        while (!done() && MonotonicClock::now() < limit) loop_->run_turn(1ms);
        return done();
    }
    void* socket(int type) {
        void* made = zmq_socket(context_, type);
        const int none = 0;
        zmq_setsockopt(made, ZMQ_LINGER, &none, sizeof none);
        return made;
    }
    static std::string receive(void* socket) {
        zmq_msg_t message;
        zmq_msg_init(&message);
        if (zmq_msg_recv(&message, socket, ZMQ_DONTWAIT) < 0) return "-";
        std::string text(static_cast<char*>(zmq_msg_data(&message)), zmq_msg_size(&message));
        zmq_msg_close(&message);
        return text;
    }
    static void send(void* socket, std::string_view text, int flags = 0) {
        ASSERT_EQ(zmq_send(socket, text.data(), text.size(), flags), static_cast<int>(text.size()));
    }

    // The Router echoes, twice.
    void on_message(Handle peer, std::uint32_t tag, std::string_view message) override {
        router_->send(peer, std::to_string(tag).append(message));
        router_->send(peer, message);
    }
    void on_gone(Handle) override { ++gone_; }
    void on_peer_message(Peer&, std::string_view message) override { got_.emplace_back(message); }
    void on_peer_gone(Peer&) override { ++gone_; }
    void on_peer_closed(Peer&) override { closed_ = true; }

    std::unique_ptr<io::UringIo> io_;
    std::unique_ptr<io::Loop> loop_;
    std::unique_ptr<Router> router_;
    void* context_ = nullptr;
    std::vector<std::string> got_;
    int gone_ = 0;
    bool closed_ = false;
};

TEST_F(Libzmq, ItsDealersAtOurRouter) {
    router_ = std::make_unique<Router>(*loop_, *this);
    const auto listener = io_->listen(*io::Address::from_ip("127.0.0.1", 0), false);
    const std::string url = "tcp://" + io_->local_address(*listener)->text();
    router_->add_listener(*listener, 7);
    const std::string large(300'000, 'L');
    std::vector<void*> dealers;
    for (int i = 0; i < 5; ++i) {
        dealers.push_back(socket(ZMQ_DEALER));
        // libzmq's own heart beats: PING and PONG.
        const int interval = 50;
        zmq_setsockopt(dealers.back(), ZMQ_HEARTBEAT_IVL, &interval, sizeof interval);
        ASSERT_EQ(zmq_connect(dealers.back(), url.c_str()), 0);
        send(dealers.back(), "hello " + std::to_string(i));
        send(dealers.back(), large);
    }
    for (int i = 0; i < 5; ++i) {
        std::vector<std::string> answers;
        ASSERT_TRUE(turn_until([&] {
            std::string one = receive(dealers[static_cast<std::size_t>(i)]);
            if (one != "-") answers.push_back(std::move(one));
            return answers.size() == 4;
        }));
        const std::string hello = "hello " + std::to_string(i);
        EXPECT_EQ(answers, (std::vector<std::string>{"7" + hello, hello, "7" + large, large}));
    }
    const Instant later = MonotonicClock::now() + 300ms;  // several heart beats
    turn_until([&] { return MonotonicClock::now() > later; });
    EXPECT_EQ(router_->connections(), 5U);
    for (void* dealer : dealers) zmq_close(dealer);
    EXPECT_TRUE(turn_until([&] { return router_->connections() == 0; }));
    EXPECT_EQ(gone_, 5);
    router_->shut_down();
    EXPECT_TRUE(turn_until([&] { return router_->finished(); }));
}

TEST_F(Libzmq, OurDealerAtItsRouter) {
    void* theirs = socket(ZMQ_ROUTER);
    ASSERT_EQ(zmq_bind(theirs, "tcp://127.0.0.1:*"), 0);
    char endpoint[128];
    std::size_t size = sizeof endpoint;
    zmq_getsockopt(theirs, ZMQ_LAST_ENDPOINT, endpoint, &size);
    const auto port =
        static_cast<std::uint16_t>(std::atoi(std::string(endpoint).substr(16).c_str()));
    Peer peer(*loop_, SocketType::Dealer, *this);
    ASSERT_TRUE(peer.connect(*io::Address::from_ip("127.0.0.1", port)).has_value());
    const std::string large(300'000, 'L');
    peer.send("before the handshake");
    peer.send(large);
    // Identity frame, message.
    std::vector<std::string> frames;
    ASSERT_TRUE(turn_until([&] {
        std::string one = receive(theirs);
        if (one != "-") frames.push_back(std::move(one));
        return frames.size() == 4;
    }));
    EXPECT_EQ(frames[0], frames[2]);
    EXPECT_EQ(frames[1], "before the handshake");
    EXPECT_EQ(frames[3], large);
    send(theirs, frames[0], ZMQ_SNDMORE);
    send(theirs, "first");
    send(theirs, frames[0], ZMQ_SNDMORE);
    send(theirs, large);
    ASSERT_TRUE(turn_until([&] { return got_.size() == 2; }));
    EXPECT_EQ(got_[0], "first");
    EXPECT_EQ(got_[1], large);
    EXPECT_EQ(gone_, 0);
    zmq_close(theirs);  // a peer that ends is noticed, which libzmq would keep to itself
    EXPECT_TRUE(turn_until([&] { return closed_; }));
    EXPECT_EQ(gone_, 1);
}

}  // namespace
}  // namespace sluice::mooncake
