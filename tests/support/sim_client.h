// SPDX-License-Identifier: Apache-2.0
// A client of the simulated proxy: sends requests, checks every byte of the answers, and is often
// rude.
//
// Threads: the loop's. Owns: its connection. Destroy it when done().
#pragma once

#include <string>
#include <vector>

#include "base/rng.h"
#include "http/body_reader.h"
#include "http/head_collector.h"
#include "io/stream.h"
#include "mem/text_arena.h"

namespace sluice::test {

struct ClientTally {
    std::uint64_t asked = 0;
    std::uint64_t right = 0;    // complete and exact
    std::uint64_t refused = 0;  // complete, an error status with an error body
    std::uint64_t broken = 0;   // visibly broken
    std::uint64_t left = 0;     // the client left first
    std::vector<std::string> violations;
};

struct ClientManners {
    double leave = 0;         // goes away at a random moment
    double bad_request = 0;   // sends something the proxy must refuse
    double slow_reader = 0;   // pauses reading
    double smuggle_kv = 0.2;  // puts KV parameters of its own into the body
    std::size_t filler_max = 2000;
};

class SimClient final : private io::StreamEvents {
public:
    SimClient(io::Loop& loop, const io::Address& proxy, Rng& rng, const ClientManners& manners,
              ClientTally& tally, std::uint64_t first_id, int requests);
    void start();
    bool done() const { return finished_ && stream_.idle(); }
    std::string describe() const;

private:
    void on_connected() override;
    void on_bytes(Slice bytes) override;
    void on_end() override;
    void on_broken(Error error) override;
    void on_closed() override;

    void ask();
    void take(Slice bytes);
    void append(Slice bytes) { body_.append(bytes.view()); }
    void answer_complete();
    void broken();
    void leave();
    void resume() { stream_.set_reading(true); }

    io::Loop& loop_;
    io::Address proxy_;
    Rng& rng_;
    const ClientManners& manners_;
    ClientTally& tally_;
    std::uint64_t id_;
    int left_;
    io::Stream stream_;
    TextArena texts_;
    Timer leave_timer_;
    Timer read_timer_;
    http::HeadCollector collector_;
    http::ResponseHead head_;
    http::BodyReader reader_;
    std::string body_;
    SliceQueue input_;
    bool waiting_ = false;
    bool in_body_ = false;
    bool streamed_ = false;
    bool bad_ = false;
    bool finished_ = false;
};

}  // namespace sluice::test
