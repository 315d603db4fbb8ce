// SPDX-License-Identifier: Apache-2.0
#include "load/call.h"

namespace sluice::load {

namespace {

Failure failure_of(std::uint16_t status) {
    if (status == 429 || status == 503) return Failure::Overload;
    return status >= 500 ? Failure::ServerError : Failure::Refused;
}

Failure failure_of(http::ClientFailure::Kind kind) {
    using Kind = http::ClientFailure::Kind;
    switch (kind) {
        case Kind::Connect:
        case Kind::ConnectTimeout:
        case Kind::Limit:
            return Failure::Connect;
        case Kind::Closed:
        case Kind::Broken:
            return Failure::Broken;
        case Kind::Protocol:
            return Failure::Protocol;
    }
    return Failure::Broken;
}

}  // namespace

Call::Call(CallShared& shared)
    : shared_(shared), request_(*this), timeout_(Delegate<void()>::to<&Call::on_timeout>(*this)) {}

void Call::start(SliceQueue message, Instant meant_at, bool counts) {
    active_ = true;
    counts_ = counts;
    meant_at_ = meant_at;
    status_ = 0;
    is_stream_ = error_event_ = false;
    if (counts_) {
        shared_.tally.started.add();
        shared_.tally.bytes_out.add(message.bytes());
        shared_.tally.late.record(MonotonicClock::now() - meant_at);
    }
    shared_.loop.arm(timeout_, shared_.options.timeout);
    request_.start(shared_.pool, std::move(message));
}

void Call::cut() {
    request_.cancel();
    end(Failure::Unfinished);
}

void Call::on_timeout() {
    request_.cancel();
    end(Failure::Timeout);
}

void Call::on_response_head(const http::ResponseHead& head) {
    status_ = head.status;
    const auto type = head.fields.find(http::FieldId::ContentType).value_or("");
    is_stream_ = status_ < 300 && type.starts_with("text/event-stream");
    if (is_stream_) stream_.start(shared_.options.api);
}

void Call::on_response_body(Slice bytes) {
    if (counts_) shared_.tally.bytes_in.add(bytes.size);
    if (!is_stream_) return;
    std::string_view rest = bytes.view();
    while (!rest.empty()) note(stream_.next(shared_.scanner, rest));
}

void Call::note(StreamReader::Seen seen) {
    const Instant now = shared_.loop.now();
    Tally& tally = shared_.tally;
    switch (seen) {
        case StreamReader::Seen::Nothing:
        case StreamReader::Seen::Done:
            return;
        case StreamReader::Seen::Error:
            error_event_ = true;
            return;
        case StreamReader::Seen::FirstContent:
            if (counts_) tally.first_token.record(now - meant_at_);
            break;
        case StreamReader::Seen::Content:
            if (counts_) tally.gap.record(now - last_event_);
            break;
    }
    last_event_ = now;
    tally.events_seen.add();
    if (counts_) tally.events.add();
}

void Call::on_response_end() {
    if (status_ >= 300) return end(failure_of(status_));
    if (error_event_) return end(Failure::ErrorEvent);
    if (is_stream_ && !stream_.done()) return end(Failure::NoDone);
    if (shared_.options.stream && !is_stream_) return end(Failure::Protocol);
    end(std::nullopt);
}

void Call::on_response_failed(const http::ClientFailure& failure) {
    end(error_event_ ? Failure::ErrorEvent : failure_of(failure.kind));
}

void Call::end(std::optional<Failure> failure) {
    timeout_.cancel();
    active_ = false;
    Tally& tally = shared_.tally;
    tally.ended.add();
    if (counts_) {
        if (failure) {
            tally.failures[static_cast<std::size_t>(*failure)].add();
        } else {
            tally.succeeded.add();
            tally.total.record(shared_.loop.now() - meant_at_);
        }
    }
    shared_.owner.call_ended(*this, failure != Failure::Connect);
}

}  // namespace sluice::load
