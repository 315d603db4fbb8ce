// SPDX-License-Identifier: Apache-2.0
// Keeps the fleet's snapshot true: resolves names, asks bootstrap servers, probes health, merges
// /v1/models.
//
// Runs on one worker's loop (the first), with the same HTTP client as everything else; names are
// resolved on a thread of their own (resolver.h). Everything has a time-out and is asked again;
// nothing here is on a request's path. A snapshot is published at the end of the turn in which
// something of it changed, and only then.
//   names      at start, every resolve_interval, and after a connection could not be made
//   bootstrap  GET /query at start, every bootstrap_retry while incomplete or unanswered (then with
//              back-off), every bootstrap_refresh otherwise, and at once when a worker sets
//              refresh_wanted (a failure of that prefill). A reply is complete when two successive
//              ones agree. A changed engine id is a restart: the old ids go with the next snapshot,
//              and the new ones come with it if there are as many as before.
//   health     GET /health every health_interval; health_failures in a row make the instance
//              unreachable, one success makes it reachable (a mooncake prefill: after its bootstrap
//              server was asked again) and ends an open breaker's wait. 503 and other 5xx are
//              failures; 401 or 404 come from somebody who is alive.
//   dialect    auto: a prefill whose /query answers is mooncake; one that is alive while its /query
//              is not answered twice is nixl. With mooncake and no /query, /version older than 0.16
//              means the sequential contract.
//   models     GET /v1/models of each usable instance, merged by id.
// Threads: one, that of the loop; start() may be called before the loop's thread runs. Owns: the
// probes' connections.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "fleet/instance.h"
#include "io/loop.h"

namespace sluice::fleet {

enum class KvConnector : std::uint8_t { Auto, Mooncake, Nixl };

struct InstanceSpec {
    std::string url;                   // http://host[:port] or unix:/path
    std::uint16_t bootstrap_port = 0;  // of a prefill; 0: none
};

struct KeeperOptions {
    KvConnector connector = KvConnector::Auto;
    Duration health_interval = std::chrono::seconds(5);  // 0: no active probes
    Duration probe_timeout = std::chrono::seconds(2);
    std::uint32_t health_failures = 2;
    std::string upstream_api_key;  // sent as Authorization: Bearer; never to a bootstrap server

    Duration bootstrap_retry = std::chrono::milliseconds(250);
    Duration bootstrap_refresh = std::chrono::seconds(10);
    Duration models_interval = std::chrono::seconds(30);
    Duration resolve_interval = std::chrono::seconds(30);

    // A line for each change of state: an instance up or down and why, a restart, a name that does
    // not resolve.
    std::function<void(std::string_view)> log;
    // After each publication. A worker that sleeps sees a new snapshot only after its next wake-up:
    // wake them here.
    std::function<void()> on_published;
};

// Turns names into addresses off the loop. The product's uses getaddrinfo on a thread; tests and
// the simulation give numeric addresses at once.
class Resolver {
public:
    virtual ~Resolver() = default;
    // Asks for `host`; the answer comes through take_answers() after wake() of the loop.
    virtual void ask(std::string host, std::uint16_t port) = 0;
    struct Answer {
        std::string host;
        std::uint16_t port = 0;
        // The preferred one first; the others serve when it cannot be reached.
        std::vector<io::Address> addresses;
        Error error{Errc::NotResolved};  // if there is none
    };
    virtual std::vector<Answer> take_answers() = 0;
};

class Keeper {
public:
    Keeper(io::Loop& loop, Fleet& fleet, Resolver& resolver, const KeeperOptions& options);
    // Requires: finished(), or never started.
    ~Keeper();

    void start();
    // Ends every probe. Run the loop until finished().
    void stop();
    bool finished() const;

private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

// The first snapshot: what the command line says, numeric addresses resolved already. Errors name
// the URL and what is wrong with it.
std::expected<std::shared_ptr<const FleetSnapshot>, std::string> make_fleet(
    const std::vector<InstanceSpec>& prefill, const std::vector<InstanceSpec>& decode,
    KvConnector connector);

}  // namespace sluice::fleet
