// SPDX-License-Identifier: Apache-2.0
// What the legs say, and what it means.
#include "http/head_writer.h"
#include "json/scan.h"
#include "json/value.h"
#include "pd/exchange.h"
#include "pd/proxy.h"

namespace sluice::pd {

namespace {

// 429 and 503 are back-pressure: worth trying elsewhere, no sign of ill health.
bool is_back_pressure(std::uint16_t status) { return status == 429 || status == 503; }

// Another instance may do better. A 501 or a 4xx would be the same everywhere.
bool worth_retrying(std::uint16_t status) {
    return is_back_pressure(status) || (status >= 500 && status != 501 && status != 505);
}

fleet::Outcome health_of(std::uint16_t status) {
    return status >= 500 && !is_back_pressure(status) && status != 501 ? fleet::Outcome::Failure
                                                                       : fleet::Outcome::Neutral;
}

Outcome outcome_of_refusal(std::uint16_t status) {
    return status < 500 ? Outcome::ClientError : Outcome::UpstreamError;
}

// kv_transfer_params of P's answer, raw; empty if absent, null, or the answer is no JSON object.
// The answer needs the slack that the scanner asks for.
std::string_view find_params(json::Scanner& scanner, std::string_view answer) {
    static constexpr json::MemberSpec kSpecs[] = {{"kv_transfer_params", json::kRoot}};
    static constexpr json::MemberTable kTable{kSpecs};
    json::Member found[1];
    if (!scanner.scan(answer, kTable, found)) return {};
    return found[0].kind == json::Kind::Object ? json::raw(found[0], answer) : std::string_view();
}

}  // namespace

void Exchange::on_leg_head(Leg& leg, const http::ResponseHead& head) {
    if (&leg == decode_) {
        timeline_.decode_head = proxy_.loop_.now();
        return decode_verdict(answer_.on_head(head, client_->texts()));
    }
    if (head.status >= 300) {
        TextWriter writer(client_->texts());
        http::copy_fields(writer, head.fields,
                          http::kHopByHop | http::FieldSet{http::FieldId::XRequestId});
        prefill_fields_ = writer.finish();
    }
}

void Exchange::on_leg_body(Leg& leg, Slice bytes) {
    if (&leg == decode_) {
        timeline_.decode_in += bytes.size;
        decode_verdict(answer_.on_body(std::move(bytes)));
        return;
    }
    timeline_.prefill_in += bytes.size;
    // P's answer matters when it is an error, or when D must be told what it says.
    if (leg.status() < 300 && !dialect_->answer_carries_params() && !relayed_) return;
    const bool too_large = prefill_answer_.size() + bytes.size > limits::kPrefillAnswerMax;
    if (too_large || !prefill_answer_.append(std::move(bytes), proxy_.loop_.buffers())) {
        AttemptFailure failure;
        failure.message = too_large ? "the prefill instance's answer is too large"
                                    : "there is no buffer memory for the prefill's answer";
        tried_prefill_ |= 1ULL << timeline_.prefill_index;
        leg.report(fleet::Outcome::Failure);
        return attempt_failed(std::move(failure));
    }
}

void Exchange::on_leg_end(Leg& leg) {
    if (&leg == prefill_) {
        prefill_ = nullptr;
        if (leg.status() >= 300) return prefill_refused(leg);
        prefill_ticket_ = leg.take_over_report();
        prefill_verdict_due_ = true;
        return prefill_done();
    }
    if (phase_ == Phase::Relaying) {
        decode_ = nullptr;
        return relay_end();
    }
    const DecodeAnswer::Verdict verdict = answer_.on_end();
    if (verdict == DecodeAnswer::Verdict::Refused) return decode_refused();
    decode_->report(fleet::Outcome::Success);
    decode_ = nullptr;
    commit();
    relay_end();
}

void Exchange::on_leg_failed(Leg& leg, const LegFailure& failure) {
    AttemptFailure attempt = transport_failure(leg, failure);
    if (&leg == prefill_) {
        tried_prefill_ |= 1ULL << timeline_.prefill_index;
        leg.state().refresh_wanted.store(true, std::memory_order_relaxed);
        // One that is late still runs, and ends as one that nobody wants any more.
        if (failure.timed_out) return attempt_failed(std::move(attempt));
        prefill_ = nullptr;
        if (!failure.client.is_local()) leg.state().doubt_ids();
        if (relayed_) proxy_.relay_->failed(transfer_.transfer, false);
        return attempt_failed(std::move(attempt));
    }
    decode_ = nullptr;
    if (phase_ == Phase::Relaying) return break_stream(attempt.message);
    tried_decode_ |= 1ULL << timeline_.decode_index;
    if (!failure.timed_out && !failure.client.delivered) decode_may_pull_ = false;
    // Outside P/D a request that may have been acted on is never sent again.
    if (route_.serve != Serve::PrefillDecode && failure.client.delivered) attempt.retryable = false;
    attempt_failed(std::move(attempt));
}

AttemptFailure Exchange::transport_failure(const Leg& leg, const LegFailure& failure) const {
    AttemptFailure attempt;
    const std::string who =
        leg.role() == fleet::Role::Prefill ? "the prefill instance" : "the decode instance";
    if (failure.timed_out) {
        attempt.status = 504;
        attempt.outcome = Outcome::Timeout;
        attempt.message = who + " did not finish within --prefill-timeout";
        return attempt;
    }
    using Kind = http::ClientFailure::Kind;
    if (failure.client.is_local()) {
        attempt.status = 503;
        attempt.outcome = Outcome::Overload;
        attempt.message = "the proxy is out of connections: " + failure.client.describe();
        return attempt;
    }
    const bool timed_out = failure.client.kind == Kind::ConnectTimeout;
    attempt.status = timed_out ? 504 : 502;
    attempt.outcome = timed_out ? Outcome::Timeout : Outcome::UpstreamError;
    attempt.message = who + ": " + failure.client.describe();
    return attempt;
}

// -- prefill

void Exchange::prefill_done() {
    prefill_done_ = true;
    timeline_.prefill_ended = proxy_.loop_.now();
    proxy_.metrics_.prefill.record(timeline_.prefill_ended - timeline_.prefill_began);
    if (phase_ == Phase::Trying)
        proxy_.pace_[timeline_.prefill_index].note(
            client_->body().size, timeline_.prefill_ended - timeline_.prefill_began);
    if (phase_ != Phase::Trying) return;
    if (dialect_->answer_carries_params()) {
        prefill_params_ = find_params(proxy_.scanner_, prefill_answer_.view());
        if (prefill_params_.empty()) {
            AttemptFailure failure;
            failure.message = "the prefill instance's answer carries no kv_transfer_params";
            prefill_done_ = false;
            tried_prefill_ |= 1ULL << timeline_.prefill_index;
            judge_prefill(fleet::Outcome::Failure);
            return attempt_failed(std::move(failure));
        }
    }
    if (relayed_) {
        if (prefill_has_stopped()) return;
        proxy_.relay_->ready(transfer_.transfer);
    }
    if (!decode_->sent()) {
        doubt_ids_again();
        return start_decode();
    }
    arm_first_token_timer();
}

// P answers, so its bootstrap server is there as well; what was asked before that counts for
// little.
void Exchange::doubt_ids_again() {
    const fleet::Instance& instance = proxy_.fleet_->prefill[timeline_.prefill_index];
    ids_doubts_done_ = ids_doubts_;
    if (dialect_->order() != LegOrder::Concurrent || instance.ids_sure()) return;
    ids_doubts_done_ = instance.state->doubt_ids();
    if (ids_doubts_done_ == ids_doubts_ + 1) ids_doubts_ = ids_doubts_done_;
}

void Exchange::prefill_refused(Leg& leg) {
    const std::uint16_t status = leg.status();
    if (phase_ != Phase::Trying) return;
    if (relayed_) proxy_.relay_->failed(transfer_.transfer, true);
    AttemptFailure failure;
    failure.status = status;
    failure.retryable = worth_retrying(status);
    failure.outcome = outcome_of_refusal(status);
    failure.message = "the prefill instance refused the request";
    failure.has_upstream_answer = true;
    failure.field_lines = prefill_fields_;
    TextWriter writer(client_->texts());
    writer.append(prefill_answer_.view().substr(0, limits::kUpstreamErrorBytesMax));
    failure.body.push(writer.finish());
    tried_prefill_ |= 1ULL << timeline_.prefill_index;
    const fleet::Outcome health = health_of(status);
    leg.report(health);
    if (health == fleet::Outcome::Failure)
        leg.state().refresh_wanted.store(true, std::memory_order_relaxed);
    attempt_failed(std::move(failure));
}

// -- decode

void Exchange::decode_verdict(DecodeAnswer::Verdict verdict) {
    if (phase_ == Phase::Relaying) return relay();
    switch (verdict) {
        case DecodeAnswer::Verdict::Hold:
            return;
        case DecodeAnswer::Verdict::Content:
            return commit();
        case DecodeAnswer::Verdict::Refused:
            return decode_refused();
    }
}

void Exchange::decode_refused() {
    const std::uint16_t status = answer_.refused_status();
    if (relayed_ && relay_unreachable(status)) return go_direct();
    AttemptFailure failure;
    failure.status = status;
    failure.retryable = worth_retrying(status);
    failure.outcome = outcome_of_refusal(status);
    if (answer_.status() >= 400) {
        failure.has_upstream_answer = true;
        failure.field_lines = answer_.field_lines();
        failure.body = std::move(answer_.held());
    } else if (!answer_.refused_body().empty()) {
        // An error event before any content: what would have been an HTTP error, had D known in
        // time.
        TextWriter lines(client_->texts());
        http::write_date(lines);
        http::write_field(lines, "Content-Type", "application/json");
        failure.field_lines = lines.finish();
        TextWriter body(client_->texts());
        body.append(answer_.refused_body());
        failure.body.push(body.finish());
        failure.has_upstream_answer = true;
    } else {
        failure.message = "the decode instance ended its stream without any content";
    }
    tried_decode_ |= 1ULL << timeline_.decode_index;
    const fleet::Outcome health = health_of(status);
    if (decode_ != nullptr) decode_->report(health);
    blame_both_ = health == fleet::Outcome::Failure;
    if (route_.serve != Serve::PrefillDecode && !is_back_pressure(status))
        failure.retryable = false;
    attempt_failed(std::move(failure));
}

}  // namespace sluice::pd
