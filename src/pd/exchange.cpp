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

// As nginx logs a client that left before its answer.
constexpr std::uint16_t kClientGoneStatus = 499;
constexpr std::string_view kRetrySoon = "Retry-After: 1\r\n";

void append_hex(FixedText<kRequestIdMax>& out, std::uint64_t value) {
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
      idle_timer_(Delegate<void()>::to<&Exchange::on_idle_timer>(*this)) {
    timeline_.received = client.request_began();
    timeline_.began = proxy.loop_.now();
}

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
    timeline_.client_in = body.size;
    std::expected<void, std::string> scanned;
    if (route_.serve == Serve::PrefillDecode) {
        scanned = scan_body(proxy_.scanner_, body.view(), route_.api, scan_);
    } else if (route_.edits_kv) {
        scanned = scan_kv_members(proxy_.scanner_, body.view(), scan_);
    }
    if (!scanned) return answer_error(400, scanned.error(), Outcome::ClientError);
    note_model();
    if (scan_.whole_on_decode != WholeOnDecode::No)
        proxy_.metrics_.whole_on_decode[static_cast<std::size_t>(scan_.whole_on_decode)].add();

    proxy_.budget_.earn();
    proxy_.loop_.arm(request_deadline_, proxy_.options_.request_timeout);
    proxy_.enqueue(*this);
}

// For the log, which is written when the body has gone.
void Exchange::note_model() {
    char scratch[4 * kLoggedModelMax];
    if (proxy_.access_log_ == nullptr || scan_[kModel].kind != json::Kind::String) return;
    model_.set(json::as_string(scan_[kModel], client_->body().view(), scratch)
                   .value_or(std::string_view()));
}

void Exchange::queued() { proxy_.loop_.arm(phase_timer_, proxy_.options_.queue_timeout); }

void Exchange::turned_away() {
    answer_error(429, "too many requests are being served and waiting", Outcome::Overload);
}

void Exchange::admitted() {
    entered_ = true;
    timeline_.admitted = proxy_.loop_.now();
    proxy_.metrics_.queue.record(timeline_.admitted - timeline_.began);
    phase_timer_.cancel();
    phase_ = Phase::Trying;
    attempt();
}

void Exchange::client_gone() {
    client_ = nullptr;
    // Relayed, D says it to us, who can answer.
    if (decode_ != nullptr && decode_->sent() && phase_ == Phase::Trying && !whole_on_decode_ &&
        !relayed_ && dialect_ != nullptr && dialect_->finish_unwanted_decode(scan_.stream) &&
        proxy_.let_finish(*decode_))
        decode_ = nullptr;
    end_legs();
    finish(Outcome::ClientGone, phase_ == Phase::Relaying ? answer_.status() : kClientGoneStatus);
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
            // P has not refused by now, so it can be expected to have accepted.
            if (relayed_ && decode_->sent())
                return proxy_.relay_->accept_likely(transfer_.transfer);
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
        tried_decode_ |= 1ULL << timeline_.decode_index;
        decode_->report(fleet::Outcome::Failure);
        blame_both_ = true;
        return attempt_failed(std::move(failure));
    }
    if (phase_ != Phase::Relaying) return;
    const Duration idle = proxy_.loop_.now() - timeline_.last_byte;
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
            proxy_.let_prefill_finish(*leg);
        } else {
            leg->cancel();
        }
    }
}

// Once an attempt: by its leg, or in the place of one that has ended.
void Exchange::judge_prefill(fleet::Outcome outcome) {
    if (prefill_ != nullptr) return prefill_->report(outcome);
    if (std::exchange(prefill_verdict_due_, false))
        proxy_.report(*proxy_.fleet_->prefill[timeline_.prefill_index].state, outcome, prefill_ticket_);
}

void Exchange::end_legs() {
    if (Leg* leg = std::exchange(decode_, nullptr)) leg->cancel();
    close_transfer();
    end_prefill_leg();
    judge_prefill(fleet::Outcome::Neutral);
    phase_timer_.cancel();
    idle_timer_.cancel();
}

void Exchange::attempt_failed(AttemptFailure failure) {
    if (phase_ == Phase::Relaying) return break_stream(failure.message);
    if (blame_both_ && prefill_done_) {
        // P said 200, yet D could not go on: either may be at fault, so the next attempt avoids
        // both.
        const fleet::Instance& instance = proxy_.fleet_->prefill[timeline_.prefill_index];
        judge_prefill(fleet::Outcome::Failure);
        instance.state->refresh_wanted.store(true, std::memory_order_relaxed);
        tried_prefill_ |= 1ULL << timeline_.prefill_index;
    }
    blame_both_ = false;
    end_legs();
    if (may_retry(failure)) return back_off();
    answer_failure(failure);
}

bool Exchange::may_retry(const AttemptFailure& failure) {
    if (!failure.retryable || timeline_.attempts > proxy_.options_.retries) return false;
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
    if (timeline_.attempts == 1) return attempt();
    phase_ = Phase::BackingOff;
    const double factor = static_cast<double>(1U << std::min(timeline_.attempts - 2, 10U)) *
                          (0.5 + proxy_.rng_.unit());
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
    count_client_bytes(failure.body.bytes());
    finish(failure.outcome, failure.status);
    client->start_response(failure.status, lines.view(), failure.body.bytes());
    for (std::size_t i = 0; i < failure.body.count(); ++i) client->write(failure.body[i]);
    client->end_response();
}

void Exchange::answer_error(std::uint16_t status, std::string_view message, Outcome outcome) {
    TextWriter writer(client_->texts());
    http::write_field(writer, "X-Request-Id", request_id_);
    if (status == 503 || status == 429) writer.append(kRetrySoon);
    const Slice lines = writer.finish();
    TextWriter json(client_->texts());
    http::write_error_json(json, status, message);
    const Slice body = json.finish();
    count_client_bytes(body.size);
    http::ServerConnection* client = std::exchange(client_, nullptr);
    finish(outcome, status);
    client->respond(status, "application/json", body.view(), lines.view());
}

// -- success

Slice Exchange::write_answer_fields() {
    TextWriter writer(client_->texts());
    writer.append(answer_.field_lines().view());
    http::write_field(writer, "X-Request-Id", request_id_);
    if (route_.serve == Serve::PrefillDecode) {
        writer.append("Server-Timing: queue;dur=");
        append_ms(writer, between(timeline_.began, timeline_.admitted));
        if (!whole_on_decode_) {
            writer.append(", prefill;dur=");
            append_ms(writer,
                      between(timeline_.prefill_began,
                              prefill_done_ ? timeline_.prefill_ended : timeline_.first_content));
        }
        if (prefill_done_ && answer_.is_event_stream()) {
            writer.append(", kv_wait;dur=");
            append_ms(writer, between(timeline_.prefill_ended, timeline_.first_content));
        }
        writer.append(", first_token;dur=");
        append_ms(writer, between(timeline_.began, timeline_.first_content));
        if (timeline_.attempts > 1) {
            writer.append(", attempts;desc=\"");
            writer.append_number(timeline_.attempts);
            writer.append('"');
        }
        writer.append("\r\n");
    }
    if (proxy_.options_.expose_instances) {
        if (!whole_on_decode_)
            http::write_field(writer, "X-Sluice-Prefill",
                              proxy_.fleet_->prefill[timeline_.prefill_index].url);
        http::write_field(writer, "X-Sluice-Decode",
                          proxy_.fleet_->decode[timeline_.decode_index].url);
    }
    return writer.finish();
}

// The first content is here: from now on it is this pair or none.
void Exchange::commit() {
    phase_ = Phase::Relaying;
    timeline_.first_content = timeline_.last_byte = proxy_.loop_.now();
    timeline_.pieces = 1;
    phase_timer_.cancel();
    if (answer_.is_event_stream()) {
        proxy_.metrics_.first_token.record(timeline_.first_content - timeline_.began);
        if (prefill_done_)
            proxy_.metrics_.kv_wait.record(
                between(timeline_.prefill_ended, timeline_.first_content));
    }
    if (decode_ != nullptr)
        decode_->report(outcome_of(answer_.status()) == Outcome::Ok ? fleet::Outcome::Success
                                                                    : fleet::Outcome::Neutral);
    if (!whole_on_decode_) judge_prefill(fleet::Outcome::Success);
    const Slice lines = write_answer_fields();
    close_transfer();
    end_prefill_leg();
    client_->release_request();
    client_->start_response(answer_.status(), lines.view(), answer_.content_length());
    if (scan_.stream || answer_.is_event_stream()) {
        proxy_.loop_.arm(idle_timer_, proxy_.options_.idle_timeout);
    } else {
        idle_timer_.cancel();
    }
    // What only a further attempt or the head would need gives its pages back.
    prefill_answer_.clear();
    prefill_params_ = {};
    answer_.release_fields();
    relay();
}

void Exchange::relay() {
    const std::size_t ready = answer_.ready_bytes();
    if (ready == 0) return;
    const Instant now = proxy_.loop_.now();
    if (now != timeline_.last_byte) {  // what comes in one turn leaves in one piece
        if (answer_.is_event_stream()) proxy_.metrics_.event_gap.record(now - timeline_.last_byte);
        timeline_.last_byte = now;
        ++timeline_.pieces;
    }
    count_client_bytes(ready);
    answer_.take_ready([this](Slice bytes) { client_->write(std::move(bytes)); });
    if (client_->congested() && decode_ != nullptr) decode_->set_reading(false);
}

void Exchange::relay_end() {
    const SliceQueue rest = answer_.take_rest();
    if (!rest.empty()) {
        timeline_.last_byte = proxy_.loop_.now();
        count_client_bytes(rest.bytes());
    }
    http::ServerConnection* client = std::exchange(client_, nullptr);
    finish(outcome_of(answer_.status()), answer_.status());
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
    finish(Outcome::Broken, answer_.status());
    client->cut_response();
}

void Exchange::count_client_bytes(std::size_t bytes) {
    timeline_.client_out += bytes;
    proxy_.metrics_.count_bytes(Side::Client, 0, bytes);
}

void Exchange::finish(Outcome outcome, std::uint16_t status) {
    ASSERT(phase_ != Phase::Done);
    close_transfer();
    timeline_.status = status;
    count_end(outcome);
    phase_ = Phase::Done;
    request_deadline_.cancel();
    phase_timer_.cancel();
    idle_timer_.cancel();
    answer_.clear();
    proxy_.leave(*this, entered_);
    proxy_.exchange_done(*this);
}

void Exchange::count_end(Outcome outcome) {
    WorkerMetrics& metrics = proxy_.metrics_;
    metrics.count(path_, outcome, timeline_.dialect);
    const Duration total = proxy_.loop_.now() - timeline_.began;
    (scan_.stream ? metrics.stream_total : metrics.plain_total).record(total);
    metrics.count_bytes(Side::Client, timeline_.client_in, 0);
    metrics.count_bytes(Side::Prefill, timeline_.prefill_in, timeline_.prefill_out);
    metrics.count_bytes(Side::Decode, timeline_.decode_in, timeline_.decode_out);
    log_end(outcome);
}

void Exchange::log_end(Outcome outcome) {
    const std::uint32_t sample = proxy_.log_wanted(outcome);
    if (sample == 0) return;
    AccessRecord record;
    record.timeline = timeline_;
    record.ended = proxy_.loop_.now();
    record.sample = sample;
    record.outcome = outcome;
    record.stream = scan_.stream;
    record.request_id.set(request_id_);
    record.model = model_;
    record.path.set(route_.path);
    proxy_.log(record);
}

}  // namespace sluice::pd
