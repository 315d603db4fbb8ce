// SPDX-License-Identifier: Apache-2.0
// One worker's relay in a simulated world: a prefill's worker and decodes that the test plays by
// hand.
#include "relay/relay.h"

#include <gtest/gtest.h>

#include <list>
#include <nlohmann/json.hpp>

#include "http/calls.h"
#include "io/sim/sim_world.h"
#include "mooncake/msgpack.h"

namespace sluice::relay {
namespace {

using namespace std::chrono_literals;
using mooncake::MsgpackWriter;
using mooncake::Status;

// A decode's socket, or the prefill's worker's side of one pull.
struct Decode final : mooncake::PeerEvents {
    explicit Decode(io::Loop& loop) : peer(loop, mooncake::SocketType::Dealer, *this) {}
    void on_peer_message(mooncake::Peer&, std::string_view message) override {
        raw.emplace_back(message);
    }
    void on_peer_gone(mooncake::Peer&) override { gone = true; }
    void on_peer_closed(mooncake::Peer&) override { closed = true; }
    mooncake::Response answer(std::size_t i) const { return *mooncake::read_response(raw[i]); }

    mooncake::Peer peer;
    std::vector<std::string> raw;
    bool gone = false;
    bool closed = false;
};

struct Worker final : mooncake::RouterEvents {
    explicit Worker(io::Loop& loop) : router(loop, *this) {}
    void on_message(Handle peer, std::uint32_t, std::string_view message) override {
        pulls.emplace_back(peer, message);
    }
    void answer(std::size_t i, Status status, std::vector<std::string_view> ok,
                std::vector<std::string_view> failed = {}) {
        router.send(pulls[i].first, mooncake::write_response(status, ok, failed, ""));
    }
    mooncake::Pull pull(std::size_t i) const { return *mooncake::read_pull(pulls[i].second); }

    mooncake::Router router;
    std::vector<std::pair<Handle, std::string>> pulls;
};

class RelayTest : public ::testing::Test, public TransferEvents {
protected:
    RelayTest()
        : host_(world_.add_host("all")),
          loop_(host_.io()),
          rng_(1),
          worker_(std::make_unique<Worker>(loop_)),
          board_(std::make_unique<Board>(options(), 1)),
          relay_(std::make_unique<Relay>(loop_, *board_, 0, rng_)) {
        host_.attach(loop_);
        loop_.on_quiescent(Delegate<void()>::to<&Relay::between_turns>(*relay_));
        worker_->router.add_listener(*loop_.io().listen(address("10.0.1.1", 41000), false));
        follow("first");
    }
    static RelayOptions options() {
        RelayOptions options;
        options.enabled = true;
        options.listen = address("10.0.0.1", 9000);
        options.early = 2;
        return options;
    }
    static io::Address address(std::string_view host, std::uint16_t port) {
        return *io::Address::from_ip(host, port);
    }
    void follow(const std::string& engine_id) {
        relay_->follow({{0, {{engine_id, {{0, 0, address("10.0.1.1", 41000), 0}}}}}});
    }
    Relay::Opened open() {
        auto opened = relay_->open(*this, 0, "first", 0);
        EXPECT_TRUE(opened.has_value());
        relay_->decode_sent(opened->transfer);
        return *opened;
    }
    Decode& pull(const std::vector<std::pair<std::string, std::string>>& items, int who = 1,
                 int blocks = 2) {
        std::string message;
        MsgpackWriter w(message);
        w.map(6)
            .string("remote_hostname")
            .string("d")
            .string("remote_port")
            .number(static_cast<std::uint64_t>(who));
        w.string("remote_tp_size").number(1).string("remote_tp_rank").number(0);
        w.string("req_blocks").map(items.size());
        for (const auto& [request, transfer] : items) {
            w.string(request).array(2).string(transfer).array(1).array(
                static_cast<std::size_t>(blocks));
            for (int i = 0; i < blocks; ++i) w.number(static_cast<std::uint64_t>(i));
        }
        w.string("kv_caches_base_addr").array(1).number(1 << 20);
        Decode& decode = connect();
        decode.peer.send(message);
        world_.run_for(5ms);
        return decode;
    }
    Decode& connect(std::uint16_t port = 9001) {
        decodes_.push_back(std::make_unique<Decode>(loop_));
        EXPECT_TRUE(decodes_.back()->peer.connect(address("10.0.0.1", port)).has_value());
        return *decodes_.back();
    }
    void expect_refused(const Decode& decode, const std::string& request) {
        ASSERT_EQ(decode.raw.size(), 1U);
        EXPECT_EQ(decode.answer(0).status, Status::Finish);
        EXPECT_EQ(decode.answer(0).failed, std::vector<std::string_view>{request});
        EXPECT_TRUE(decode.answer(0).ok.empty());
    }
    void on_no_pull() override { ++no_pulls_; }
    void TearDown() override {
        for (auto& decode : decodes_) decode->peer.close_now();
        relay_->stop();
        worker_->router.shut_down();
        EXPECT_TRUE(world_.run_until([&] {
            for (const auto& decode : decodes_)
                if (!decode->closed) return false;
            return relay_->finished() && worker_->router.finished();
        }));
        EXPECT_EQ(board_->early[0].load(), 0);
        relay_.reset();
        decodes_.clear();
        worker_.reset();
        host_.detach();
    }

    io::sim::SimWorld world_;
    io::sim::SimHost& host_;
    io::Loop loop_;
    Rng rng_;
    std::unique_ptr<Worker> worker_;
    std::unique_ptr<Board> board_;
    std::unique_ptr<Relay> relay_;
    std::list<std::unique_ptr<Decode>> decodes_;
    int no_pulls_ = 0;
};

TEST_F(RelayTest, APullWaitsForItsPrefillAndIsHandedOnAsItIs) {
    const auto opened = open();
    Decode& decode = pull({{"cmpl-1", opened.transfer_id}});
    world_.run_for(1s);
    EXPECT_TRUE(worker_->pulls.empty());
    EXPECT_TRUE(decode.raw.empty());
    relay_->ready(opened.transfer);
    world_.run_for(5ms);
    ASSERT_EQ(worker_->pulls.size(), 1U);
    EXPECT_EQ(worker_->pull(0).items[0].request, "cmpl-1");
    EXPECT_EQ(worker_->pull(0).items[0].transfer, opened.transfer_id);
    EXPECT_FALSE(worker_->pull(0).member("kv_caches_base_addr").empty());
    worker_->answer(0, Status::Finish, {"cmpl-1"});
    world_.run_for(5ms);
    ASSERT_EQ(decode.raw.size(), 1U);
    EXPECT_EQ(decode.answer(0).ok, std::vector<std::string_view>{"cmpl-1"});
    relay_->close(opened.transfer);
    world_.run_for(5ms);
    EXPECT_EQ(worker_->pulls.size(), 1U);  // nothing to release
}

TEST_F(RelayTest, AFailedPrefillAnswersWhoWaitsAndWhoComesLater) {
    const auto opened = open();
    Decode& waits = pull({{"a", opened.transfer_id}});
    relay_->failed(opened.transfer, false);
    world_.run_for(5ms);
    expect_refused(waits, "a");
    expect_refused(pull({{"b", opened.transfer_id}}, 2), "b");
    relay_->close(opened.transfer);
    expect_refused(pull({{"c", opened.transfer_id}}, 3), "c");
    EXPECT_TRUE(worker_->pulls.empty());
}

TEST_F(RelayTest, NamesThatAreNotOpenAreAnsweredAtOnce) {
    const auto opened = open();
    std::string guess = opened.transfer_id;
    guess.back() = guess.back() == '0' ? '1' : '0';
    expect_refused(pull({{"a", guess}}), "a");
    expect_refused(pull({{"b", "xfer-of-somebody"}}), "b");
    expect_refused(pull({{"c", ""}}), "c");
    // Another worker than there is.
    std::string elsewhere = opened.transfer_id;
    elsewhere.replace(5, 4, "ffff");
    expect_refused(pull({{"d", elsewhere}}), "d");
    // The same decode again, as after a request that was given up.
    Decode& first = pull({{"e", opened.transfer_id}});
    EXPECT_TRUE(first.raw.empty());
    expect_refused(pull({{"f", opened.transfer_id}}), "f");
    relay_->close(opened.transfer);
    world_.run_for(5ms);
    expect_refused(first, "e");
}

TEST_F(RelayTest, OneMessageOfSeveralTransfersGoesItsSeveralWays) {
    const auto a = open(), b = open(), c = open();
    Decode& decode = pull({{"a", a.transfer_id}, {"b", b.transfer_id}, {"c", c.transfer_id}});
    relay_->ready(b.transfer);
    relay_->failed(c.transfer, true);
    world_.run_for(5ms);
    ASSERT_EQ(decode.raw.size(), 1U);
    EXPECT_EQ(decode.answer(0).status, Status::Continue);
    EXPECT_EQ(decode.answer(0).failed, std::vector<std::string_view>{"c"});
    ASSERT_EQ(worker_->pulls.size(), 1U);
    ASSERT_EQ(worker_->pull(0).items.size(), 1U);
    worker_->answer(0, Status::Finish, {"b"});
    world_.run_for(5ms);
    ASSERT_EQ(decode.raw.size(), 2U);
    EXPECT_EQ(decode.answer(1).status, Status::Continue);  // a is still to come
    relay_->ready(a.transfer);
    world_.run_for(5ms);
    worker_->answer(1, Status::Finish, {}, {"a"});
    world_.run_for(5ms);
    ASSERT_EQ(decode.raw.size(), 3U);
    EXPECT_EQ(decode.answer(2).status, Status::Finish);
    EXPECT_EQ(decode.answer(2).failed, std::vector<std::string_view>{"a"});
    for (const auto& each : {a, b, c}) relay_->close(each.transfer);
}

TEST_F(RelayTest, AFewAreHandedOnBeforeTheAnswerAndNoMore) {
    std::vector<Relay::Opened> opened;
    for (int i = 0; i < 4; ++i) {
        opened.push_back(open());
        pull({{"r" + std::to_string(i), opened.back().transfer_id}});
        relay_->accept_likely(opened.back().transfer);
        world_.run_for(5ms);
    }
    EXPECT_EQ(worker_->pulls.size(), 2U);  // options().early
    EXPECT_EQ(board_->early[0].load(), 2);
    EXPECT_TRUE(relay_->handed_on(opened[0].transfer));
    EXPECT_FALSE(relay_->handed_on(opened[2].transfer));
    worker_->answer(0, Status::Finish, {"r0"});
    world_.run_for(5ms);
    EXPECT_EQ(board_->early[0].load(), 1);
    // Its prefill refused: the decode is told, though the prefill's worker says nothing.
    relay_->failed(opened[1].transfer, true);
    world_.run_for(5ms);
    auto second = std::next(decodes_.begin());
    expect_refused(**second, "r1");
    EXPECT_EQ(board_->early[0].load(), 1);  // it takes a seat there still
    worker_->answer(1, Status::Finish, {}, {"r1"});
    world_.run_for(5ms);
    EXPECT_EQ(board_->early[0].load(), 0);
    EXPECT_EQ((*second)->raw.size(), 1U);  // answered once
    for (const auto& each : opened) relay_->close(each.transfer);
}

TEST_F(RelayTest, APrefillWhoseConnectionBreaksAnswersWithinTwentyMilliseconds) {
    const auto opened = open();
    Decode& decode = pull({{"a", opened.transfer_id}});
    relay_->ready(opened.transfer);
    world_.run_for(5ms);
    ASSERT_EQ(worker_->pulls.size(), 1U);
    worker_->router.close(worker_->pulls[0].first);
    world_.run_for(5ms);
    EXPECT_TRUE(decode.raw.empty());  // bytes may be on their way
    world_.run_for(15ms);
    expect_refused(decode, "a");
    relay_->close(opened.transfer);
}

TEST_F(RelayTest, BlocksThatNobodyPullsAreReleasedOnceALayoutIsKnown) {
    auto first = open();
    relay_->ready(first.transfer);
    relay_->close(first.transfer);
    world_.run_for(5ms);
    EXPECT_TRUE(worker_->pulls.empty());
    EXPECT_EQ(relay_->metrics().unreleased.value(), 1U);
    const auto second = open();
    pull({{"a", second.transfer_id}});
    relay_->ready(second.transfer);
    world_.run_for(5ms);
    worker_->answer(0, Status::Finish, {"a"});
    relay_->close(second.transfer);
    const auto third = open();
    relay_->ready(third.transfer);
    relay_->close(third.transfer);
    world_.run_for(5ms);
    ASSERT_EQ(worker_->pulls.size(), 2U);
    const mooncake::Pull empty = worker_->pull(1);
    ASSERT_EQ(empty.items.size(), 1U);
    EXPECT_EQ(empty.items[0].transfer, third.transfer_id);
    EXPECT_EQ(mooncake::block_count(empty.items[0].blocks), 0U);
    EXPECT_FALSE(empty.member("kv_caches_base_addr").empty());
    const std::string request(empty.items[0].request);
    worker_->answer(1, Status::Finish, {request});
    world_.run_for(5ms);
    EXPECT_EQ(relay_->metrics().released.value(), 1U);
    // Never for one that is not known to be done.
    const auto fourth = open();
    relay_->close(fourth.transfer);
    world_.run_for(5ms);
    EXPECT_EQ(worker_->pulls.size(), 2U);
}

TEST_F(RelayTest, ANewLifeOfThePrefillHasANewIdAndTheOldOneIsOver) {
    const auto old = open();
    Decode& waits = pull({{"a", old.transfer_id}});
    follow("second");
    relay_->ready(old.transfer);  // said by somebody who has gone
    world_.run_for(5ms);
    expect_refused(waits, "a");
    EXPECT_FALSE(relay_->open(*this, 0, "first", 0).has_value());
    const auto now = relay_->open(*this, 0, "second", 0);
    ASSERT_TRUE(now.has_value());
    EXPECT_NE(now->engine_id, old.engine_id);
    relay_->close(old.transfer);
    relay_->close(now->transfer);
}

TEST_F(RelayTest, ADecodeThatNeverAsksIsDrivenDirectlyForAWhile) {
    const auto opened = open();
    relay_->ready(opened.transfer);
    world_.run_for(1900ms);
    EXPECT_EQ(no_pulls_, 0);
    world_.run_for(200ms);
    EXPECT_EQ(no_pulls_, 1);
    EXPECT_TRUE(relay_->way_doubtful(opened.transfer));
    relay_->block_way(opened.transfer, "http://d");
    relay_->close(opened.transfer);
    EXPECT_FALSE(relay_->open(*this, 0, "first", 0).has_value());
    EXPECT_TRUE(relay_->open(*this, 0, "first", 1).has_value());  // another decode
    world_.run_for(61s);
    EXPECT_TRUE(relay_->open(*this, 0, "first", 0).has_value());  // probed again
    for (std::uint32_t slot = 0; slot < 3; ++slot)
        for (std::uint32_t generation = 1; generation < 4; ++generation)
            relay_->close({slot, generation});
}

TEST_F(RelayTest, AStrangerLearnsAndHoldsNothing) {
    http::Calls calls(loop_);
    const auto ask = [&](const std::string& path) {
        http::CallQuestion question;
        question.address = address("10.0.0.1", 9000);
        question.host = "10.0.0.1:9000";
        question.path = path;
        std::optional<http::CallAnswer> got;
        bool ended = false;
        calls.start(question, [&](std::optional<http::CallAnswer> answer) {
            got = std::move(answer);
            ended = true;
        });
        EXPECT_TRUE(world_.run_until([&] { return ended; }));
        return got.value_or(http::CallAnswer{});
    };
    for (const char* path : {"/", "/query", "//query", "/first/query", "/sluice-0-1/query"})
        EXPECT_EQ(ask(path).status, 404) << path;
    const auto opened = open();
    const auto known = ask("/" + opened.engine_id + "/query");
    EXPECT_EQ(known.status, 200);
    const auto json = nlohmann::json::parse(known.body);
    EXPECT_EQ(json["0"]["engine_id"], opened.engine_id);
    EXPECT_EQ(json["0"]["worker_addr"]["0"]["0"], "tcp://10.0.0.1:9001");
    EXPECT_TRUE(opened.bootstrap_url.ends_with("10.0.0.1:9000/" + opened.engine_id));
    relay_->close(opened.transfer);
    calls.stop();
    EXPECT_TRUE(world_.run_until([&] { return calls.finished(); }));

    Decode& noise = connect();
    noise.peer.send("this is no pull");
    world_.run_for(5ms);
    ASSERT_EQ(noise.raw.size(), 1U);
    EXPECT_EQ(noise.answer(0).status, Status::Error);
    Decode& silent = connect();  // a handshake, and nothing more
    world_.run_for(11s);
    EXPECT_TRUE(noise.gone);
    EXPECT_TRUE(silent.gone);
}

}  // namespace
}  // namespace sluice::relay
