// SPDX-License-Identifier: Apache-2.0
// One GET with a deadline and a bounded body: what the keeper asks instances with. And what all its
// askers share.
// Threads: one, the loop's. Owns: the request in flight. Errors: an answer with status 0 and the
// reason.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/rng.h"
#include "base/timer_wheel.h"
#include "fleet/keeper.h"
#include "http/client.h"
#include "mem/text_arena.h"

namespace sluice::fleet {

// What every part of the keeper works with.
struct KeeperContext {
    KeeperContext(io::Loop& loop_in, const KeeperOptions& options_in, std::uint64_t seed)
        : loop(loop_in), options(options_in), texts(loop_in.buffers()), rng(seed) {}

    io::Loop& loop;
    const KeeperOptions options;
    TextArena texts;
    Rng rng;

    // A tenth more or less, so that many probes do not stay in step.
    Duration jittered(Duration interval) {
        const auto tenth = static_cast<std::uint64_t>(interval.count() / 10);
        return interval - Duration(tenth) + Duration(rng.below(2 * tenth + 1));
    }
    void log(const Instance& instance, std::string_view text) const;
};

struct ProbeAnswer {
    std::uint16_t status = 0;  // 0: no answer
    std::string body;
    std::string why;  // there is no answer, a clause: "could not connect: connection refused"
    bool not_connected = false;

    bool ok() const { return status == 200; }
    // One clause for logs, whatever it was.
    std::string describe() const;
};

class Probe final : private http::ResponseEvents {
public:
    using Done = Delegate<void(const ProbeAnswer&)>;

    Probe(KeeperContext& context, Done done);

    struct Question {
        std::string_view host_header;
        std::string_view path;
        std::size_t body_max = 0;
        bool with_key = false;  // the upstream API key, for whom it is meant
    };
    // The answer comes later, never from within this call, after options.probe_timeout at the
    // latest.
    void get(http::UpstreamPool& pool, const Question& question);
    // No answer comes.
    void cancel();
    bool active() const { return active_; }

private:
    void on_response_head(const http::ResponseHead& head) override;
    void on_response_body(Slice bytes) override;
    void on_response_end() override;
    void on_response_failed(const http::ClientFailure& failure) override;
    void on_deadline();
    SliceQueue make_message(const Question& question);
    void give_up(std::string why);
    void finish();

    KeeperContext& context_;
    Done done_;
    http::ClientRequest request_;
    Timer deadline_;
    ProbeAnswer answer_;
    std::size_t body_max_ = 0;
    bool active_ = false;
};

}  // namespace sluice::fleet
