// SPDX-License-Identifier: Apache-2.0
// Prefill and decode instances for the simulated proxy: they answer rightly, or wrongly in every
// way they can think of.
//
// The answer to a request is a function of the prompt's number (its "id" member), so a client can
// check every byte. A ledger that all instances share watches the hand-over: a transfer id is used
// once on P and once on D, D only gets parameters that name a real prefill, and the legs' bodies
// are what the contract says. Threads: one.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "base/rng.h"
#include "support/raw_http_peer.h"
#include "support/sim_kv.h"

namespace sluice::test {

// How often an instance misbehaves, per request.
struct Misbehaviour {
    double hang = 0;  // takes the request and says nothing
    double refuse_4xx = 0;
    double back_pressure = 0;  // 429 or 503
    double fail_5xx = 0;
    double close_early = 0;  // closes without a byte
    double close_mid_head = 0;
    double close_mid_body = 0;
    double garbage = 0;
    double answer_twice = 0;
    double error_event = 0;  // D: 200, the role chunk, then an error
    double no_content = 0;   // D: a stream without content
};

struct Ledger {
    struct Transfer {
        std::string prompt;
        int prefills = 0;
        int decodes = 0;
        bool ready = false;
        std::string engine_id;  // of the P that got it
        std::string told;       // ... and of the one that D was told
    };
    std::map<std::string, Transfer> transfers;
    KvLedger kv;
    std::vector<std::string> violations;  // empty at the end, or the test fails
    // Decodes that were told another engine id than that of the prefill that got the request: one
    // of a former life, so that they wait in vain, or the relay's.
    int former_lives = 0;

    void violation(std::string what) { violations.push_back(std::move(what)); }
    void note_told(const Transfer& transfer);
};

// The whole answer to prompt `id`, as D sends it.
std::string expected_stream(std::uint64_t id, int events);
std::string expected_plain(std::uint64_t id);

class SimPrefill {
public:
    SimPrefill(io::Loop& loop, Ledger& ledger, Rng& rng, const Misbehaviour& bad,
               std::string engine_id, bool nixl);
    RawHttpPeer& peer() { return peer_; }
    SimSender& sender() { return sender_; }
    void stop() {
        peer_.stop();
        sender_.stop();
    }
    bool finished() const { return peer_.finished() && sender_.finished(); }

private:
    void answer(RawConnection& connection, const RawRequest& request);
    Ledger& ledger_;
    Rng& rng_;
    const Misbehaviour& bad_;
    SimSender sender_;
    bool nixl_;
    RawHttpPeer peer_;
};

class SimDecode {
public:
    SimDecode(io::Loop& loop, Ledger& ledger, Rng& rng, const Misbehaviour& bad, int number);
    RawHttpPeer& peer() { return peer_; }
    void stop() {
        peer_.stop();
        puller_.stop();
    }
    bool finished() const { return peer_.finished() && puller_.finished(); }
    bool quiet() const { return puller_.quiet(); }  // no pull is under way

private:
    void answer(RawConnection& connection, const RawRequest& request);
    void wait_for_prefill(RawConnection& connection, std::string transfer_id, std::uint64_t id,
                          bool stream, int polls);
    void wait_for_pull(RawConnection& connection, std::shared_ptr<SimPuller::Outcome> outcome,
                       std::string transfer_id, std::uint64_t id, bool stream);
    void serve(RawConnection& connection, std::uint64_t id, bool stream);
    void stream_events(RawConnection& connection, std::uint64_t id, int next, int cut_at);
    Ledger& ledger_;
    Rng& rng_;
    const Misbehaviour& bad_;
    SimPuller puller_;
    RawHttpPeer peer_;
};

// Answers wrongly if the dice say so; true if it did.
bool misbehave(RawConnection& connection, Rng& rng, const Misbehaviour& bad,
               std::string_view good_answer);

// A member of a flat JSON body as text (a test's own bodies only), or "".
std::string member_of(std::string_view body, std::string_view name);

inline constexpr int kSimEvents = 6;

}  // namespace sluice::test
