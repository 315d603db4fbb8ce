// SPDX-License-Identifier: Apache-2.0
// A simulated world: hosts, each with a SimIo on which a Loop and everything above it runs
// unchanged, one network and one virtual clock. One seed gives one history.
//
//   SimWorld world({.seed = 7, .faults = Faults::stormy()});
//   SimHost& server = world.add_host("server");
//   Loop loop(server.io());
//   server.attach(loop);
//   ... make streams and so on ...
//   ASSERT_TRUE(world.run_until([&] { return done; }));
//
// While anything is due, one of the hosts or the network does one step, picked by the seed; when
// nothing is, the clock goes to the next event, late completion or timer. Code that runs outside of
// a host's own turn (the test's) and touches objects of a host is seen at the next run_until() or
// at(), which wake every host; otherwise poke().
//
// Threads: one. Owns: the hosts and their SimIo. What runs on a host is the caller's and is
// destroyed first. Errors: run_until() answers false, after printing why, the seed and the last
// events.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/rng.h"
#include "io/loop.h"
#include "io/sim/faults.h"
#include "io/sim/network.h"
#include "io/sim/sim_io.h"
#include "io/sim/timeline.h"
#include "io/sim/trace.h"

namespace sluice::io::sim {

struct WorldOptions {
    std::uint64_t seed = 1;
    Faults faults{};
    std::size_t trace_events = 200;        // kept for printing
    std::size_t pool_bytes = 256UL << 20;  // of each host
};

struct RunLimits {
    std::uint64_t steps = 2'000'000;
    Duration time = std::chrono::hours(1);  // of the virtual clock, clock jumps not counted
    bool quiet = false;                     // print nothing when a limit is hit
};

class SimHost {
public:
    SimIo& io() { return io_; }
    const std::string& name() const { return name_; }
    int number() const { return io_.host(); }

    void attach(Loop& loop) { loop_ = &loop; }
    void detach() { loop_ = nullptr; }
    // The next step gives it a turn whether or not anything is due.
    void poke() { poked_ = true; }

    // This host's own faults in place of the world's, until cleared.
    Faults& faults();
    void clear_faults();

private:
    friend class SimWorld;
    SimHost(std::string name, int number, Timeline& timeline, Network& network, Rng& rng,
            Trace& trace, const Faults& faults, std::size_t pool_bytes)
        : name_(std::move(name)),
          world_faults_(faults),
          io_(number, timeline, network, rng, trace, faults, pool_bytes) {}

    std::string name_;
    const Faults& world_faults_;
    std::optional<Faults> own_faults_;
    SimIo io_;
    Loop* loop_ = nullptr;
    bool poked_ = false;
    bool dead_ = false;
    Instant frozen_until_{};
};

class SimWorld {
public:
    explicit SimWorld(const WorldOptions& options = {});
    SimWorld(const SimWorld&) = delete;
    SimWorld& operator=(const SimWorld&) = delete;
    ~SimWorld();

    SimHost& add_host(std::string_view name);
    std::size_t host_count() const { return hosts_.size(); }
    SimHost& host(std::size_t i) { return *hosts_[i]; }

    std::uint64_t seed() const { return options_.seed; }
    Instant now() const { return timeline_.now(); }
    // For the test's own decisions; drawing from it is part of the history.
    Rng& rng() { return rng_; }
    Faults& faults() { return options_.faults; }
    Network& network() { return network_; }
    const Trace& trace() const { return trace_; }
    void note(std::string_view literal, std::int64_t a = 0, std::int64_t b = 0) {
        trace_.add(now(), -1, literal, a, b);
    }

    // Runs `what` when the clock is there, outside of every host's turn, and then wakes every host.
    void after(Duration wait, std::function<void()> what);

    // -- running. The predicate is asked after every step and must only look.
    [[nodiscard]] bool run_until(const std::function<bool()>& done, const RunLimits& limits = {});
    // True if nothing at all is left to happen (a timer that is armed is something).
    [[nodiscard]] bool run_until_idle(const RunLimits& limits = {});
    // Until that much virtual time has gone by.
    void run_for(Duration time);
    std::uint64_t steps() const { return steps_; }

    // -- faults by hand; those of links and addresses are in network()
    // No turns until then; its kernel goes on.
    void freeze(SimHost& host, Duration time);
    // The process or the machine dies, between two turns. Crash: its kernel closes its sockets.
    // Reset: they are all reset. PowerCut: nobody is told. The host gets no turns.
    using Death = SimIo::Death;
    void kill(SimHost& host, Death death);
    // Gives a dead host turns again, without a network, so that its objects can see their sockets
    // broken, close them and be destroyed.
    void bury(SimHost& host);
    // A buried host whose objects are gone may be used again as a new one.
    void revive(SimHost& host);

    // Asserts that nothing is left on any host: no operation, socket or buffer. Call it when what
    // ran on the hosts has been destroyed.
    void check_clean() const;
    std::string leftovers() const;
    // The seed and the last events.
    std::string report() const;

private:
    bool is_due(const SimHost& host) const;
    bool step();
    bool advance();
    void give_turn(SimHost& host);
    bool give_up(const RunLimits& limits, const char* why) const;
    void poke_all();

    WorldOptions options_;
    Rng rng_;
    Timeline timeline_;
    Trace trace_;
    Network network_;
    std::vector<std::unique_ptr<SimHost>> hosts_;
    std::vector<SimHost*> due_;
    std::uint64_t steps_ = 0;
    Duration jumped_{0};
    bool in_turn_ = false;
};

}  // namespace sluice::io::sim
