// SPDX-License-Identifier: Apache-2.0
// The exchange's beginning and its ends; attempts are in exchange_attempt.cpp, what the legs say in
// exchange_legs.cpp.
#include "pd/exchange.h"

#include "http/error_answer.h"
#include "http/head_guard.h"
#include "http/head_writer.h"
#include "json/value.h"
#include "pd/proxy.h"

namespace sluice::pd {

namespace {

constexpr std::size_t kRequestIdMax = 200;
constexpr std::string_view kRetrySoon = "Retry-After: 1\r\n";

void append_hex(std::string& out, std::uint64_t value) {
    constexpr std::string_view kHex = "0123456789abcdef";
    for (int shift = 60; shift >= 0; shift -= 4) out.push_back(kHex[(value >> shift) & 15]);
}

void append_ms(TextWriter& writer, Duration d) {
    const auto us = static_cast<std::uint64_t>(std::max<std::int64_t>(0, d.count() / 1000));
    writer.append_number(us / 1000);
    writer.append('.');
    const std::uint64_t rest = us % 1000;
    writer.append(static_cast<char>('0' + rest / 100));
    writer.append(static_cast<char>('0' + rest / 10 % 10));
    writer.append(static_cast<char>('0' + rest % 10));
}

Outcome outcome_of(std::uint16_t status) {
    if (status < 400) return Outcome::Ok;
    return status < 500 ? Outcome::ClientError : Outcome::UpstreamError;
}

}  // namespace

Exchange::Exchange(Proxy& proxy, http::ServerConnection& client, const Route& route)
    : proxy_(proxy),
      client_(&client),
      route_(route),
      path_(path_of(&route)),
      answer_(proxy.scanner_),
      request_deadline_(Delegate<void()>::to<&Exchange::on_request_deadline>(*this)),
      phase_timer_(Delegate<void()>::to<&Exchange::on_phase_timer>(*this)),
      idle_timer_(Delegate<void()>::to<&Exchange::on_idle_timer>(*this)),
      began_(proxy.loop_.now()) {}

Exchange::~Exchange() { ASSERT(prefill_ == nullptr && decode_ == nullptr); }

void Exchange::begin() {
    const auto given = client_->request().fields.find(http::FieldId::XRequestId);
    if (given && !given->empty() && given->size() <= kRequestIdMax && http::is_token(*given)) {
        request_id_.assign(*given);
    } else {
        append_hex(request_id_, proxy_.rng_());
        append_hex(request_id_, proxy_.rng_());
    }

    const Slice& body = client_->body();
    std::expected<void, std::string> scanned;
    if (route_.serve == Serve::PrefillDecode) {
        scanned = scan_body(proxy_.scanner_, body.view(), route_.api, scan_);
    } else if (route_.edits_kv) {
        scanned = scan_kv_members(proxy_.scanner_, body.view(), scan_);
    }
    if (!scanned) return answer_error(400, scanned.error(), Outcome::ClientError);
    if (scan_.whole_on_decode != WholeOnDecode::No)
        proxy_.metrics_.whole_on_decode[static_cast<std::size_t>(scan_.whole_on_decode)].add();

    proxy_.budget_.earn();
    proxy_.loop_.arm(request_deadline_, proxy_.options_.request_timeout);
    proxy_.enqueue(*this);
}

void Exchange::queued() { proxy_.loop_.arm(phase_timer_, proxy_.options_.queue_timeout); }

void Exchange::turned_away() {
    answer_error(429, "too many requests are being served and waiting", Outcome::Overload);
}

void Exchange::admitted() {
    entered_ = true;
    admitted_at_ = proxy_.loop_.now();
    phase_timer_.cancel();
    phase_ = Phase::Trying;
    attempt();
}

void Exchange::client_gone() {
    client_ = nullptr;
    end_legs();
    finish(Outcome::ClientGone);
}

void Exchange::client_drained() {
    if (decode_ != nullptr) decode_->set_reading(true);
}

// -- timers

void Exchange::on_request_deadline() {
    if (phase_ == Phase::Relaying)
        return break_stream("the request took longer than --request-timeout allows");
    end_legs();
    answer_error(504, "the request took longer than --request-timeout allows", Outcome::Timeout);
}

void Exchange::on_phase_timer() {
    switch (phase_) {
        case Phase::Queued:
            return answer_error(503, "no capacity became free within --queue-timeout",
                                Outcome::Overload);
        case Phase::Trying:
            return start_decode();
        case Phase::BackingOff:
            phase_ = Phase::Trying;
            return attempt();
        case Phase::Relaying:
        case Phase::Done:
            return;
    }
}

void Exchange::arm_first_token_timer() {
    // A plain answer comes whole, when all tokens are computed: only the request's own deadline can
    // bound it.
    if (!scan_.stream || phase_ != Phase::Trying || decode_ == nullptr || !decode_->sent()) return;
    if (whole_on_decode_) {
        proxy_.loop_.arm(idle_timer_,
                         proxy_.options_.prefill_timeout + proxy_.options_.first_token_timeout);
    } else if (prefill_done_) {
        proxy_.loop_.arm(idle_timer_, proxy_.options_.first_token_timeout);
    }
}

void Exchange::on_idle_timer() {
    if (phase_ == Phase::Trying) {
        AttemptFailure failure;
        failure.status = 504;
        failure.outcome = Outcome::Timeout;
        failure.message = "the decode instance sent no token within --first-token-timeout";
        tried_decode_ |= 1ULL << decode_index_;
        decode_->report(fleet::Outcome::Failure);
        blame_both_ = true;
        return attempt_failed(std::move(failure));
    }
    if (phase_ != Phase::Relaying) return;
    const Duration idle = proxy_.loop_.now() - last_byte_;
    const Duration limit = proxy_.options_.idle_timeout;
    // A client that does not read is the server connection's business (stall_timeout).
    if (idle >= limit && !client_->congested())
        return break_stream("the decode instance sent nothing for --idle-timeout");
    proxy_.loop_.arm(idle_timer_, idle >= limit ? limit : limit - idle);
}

// -- failure

void Exchange::end_prefill_leg() {
    if (Leg* leg = std::exchange(prefill_, nullptr)) {
        if (leg->sent() && dialect_ != nullptr &&
            dialect_->finish_unwanted_prefill(decode_may_pull_)) {
            proxy_.metrics_.prefills_detached.add();
            leg->detach();
        } else {
            leg->cancel();
        }
    }
}

void Exchange::end_legs() {
    if (Leg* leg = std::exchange(decode_, nullptr)) leg->cancel();
    end_prefill_leg();
    phase_timer_.cancel();
    idle_timer_.cancel();
}

void Exchange::attempt_failed(AttemptFailure failure) {
    if (phase_ == Phase::Relaying) return break_stream(failure.message);
    if (blame_both_ && prefill_done_) {
        // P said 200, yet D could not go on: either may be at fault, so the next attempt avoids
        // both.
        const fleet::Instance& instance = proxy_.fleet_->prefill[prefill_index_];
        proxy_.report(*instance.state, fleet::Outcome::Failure);
        instance.state->refresh_wanted.store(true, std::memory_order_relaxed);
        tried_prefill_ |= 1ULL << prefill_index_;
    }
    blame_both_ = false;
    end_legs();
    if (may_retry(failure)) return back_off();
    answer_failure(failure);
}

bool Exchange::may_retry(const AttemptFailure& failure) {
    if (!failure.retryable || attempts_ > proxy_.options_.retries) return false;
    if (!proxy_.budget_.spend()) {
        proxy_.metrics_.retries_denied.add();
        return false;
    }
    proxy_.metrics_.retries.add();
    return true;
}

// The first retry goes to another instance at once; later ones wait, longer each time.
void Exchange::back_off() {
    answer_.clear();
    if (attempts_ == 1) return attempt();
    phase_ = Phase::BackingOff;
    const double factor =
        static_cast<double>(1U << std::min(attempts_ - 2, 10U)) * (0.5 + proxy_.rng_.unit());
    proxy_.loop_.arm(phase_timer_,
                     std::chrono::duration_cast<Duration>(proxy_.options_.retry_backoff * factor));
}

void Exchange::answer_failure(AttemptFailure& failure) {
    if (!failure.has_upstream_answer)
        return answer_error(failure.status, failure.message, failure.outcome);
    TextWriter writer(client_->texts());
    writer.append(failure.field_lines.view());
    http::write_field(writer, "X-Request-Id", request_id_);
    const Slice lines = writer.finish();
    http::ServerConnection* client = std::exchange(client_, nullptr);
    finish(failure.outcome);
    client->start_response(failure.status, lines.view(), failure.body.bytes());
    for (std::size_t i = 0; i < failure.body.count(); ++i) client->write(failure.body[i]);
    client->end_response();
}

void Exchange::answer_error(std::uint16_t status, std::string_view message, Outcome outcome) {
    TextWriter writer(client_->texts());
    http::write_field(writer, "X-Request-Id", request_id_);
    if (status == 503 || status == 429) writer.append(kRetrySoon);
    const Slice lines = writer.finish();
    http::ServerConnection* client = std::exchange(client_, nullptr);
    finish(outcome);
    client->respond_error(status, message, lines.view());
}

// -- success

Slice Exchange::write_answer_fields() {
    TextWriter writer(client_->texts());
    writer.append(answer_.field_lines().view());
    http::write_field(writer, "X-Request-Id", request_id_);
    if (route_.serve == Serve::PrefillDecode) {
        writer.append("Server-Timing: queue;dur=");
        append_ms(writer, admitted_at_ - began_);
        if (!whole_on_decode_) {
            writer.append(", prefill;dur=");
            append_ms(writer, (prefill_done_ ? prefill_ended_ : first_content_) - prefill_began_);
        }
        writer.append(", first_token;dur=");
        append_ms(writer, first_content_ - began_);
        if (attempts_ > 1) {
            writer.append(", attempts;desc=\"");
            writer.append_number(attempts_);
            writer.append('"');
        }
        writer.append("\r\n");
    }
    if (proxy_.options_.expose_instances) {
        if (!whole_on_decode_)
            http::write_field(writer, "X-Sluice-Prefill",
                              proxy_.fleet_->prefill[prefill_index_].url);
        http::write_field(writer, "X-Sluice-Decode", proxy_.fleet_->decode[decode_index_].url);
    }
    return writer.finish();
}

// The first content is here: from now on it is this pair or none.
void Exchange::commit() {
    phase_ = Phase::Relaying;
    first_content_ = last_byte_ = proxy_.loop_.now();
    phase_timer_.cancel();
    if (decode_ != nullptr)
        decode_->report(outcome_of(answer_.status()) == Outcome::Ok ? fleet::Outcome::Success
                                                                    : fleet::Outcome::Neutral);
    if (!whole_on_decode_)
        proxy_.report(*proxy_.fleet_->prefill[prefill_index_].state, fleet::Outcome::Success);
    const Slice lines = write_answer_fields();
    end_prefill_leg();
    client_->release_request();
    client_->start_response(answer_.status(), lines.view(), answer_.content_length());
    if (scan_.stream || answer_.is_event_stream()) {
        proxy_.loop_.arm(idle_timer_, proxy_.options_.idle_timeout);
    } else {
        idle_timer_.cancel();
    }
    relay();
}

void Exchange::relay() {
    SliceQueue ready;
    answer_.take_ready(ready);
    if (ready.empty()) return;
    last_byte_ = proxy_.loop_.now();
    proxy_.metrics_.response_bytes.add(ready.bytes());
    for (std::size_t i = 0; i < ready.count(); ++i) client_->write(ready[i]);
    if (client_->congested() && decode_ != nullptr) decode_->set_reading(false);
}

void Exchange::relay_end() {
    SliceQueue rest;
    answer_.take_rest(rest);
    proxy_.metrics_.response_bytes.add(rest.bytes());
    http::ServerConnection* client = std::exchange(client_, nullptr);
    finish(outcome_of(answer_.status()));
    for (std::size_t i = 0; i < rest.count(); ++i) client->write(rest[i]);
    client->end_response();
}

// Ends an answer that has begun so that nobody takes it for whole.
void Exchange::break_stream(std::string_view message) {
    end_legs();
    if (answer_.is_event_stream() && !answer_.inside_event()) {
        TextWriter writer(client_->texts());
        const bool named = route_.api == json::Api::Responses || route_.api == json::Api::Messages;
        writer.append(named ? "event: error\ndata: " : "data: ");
        http::write_error_json(writer, 502, message);
        writer.append("\n\n");
        client_->write(writer.finish());
    }
    http::ServerConnection* client = std::exchange(client_, nullptr);
    finish(Outcome::Broken);
    client->cut_response();
}

void Exchange::finish(Outcome outcome) {
    ASSERT(phase_ != Phase::Done);
    phase_ = Phase::Done;
    request_deadline_.cancel();
    phase_timer_.cancel();
    idle_timer_.cancel();
    answer_.clear();
    proxy_.metrics_.count(path_, outcome);
    proxy_.leave(*this, entered_);
    proxy_.exchange_done(*this);
}

}  // namespace sluice::pd
