// SPDX-License-Identifier: Apache-2.0
#include "pd/decode_answer.h"

#include "base/limits.h"
#include "http/head_writer.h"

namespace sluice::pd {

namespace {

using http::FieldId;

// The proxy's own id is returned instead, and an upstream's timing would be taken for the whole.
constexpr http::FieldSet kNotForClients = http::kHopByHop | http::FieldSet{FieldId::XRequestId};

}  // namespace

void DecodeAnswer::clear() {
    held_.clear();
    ready_ = 0;
    field_lines_ = Slice();
    event_.clear();
    refused_body_.clear();
}

void DecodeAnswer::reset(json::Api api, bool unchecked) {
    clear();
    api_ = api;
    unchecked_ = unchecked;
    committed_ = complete_ = event_stream_ = error_status_ = overflowed_ = inside_event_ = false;
    status_ = refused_status_ = 0;
    framing_ = http::Framing::None;
    content_length_ = 0;
    scanner_ = http::SseScanner();
}

DecodeAnswer::Verdict DecodeAnswer::on_head(const http::ResponseHead& head, TextArena& texts) {
    status_ = head.status;
    framing_ = head.framing;
    content_length_ = head.content_length;
    const auto type = head.fields.find(FieldId::ContentType).value_or("");
    event_stream_ = type.starts_with("text/event-stream");
    error_status_ = status_ >= 400;
    TextWriter writer(texts);
    http::copy_fields(writer, head.fields, kNotForClients);
    field_lines_ = writer.finish();
    if (unchecked_ && !error_status_) {
        committed_ = true;
        return Verdict::Content;
    }
    return Verdict::Hold;
}

DecodeAnswer::Verdict DecodeAnswer::on_body(Slice bytes) {
    if (committed_) {
        const std::size_t size = bytes.size;
        if (!event_stream_) {
            held_.push(std::move(bytes));
            ready_ += size;
            return Verdict::Hold;
        }
        const auto end = scanner_.last_end(bytes.view());
        if (end) ready_ = held_.bytes() + *end;
        held_.push(std::move(bytes));
        // An event that is too long to be held goes out in parts.
        inside_event_ = inside_event_ && !end;
        if (scanner_.open_bytes() > limits::kPartialEventMax) inside_event_ = true;
        if (inside_event_) ready_ = held_.bytes();
        return Verdict::Hold;
    }
    if (error_status_ || !event_stream_) {
        held_.push(std::move(bytes));
        if (held_.bytes() > limits::kHoldbackBytesMax) {
            if (error_status_) {
                overflowed_ = true;
                held_.pop_bytes(held_.bytes() - limits::kUpstreamErrorBytesMax);
                return Verdict::Hold;
            }
            committed_ = true;
            ready_ = held_.bytes();
            return Verdict::Content;
        }
        return Verdict::Hold;
    }
    return look_for_content(bytes);
}

DecodeAnswer::Verdict DecodeAnswer::look_for_content(const Slice& bytes) {
    const std::size_t before = held_.bytes();
    held_.push(bytes);
    std::string_view rest = bytes.view();
    std::size_t taken = 0;
    while (!rest.empty()) {
        const auto end = scanner_.next_end(rest);
        const std::string_view part = rest.substr(0, end.value_or(rest.size()));
        Verdict verdict = Verdict::Hold;
        if (end && event_.empty()) {
            verdict = judge_event(part);  // where it lies: every buffer has slack behind it
        } else {
            event_.append(part);
            if (!end) break;
            const std::size_t size = event_.size();
            event_.append(limits::kBufferSlack, '\0');
            verdict = judge_event(std::string_view(event_).substr(0, size));
            event_.clear();
        }
        taken += *end;
        rest.remove_prefix(*end);
        if (verdict == Verdict::Hold) continue;
        if (verdict == Verdict::Content) {
            committed_ = true;
            ready_ = before + taken;
            if (const auto last = scanner_.last_end(rest)) ready_ += *last;
        }
        return verdict;
    }
    if (held_.bytes() <= limits::kHoldbackBytesMax) return Verdict::Hold;
    // Something is being sent; whatever it is, it is too much to be a preamble.
    committed_ = true;
    inside_event_ = true;
    ready_ = held_.bytes();
    return Verdict::Content;
}

DecodeAnswer::Verdict DecodeAnswer::judge_event(std::string_view bytes) {
    char joined[4096 + limits::kBufferSlack] = {};
    const auto event = http::parse_event(bytes, std::span(joined).first<4096>());
    if (!event) return Verdict::Content;
    if (event->comment_only || !event->has_data) return Verdict::Hold;
    const json::StreamEvent kind = json::classify(json_, api_, event->name, event->data);
    switch (kind.kind) {
        case json::StreamEvent::Kind::Preamble:
            return Verdict::Hold;
        case json::StreamEvent::Kind::Content:
        case json::StreamEvent::Kind::Done:
            return Verdict::Content;
        case json::StreamEvent::Kind::Error:
            refused_status_ = kind.http_code;
            refused_body_.assign(event->data);
            return Verdict::Refused;
    }
    return Verdict::Content;
}

DecodeAnswer::Verdict DecodeAnswer::on_end() {
    complete_ = true;
    if (committed_) return Verdict::Hold;
    if (error_status_) {
        refused_status_ = status_;
        return Verdict::Refused;
    }
    if (event_stream_) {
        // It ended without a single event of content.
        refused_status_ = 502;
        return Verdict::Refused;
    }
    committed_ = true;
    ready_ = held_.bytes();
    return Verdict::Content;
}

std::optional<std::uint64_t> DecodeAnswer::content_length() const {
    if (framing_ == http::Framing::Length) return content_length_;
    if (complete_) return held_.bytes();
    if (framing_ == http::Framing::None) return 0;
    return std::nullopt;
}

}  // namespace sluice::pd
