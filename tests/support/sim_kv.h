// SPDX-License-Identifier: Apache-2.0
// The KV side of the simulated instances: a prefill's bootstrap server and side channel, and a
// decode's pulls, as vLLM's workers do them, with connections that break and prefills that restart.
//
// Threads: the loop's. Owns: their connections; destroy them when finished().
#pragma once

#include <list>
#include <map>
#include <memory>
#include <string>

#include "base/rng.h"
#include "http/calls.h"
#include "mooncake/router.h"
#include "support/raw_http_peer.h"

namespace sluice::test {

// What all instances know of one transfer.
struct KvEntry {
    bool ready = false;   // the prefill has its blocks
    bool held = false;    // ... and keeps them
    bool pulled = false;  // a decode got them
};

struct KvLedger {
    std::map<std::string, KvEntry> transfers;
    std::uint64_t pulls = 0;  // made by decodes
    std::uint64_t ok = 0;     // each of them ended in one of these ways
    std::uint64_t failed = 0;
    std::uint64_t lost = 0;      // its connection broke
    std::uint64_t given_up = 0;  // no answer in the decode's own time
    std::uint64_t unknown = 0;   // pulls that a prefill got for an id it never had
    std::uint64_t released = 0;  // by an empty pull
    std::vector<std::string> violations;
};

class SimSender final : private mooncake::RouterEvents {
public:
    SimSender(io::Loop& loop, KvLedger& ledger, Rng& rng, std::string engine_id);

    // Worker and bootstrap server listen.
    void listen(const io::Address& worker, const io::Address& bootstrap);
    void ready(const std::string& transfer);
    // A new life: connections end, what it held is gone.
    void restart(std::string engine_id);
    const std::string& engine_id() const { return engine_id_; }
    std::size_t waiting() const { return waiting_.size(); }
    void stop();
    bool finished() const;

private:
    struct Waiting {
        Handle peer;
        std::string request;
        std::string transfer;
        bool empty = false;
        bool last = false;  // of its message
        Instant due;
        Instant limit;
    };
    void on_message(Handle peer, std::uint32_t listener, std::string_view message) override;
    void on_gone(Handle peer) override;
    void tick();

    io::Loop& loop_;
    KvLedger& ledger_;
    Rng& rng_;
    std::string engine_id_;
    std::string worker_;
    std::map<std::string, bool> own_;  // transfers of this life
    mooncake::Router router_;
    RawHttpPeer bootstrap_;
    std::list<Waiting> waiting_;
    Timer tick_;
};

class SimPuller {
public:
    enum class Outcome : std::uint8_t { Pending, Ok, Failed };

    SimPuller(io::Loop& loop, KvLedger& ledger, int number);
    ~SimPuller();
    std::shared_ptr<Outcome> pull(const std::string& bootstrap, const std::string& engine_id,
                                  const std::string& transfer);
    bool quiet() const { return jobs_.empty(); }
    void stop();
    bool finished() const;

private:
    class Job;
    void look_up(const std::shared_ptr<Job>& job, const std::string& bootstrap);
    void over(Job& job);

    io::Loop& loop_;
    KvLedger& ledger_;
    int number_;
    http::Calls calls_;
    std::map<std::string, std::string> known_;  // engine id -> worker
    std::list<std::shared_ptr<Job>> jobs_;
    std::vector<std::shared_ptr<Job>> ended_;
    io::Deferred purge_;
    std::uint64_t next_ = 0;
    void purge() { ended_.clear(); }
};

}  // namespace sluice::test
