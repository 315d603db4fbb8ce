// SPDX-License-Identifier: Apache-2.0
// One client request from its last byte in to its last byte out: attempts at P/D pairs until one
// answers.
//
//   Queued --admitted--> Trying --first content--> Relaying --> Done
//                          |  ^
//                          v  | another pair, another transfer id
//                        BackingOff
//
// While Trying, both legs are watched and nothing has gone to the client, so any failure of either
// may be tried elsewhere or answered with the engine's own status and words. From the first content
// on nothing is tried again: a failure ends the stream with an error event and a cut connection,
// never as if it were whole. Every phase has a deadline (pd/options.h).
//
// Invariants:
// 1. The client is answered exactly once, or its connection is cut.
// 2. A transfer id is used for one attempt only.
// 3. When the exchange is done no leg of it is left but a detached one.
// Threads: one. Owns: its legs (in the proxy's slab).
#pragma once

#include <string>

#include "base/fixed_text.h"
#include "mem/gathered.h"
#include "pd/access_record.h"
#include "pd/decode_answer.h"
#include "pd/leg.h"
#include "pd/leg_message.h"
#include "pd/metrics.h"
#include "pd/routes.h"
#include "relay/relay.h"
#include "pd/timeline.h"

namespace sluice::pd {

class Proxy;

// What went wrong with an attempt, and what the client is told if it was the last.
struct AttemptFailure {
    std::uint16_t status = 502;
    std::string message;  // of our own answer, if there is no upstream body
    Slice field_lines;    // of the upstream's answer
    SliceQueue body;
    bool has_upstream_answer = false;
    bool retryable = true;
    Outcome outcome = Outcome::UpstreamError;
};

class Exchange final : private LegEvents, private relay::TransferEvents, public ListNode<Exchange> {
public:
    Exchange(Proxy& proxy, http::ServerConnection& client, const Route& route);
    ~Exchange();

    // The body is complete. May answer at once.
    void begin();
    // It waits for admission, got it, or will not.
    void queued();
    void admitted();
    void turned_away();
    void client_gone();
    void client_drained();
    // Between turns: there is a new snapshot.
    void fleet_changed();
    bool done() const { return phase_ == Phase::Done; }

private:
    enum class Phase : std::uint8_t { Queued, Trying, BackingOff, Relaying, Done };

    // -- LegEvents
    void on_leg_head(Leg& leg, const http::ResponseHead& head) override;
    void on_leg_body(Leg& leg, Slice bytes) override;
    void on_leg_end(Leg& leg) override;
    void on_leg_failed(Leg& leg, const LegFailure& failure) override;

    // -- attempts (exchange_attempt.cpp)
    void attempt();
    bool choose_instances();
    void start_prefill();
    void start_decode();
    bool settle_rank();
    bool fail_restarted();
    Duration decode_delay();
    AttemptFacts attempt_facts() const;
    bool prefill_suspect() const;

    // -- the KV relay (exchange_relay.cpp)
    void open_transfer();
    void close_transfer();
    void on_no_pull() override;
    bool relay_unreachable(std::uint16_t decode_status);
    void go_direct();
    bool prefill_has_stopped();
    LegHeadFacts leg_head_facts() const;
    void write_attempt_ids();

    // -- what the legs say (exchange_legs.cpp)
    void prefill_done();
    void doubt_ids_again();
    void prefill_refused(Leg& leg);
    void decode_verdict(DecodeAnswer::Verdict verdict);
    void decode_refused();
    AttemptFailure transport_failure(const Leg& leg, const LegFailure& failure) const;

    // -- ends
    void attempt_failed(AttemptFailure failure);
    bool may_retry(const AttemptFailure& failure);
    void back_off();
    void end_legs();
    void end_prefill_leg();
    void judge_prefill(fleet::Outcome outcome);
    void answer_failure(AttemptFailure& failure);
    void answer_error(std::uint16_t status, std::string_view message, Outcome outcome);
    void commit();
    void relay();
    void relay_end();
    void break_stream(std::string_view message);
    // Before anything of the answer's end is written, since the client's connection may at once go
    // on to the next request. `status`: of the answer.
    void finish(Outcome outcome, std::uint16_t status);
    void count_end(Outcome outcome);
    void count_client_bytes(std::size_t bytes);
    void note_model();
    void log_end(Outcome outcome);
    void on_request_deadline();
    void on_phase_timer();
    void on_idle_timer();
    void arm_first_token_timer();
    Slice write_answer_fields();
    std::string_view affinity_key(char (&scratch)[256]) const;

    Proxy& proxy_;
    http::ServerConnection* client_;
    const Route& route_;
    RequestPath path_;
    Phase phase_ = Phase::Queued;
    bool entered_ = false;          // counted by admission
    bool whole_on_decode_ = false;  // this attempt has no prefill leg
    bool prefill_done_ = false;
    bool prefill_verdict_due_ = false;  // its leg ended well; whether it was of use is not known
    std::uint32_t prefill_ticket_ = 0;
    bool decode_may_pull_ = false;     // D was sent its request, so it may wait for P's blocks
    bool relayed_ = false;             // D is told to pull through the KV relay
    bool direct_only_ = false;         // D did not reach it
    bool stopped_early_ = false;       // P ended at its first token, so D serves it alone
    bool blame_both_ = false;          // a failure behind P's 200 may be either's
    std::uint64_t tried_prefill_ = 0;  // bit per instance that failed this exchange
    std::uint64_t tried_decode_ = 0;

    BodyScan scan_;
    FixedText<kRequestIdMax> request_id_;
    FixedText<128> transfer_id_;
    relay::Relay::Opened transfer_;  // if relayed_

    const Dialect* dialect_ = nullptr;
    fleet::DataParallelRank rank_;       // of this attempt
    std::uint32_t ids_doubts_ = 0;       // of P when its leg began
    std::uint32_t ids_doubts_done_ = 0;  // ... and when it had answered
    Leg* prefill_ = nullptr;
    Leg* decode_ = nullptr;
    Gathered prefill_answer_;
    Slice prefill_fields_;
    std::string_view prefill_params_;  // kv_transfer_params of its answer
    DecodeAnswer answer_;

    Timer request_deadline_;
    Timer phase_timer_;  // decode delay, back-off, queue time-out
    Timer idle_timer_;   // first token, then between events
    Timeline timeline_;
    BoundedText<kLoggedModelMax> model_;
};

}  // namespace sluice::pd
