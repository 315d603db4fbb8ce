// SPDX-License-Identifier: Apache-2.0
// Random traffic through a two-legged byte relay made of Streams, with every fault there is, for
// thousands of seeds.
//
// Talkers on a client host connect to a relay, which connects each to a talker on a server host.
// Both ends send bytes that are known in advance, pause, stop reading, give up. What must hold
// whatever happens:
//   * what a talker reads is what the other one sent, in order, from the beginning;
//   * an end of stream is only seen after everything: what is cut short is seen as broken (where
//   the kernel can
//     say so: not over unix sockets, and not when a process is killed and its kernel closes for
//     it);
//   * every stream is told on_closed exactly once, and everything ends;
//   * nothing is left in flight, no socket is open, no page is held.
#include <gtest/gtest.h>

#include <list>
#include <memory>
#include <string>

#include "io/sim/sim_world.h"
#include "io/stream.h"
#include "seeds.h"

namespace sluice::io {
namespace {

using sim::Faults;
using sim::SimHost;
using sim::SimWorld;
using std::chrono::minutes;
using std::chrono::seconds;

char byte_at(std::uint64_t key, std::uint64_t position) {
    return static_cast<char>((position * 31 + (position >> 8) * 7 + key) & 0xff);
}

// What a whole world counts, so that a test can see that something happened at all.
struct Tally {
    std::uint64_t whole = 0;  // an end after everything
    std::uint64_t cut = 0;    // broken, or given up
    std::uint64_t short_ends = 0;
};

struct Plan {
    std::uint64_t out_key = 0;
    std::uint64_t out_bytes = 0;
    std::uint64_t in_key = 0;
    std::uint64_t in_bytes = 0;
    double gives_up = 0;  // at each action
    double pauses = 0;
};

// One end of a conversation.
class Talker final : public StreamEvents {
public:
    Talker(Loop& loop, Rng& rng, Tally& tally, const Plan& plan)
        : stream(loop, *this),
          loop_(loop),
          rng_(rng),
          tally_(tally),
          plan_(plan),
          act_(Delegate<void()>::to<&Talker::act>(*this)),
          deadline_(Delegate<void()>::to<&Talker::give_up>(*this)) {}

    Stream stream;

    void start() {
        loop_.arm(deadline_, minutes(10));
        stream.set_reading(true);
        act();
    }
    bool closed() const { return closes_ == 1; }
    bool saw_short_end() const { return short_end_; }
    bool saw_everything() const { return ended_ && received_ == plan_.in_bytes; }
    const std::string& problem() const { return problem_; }

private:
    void on_bytes(Slice bytes) override {
        check_event("bytes");
        if (bytes.empty()) fault("an event without bytes");
        for (const char c : bytes.view())
            if (c != byte_at(plan_.in_key, received_++)) return fault("a wrong byte");
        if (received_ > plan_.in_bytes) fault("more bytes than were sent");
        if (rng_.chance(0.1)) {
            const auto size = static_cast<std::uint32_t>(rng_.between(1, 3000));
            if (BufferRef buffer = loop_.buffers().allocate(size))
                stream.receive_next_into(std::move(buffer), 0, size);
        }
    }
    void on_end() override {
        check_event("end");
        ended_ = true;
        short_end_ = received_ < plan_.in_bytes;
        ++(short_end_ ? tally_.short_ends : tally_.whole);
        if (finished_) stream.close_when_sent();
    }
    void on_broken(Error) override {
        check_event("broken");
        broken_ = true;
        ++tally_.cut;
        close(rng_.chance(0.5));
    }
    void on_drained() override {
        check_event("drained");
        talk();
    }
    void on_sent() override {
        check_event("sent");
        if (rng_.chance(0.3)) talk();
    }
    void on_connected() override {
        check_event("connected");
        talk();
    }
    void on_closed() override {
        if (++closes_ > 1) fault("closed twice");
        act_.cancel();
        deadline_.cancel();
    }

    void act() {
        if (stream.closing() || stream.idle()) return;
        if (rng_.chance(plan_.gives_up)) return give_up();
        stream.set_reading(!rng_.chance(plan_.pauses));
        talk();
        // More and more slowly, so that waiting ten minutes for a dead peer is not most of the
        // work.
        const auto pause = static_cast<std::uint64_t>(5'000'000) << std::min(acts_++ / 64, 8);
        loop_.arm(act_, Duration(static_cast<std::int64_t>(rng_.below(pause))));
    }

    // Sends the next pieces of what there is to say, and the end after the last one.
    void talk() {
        while (!finished_ && !stream.congested()) {
            const auto size =
                std::min(plan_.out_bytes - sent_, rng_.between(1, 1ULL << rng_.between(1, 16)));
            if (size > 0) {
                BufferRef buffer = loop_.buffers().allocate(size);
                if (!buffer) return;  // the pool is empty: later
                for (std::uint64_t i = 0; i < size; ++i)
                    buffer.data()[i] = byte_at(plan_.out_key, sent_++);
                stream.send({std::move(buffer), 0, static_cast<std::uint32_t>(size)});
            }
            if (sent_ == plan_.out_bytes) {
                finished_ = true;
                stream.finish_sending();
                if (ended_) stream.close_when_sent();
            }
            if (rng_.chance(0.3)) return;
        }
    }
    void give_up() {
        if (!stream.closing()) ++tally_.cut;
        close(true);
    }
    void close(bool reset) {
        close_called_ = true;
        stream.close(reset);
    }
    void check_event(const char* name) {
        if (closes_ > 0 || close_called_ || broken_)
            fault(std::string(name) + " after the end of it all");
        if (ended_ && std::string_view(name) == "bytes") fault("bytes after the end");
    }
    void fault(std::string what) {
        if (problem_.empty()) problem_ = std::move(what);
    }

    Loop& loop_;
    Rng& rng_;
    Tally& tally_;
    const Plan plan_;
    Timer act_;
    Timer deadline_;
    std::uint64_t sent_ = 0;
    std::uint64_t received_ = 0;
    int acts_ = 0;
    bool finished_ = false;
    bool ended_ = false;
    bool short_end_ = false;
    bool broken_ = false;
    bool close_called_ = false;
    int closes_ = 0;
    std::string problem_;
};

class AcceptLoop : protected OpTarget {
public:
    AcceptLoop(Loop& loop, const Address& address)
        : loop_(loop), retry_(Delegate<void()>::to<&AcceptLoop::accept>(*this)) {
        listener_ = *loop.io().listen(address, false);
        accept();
    }
    void stop() {
        stopping_ = true;
        if (operation_.valid())
            loop_.io().cancel(operation_);
        else if (!stopped())
            close();
    }
    bool stopped() const { return listener_ == kNoSocket; }

protected:
    ~AcceptLoop() = default;
    virtual void on_accepted(Socket socket) = 0;
    Loop& loop_;

private:
    void accept() { operation_ = loop_.io().accept(listener_, *this); }
    void on_completion(Completion& completion) override {
        if (!completion.more) operation_ = {};
        if (completion.result >= 0) on_accepted(completion.result);
        if (completion.more) return;
        if (stopping_)
            close();
        else if (completion.result < 0)
            loop_.arm(retry_, limits::kAcceptPause);
        else
            accept();
    }
    void close() {
        retry_.cancel();
        loop_.io().close(listener_, false);
        listener_ = kNoSocket;
    }

    Socket listener_ = kNoSocket;
    OpId operation_;
    Timer retry_;
    bool stopping_ = false;
};

// Passes bytes on between two streams, with back-pressure; destroyed from within the last
// on_closed.
class Relay final : public AcceptLoop {
public:
    Relay(Loop& loop, const Address& address, const Address& upstream, std::string& problem)
        : AcceptLoop(loop, address), upstream_(upstream), problem_(problem) {}
    std::size_t sessions() const { return sessions_.size(); }

private:
    class Session;

    struct Leg final : StreamEvents {
        Leg(Session& s, Loop& loop) : session(s), stream(loop, *this) {}
        void on_connected() override {}
        void on_bytes(Slice bytes) override {
            other->stream.send(std::move(bytes));
            if (other->stream.congested()) stream.set_reading(false);
        }
        void on_drained() override {
            if (!other->ended) other->stream.set_reading(true);
        }
        void on_end() override {
            ended = true;
            other->stream.finish_sending();
            if (!other->ended) return;
            stream.close_when_sent();
            other->stream.close_when_sent();
        }
        void on_broken(Error) override {
            stream.close(true);
            other->stream.close(true);
        }
        void on_closed() override { session.on_leg_closed(*this); }

        Session& session;
        Stream stream;
        Leg* other = nullptr;
        bool ended = false;
        int closes = 0;
    };

    class Session {
    public:
        explicit Session(Relay& relay)
            : relay_(relay), client(*this, relay.loop_), server(*this, relay.loop_) {
            client.other = &server;
            server.other = &client;
        }
        void start(Socket socket) {
            client.stream.open(socket);
            client.stream.set_reading(true);
            server.stream.set_reading(true);
            if (server.stream.connect(relay_.upstream_)) return;
            ++server.closes;
            client.stream.close(true);
        }
        void on_leg_closed(Leg& leg) {
            if (++leg.closes > 1) relay_.problem_ = "a leg of the relay was closed twice";
            // A leg that has left takes nothing more: the other one is cut short or has said
            // everything.
            if (leg.closes + leg.other->closes == 2)
                relay_.forget(*this);
            else if (!(leg.ended && leg.other->ended))
                leg.other->stream.close(true);
        }

    private:
        Relay& relay_;

    public:
        Leg client;
        Leg server;
        std::list<std::unique_ptr<Session>>::iterator place;
    };

    void on_accepted(Socket socket) override {
        sessions_.push_back(std::make_unique<Session>(*this));
        sessions_.back()->place = std::prev(sessions_.end());
        sessions_.back()->start(socket);
    }
    void forget(Session& session) { sessions_.erase(session.place); }

    const Address upstream_;
    std::string& problem_;
    std::list<std::unique_ptr<Session>> sessions_;
};

// The server: talker number n talks to whoever said so first would need a protocol; all plans are
// the same instead.
class TalkerServer final : public AcceptLoop {
public:
    TalkerServer(Loop& loop, const Address& address, Rng& rng, Tally& tally, const Plan& plan)
        : AcceptLoop(loop, address), rng_(rng), tally_(tally), plan_(plan) {}
    std::list<std::unique_ptr<Talker>> talkers;

private:
    void on_accepted(Socket socket) override {
        talkers.push_back(std::make_unique<Talker>(loop_, rng_, tally_, plan_));
        talkers.back()->stream.open(socket);
        talkers.back()->start();
    }
    Rng& rng_;
    Tally& tally_;
    const Plan plan_;
};

double scaled(Rng& rng, double most) { return rng.chance(0.5) ? 0 : rng.unit() * most; }

// Each world has some faults, at rates of its own; one in eight has none.
Faults random_faults(Rng& rng) {
    Faults faults;
    faults.latency_max = Duration(static_cast<std::int64_t>(rng.between(20'000, 20'000'000)));
    faults.window_bytes = static_cast<std::uint32_t>(1U << rng.between(9, 19));
    if (rng.chance(0.125)) return faults;
    faults.split_read = scaled(rng, 1);
    faults.short_send = scaled(rng, 1);
    faults.late_completion = scaled(rng, 1);
    faults.reorder = scaled(rng, 1);
    faults.late_cancel = scaled(rng, 1);
    faults.no_buffers = scaled(rng, 0.3);
    faults.accept_emfile = scaled(rng, 0.3);
    faults.accept_ends = scaled(rng, 1);
    faults.freeze = scaled(rng, 0.01);
    faults.reset = scaled(rng, 0.02);
    faults.lose_syn = scaled(rng, 0.2);
    faults.refuse = scaled(rng, 0.2);
    faults.clock_jump = scaled(rng, 0.002);
    faults.late_max = Duration(static_cast<std::int64_t>(rng.below(20'000'000)));
    return faults;
}

Plan opposite(const Plan& plan) {
    Plan other = plan;
    std::swap(other.out_key, other.in_key);
    std::swap(other.out_bytes, other.in_bytes);
    return other;
}

// One world from its seed to its end.
class Scenario {
public:
    Scenario(std::uint64_t seed, Tally& tally)
        : dice_(seed * 2 + 1),
          tally_(tally),
          world_({.seed = seed,
                  .faults = random_faults(dice_),
                  .trace_events = test::number_from_environment("SLUICE_TRACE", 200),
                  .pool_bytes = dice_.chance(0.1) ? 64 * limits::kPageBytes : 256UL << 20}),
          client_host_(world_.add_host("client")),
          relay_host_(world_.add_host("relay")),
          server_host_(world_.add_host("server")),
          client_loop_(client_host_.io()),
          relay_loop_(relay_host_.io()),
          server_loop_(server_host_.io()) {
        client_host_.attach(client_loop_);
        relay_host_.attach(relay_loop_);
        server_host_.attach(server_loop_);
    }

    std::string run() {
        over_unix_ = dice_.chance(0.2);
        ends_are_exact_ = !over_unix_;
        const auto backend = over_unix_ ? *Address::from_unix_path("/run/backend.sock")
                                        : *Address::from_ip("10.0.0.3", 9000);
        const auto front = *Address::from_ip("::1", 8000);
        plan_.out_key = dice_.below(256);
        plan_.in_key = dice_.below(256);
        plan_.out_bytes = dice_.below(1ULL << dice_.between(0, 19));
        plan_.in_bytes = dice_.below(1ULL << dice_.between(0, 19));
        plan_.gives_up = scaled(dice_, 0.02);
        plan_.pauses = scaled(dice_, 0.8);
        server_ =
            std::make_unique<TalkerServer>(server_loop_, backend, dice_, tally_, opposite(plan_));
        relay_ = std::make_unique<Relay>(relay_loop_, front, backend, problem_);
        for (std::size_t i = dice_.between(1, 8); i > 0; --i)
            clients_.push_back(std::make_unique<Talker>(client_loop_, dice_, tally_, plan_));
        for (const auto& each : clients_) {
            const Duration when(static_cast<std::int64_t>(dice_.below(50'000'000)));
            world_.after(when, [this, &each, front] {
                ++started_;
                if (each->stream.connect(front)) each->start();
            });
        }
        schedule_disaster();
        if (!world_.run_until([&] { return all_ended(); },
                              {.steps = 5'000'000, .time = minutes(60)}))
            return "it does not end";
        traffic_over_ = true;
        bury_the_dead();
        server_->stop();
        relay_->stop();
        if (!world_.run_until([&] { return nothing_is_open(); },
                              {.steps = 5'000'000, .time = minutes(60)}))
            return "what is closed stays open: " + what_is_open();
        return judge();
    }

    std::string report() { return world_.report(); }

private:
    void schedule_disaster() {
        if (dice_.chance(0.5)) return;
        const Duration when(static_cast<std::int64_t>(dice_.below(200'000'000)));
        const auto victim = static_cast<int>(dice_.below(3));
        // Both ends of a unix socket are on one machine: no cable between them, no power of their
        // own.
        const auto kind = over_unix_ ? 2 * dice_.below(2) : dice_.below(5);
        world_.after(when, [this, victim, kind] {
            if (traffic_over_) return;
            SimHost& host = world_.host(static_cast<std::size_t>(victim));
            switch (kind) {
                case 0:
                    return world_.freeze(
                        host, seconds(static_cast<std::int64_t>(dice_.between(1, 1000))));
                case 1:
                    world_.network().cut(victim, (victim + 1) % 3);
                    return world_.after(
                        seconds(static_cast<std::int64_t>(dice_.between(1, 1000))),
                        [this, victim] { world_.network().heal(victim, (victim + 1) % 3); });
                default:
                    dead_ = &host;
                    // The kernel of a killed process closes for it, and that looks like an end.
                    if (kind == 2) ends_are_exact_ = false;
                    return world_.kill(host, static_cast<SimWorld::Death>(kind - 2));
            }
        });
    }
    void bury_the_dead() {
        if (dead_ != nullptr) world_.bury(*dead_);
    }
    bool is_dead(const SimHost& host) const { return dead_ == &host; }

    // Everything on hosts that live; what is on a dead one cannot move.
    bool all_ended() const {
        if (started_ < clients_.size()) return false;
        if (!is_dead(client_host_))
            for (const auto& each : clients_)
                if (!each->stream.idle()) return false;
        if (!is_dead(server_host_))
            for (const auto& each : server_->talkers)
                if (!each->stream.idle()) return false;
        return is_dead(relay_host_) || dead_ != nullptr || relay_->sessions() == 0;
    }
    bool nothing_is_open() const {
        for (const auto& each : clients_)
            if (!each->stream.idle()) return false;
        for (const auto& each : server_->talkers)
            if (!each->stream.idle()) return false;
        return relay_->sessions() == 0 && relay_->stopped() && server_->stopped();
    }

    std::string what_is_open() const {
        std::size_t clients = 0;
        std::size_t servers = 0;
        for (const auto& each : clients_) clients += each->stream.idle() ? 0 : 1;
        for (const auto& each : server_->talkers) servers += each->stream.idle() ? 0 : 1;
        return std::to_string(clients) + " clients, " + std::to_string(servers) + " servers, " +
               std::to_string(relay_->sessions()) + " sessions" +
               (relay_->stopped() ? "" : ", relay listens") +
               (server_->stopped() ? "" : ", server listens");
    }
    std::string judge() {
        if (!problem_.empty()) return problem_;
        for (const auto& each : clients_) check(*each, "client");
        for (const auto& each : server_->talkers) check(*each, "server");
        clients_.clear();
        server_.reset();
        relay_.reset();
        if (problem_.empty()) problem_ = world_.leftovers();
        return problem_;
    }
    void check(const Talker& talker, const char* who) {
        if (!talker.problem().empty()) problem_ = std::string(who) + ": " + talker.problem();
        if (!talker.closed())
            problem_ = std::string(who) + ": a stream was not told that it is closed";
        if (ends_are_exact_ && talker.saw_short_end())
            problem_ = std::string(who) + ": a stream that was cut short looks whole";
    }

    Rng dice_;  // the scenario's own, so that a change of the network's draws leaves the plan alone
    Tally& tally_;
    SimWorld world_;
    SimHost& client_host_;
    SimHost& relay_host_;
    SimHost& server_host_;
    Loop client_loop_;
    Loop relay_loop_;
    Loop server_loop_;
    Plan plan_;
    std::unique_ptr<TalkerServer> server_;
    std::unique_ptr<Relay> relay_;
    std::list<std::unique_ptr<Talker>> clients_;
    std::size_t started_ = 0;
    SimHost* dead_ = nullptr;
    bool traffic_over_ = false;
    bool over_unix_ = false;
    bool ends_are_exact_ = true;
    std::string problem_;
};

TEST(StreamSim, BytesAreExactOrTheConnectionIsVisiblyBroken) {
    Tally tally;
    test::for_each_seed(2000, [&](std::uint64_t seed) {
        auto scenario = std::make_unique<Scenario>(seed, tally);
        std::string problem = scenario->run();
        if (!problem.empty()) {
            problem += "\n" + scenario->report();
            // Its objects are in the middle of something and may not be destroyed.
            (void)scenario.release();
        }
        return problem;
    });
    // A run in which nothing ever works, or nothing ever breaks, proves nothing.
    std::printf("ends: %llu whole, %llu short and excusably so; %llu cut\n",
                static_cast<unsigned long long>(tally.whole),
                static_cast<unsigned long long>(tally.short_ends),
                static_cast<unsigned long long>(tally.cut));
    if (tally.whole + tally.cut > 1000) {
        EXPECT_GT(tally.whole, tally.cut / 10);
        EXPECT_GT(tally.cut, tally.whole / 100);
    }
}

}  // namespace
}  // namespace sluice::io
