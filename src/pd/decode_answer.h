// SPDX-License-Identifier: Apache-2.0
// D's answer on its way to the client: held back until it proves something, then passed on in whole
// events.
//
// D's 200 head, comments and the bare role chunk prove nothing (the KV may still fail to arrive),
// so they wait here together with the first content event; until that one another instance may
// still be tried. An answer that is not a stream is held until it is complete or kHoldbackBytesMax,
// since until then it could break off. Afterwards bytes go on as they come, cut at event ends, so
// that a stream that breaks can end with an error event of its own. Threads: one. Owns: what is
// held. Costs: a look at a piece's end, once content has come.
#pragma once

#include <algorithm>
#include <concepts>
#include <string>

#include "http/head.h"
#include "http/sse.h"
#include "json/stream_event.h"
#include "mem/slice_queue.h"
#include "mem/text_arena.h"

namespace sluice::pd {

class DecodeAnswer {
public:
    enum class Verdict : std::uint8_t {
        Hold,     // nothing to say yet
        Content,  // the first content is here: commit
        Refused,  // an error answer, complete: refused_status(), take_held()
    };

    explicit DecodeAnswer(json::Scanner& scanner) : json_(scanner) {}

    // `unchecked`: pass everything on from the head (paths without P/D).
    void reset(json::Api api, bool unchecked);

    Verdict on_head(const http::ResponseHead& head, TextArena& texts);
    Verdict on_body(Slice bytes);
    Verdict on_end();

    std::uint16_t status() const { return status_; }
    // The fields for the client, as complete lines.
    const Slice& field_lines() const { return field_lines_; }
    void release_fields() { field_lines_ = Slice(); }
    // Known when the answer's size is: a Content-Length, or a complete answer.
    std::optional<std::uint64_t> content_length() const;
    bool is_event_stream() const { return event_stream_; }

    // What may go out now (after Content: what was held; then each piece); the rest stays until its
    // event is whole.
    std::size_t ready_bytes() const { return ready_; }
    template <std::invocable<Slice> F>
    void take_ready(F&& sink) {
        while (ready_ > 0) {
            const std::size_t size = std::min<std::size_t>(held_[0].size, ready_);
            Slice part = held_[0].part(0, size);
            held_.pop_bytes(size);
            ready_ -= size;
            sink(std::move(part));
        }
    }
    // At the end of a whole answer: also what is left.
    SliceQueue take_rest() {
        ready_ = 0;
        return std::move(held_);
    }
    // Whether the client is in the middle of an event, so that no error event can follow.
    bool inside_event() const { return inside_event_; }

    std::uint16_t refused_status() const { return refused_status_; }
    const std::string& refused_body() const {
        return refused_body_;
    }  // JSON, of an error event; else empty
    SliceQueue& held() { return held_; }
    bool overflowed() const { return overflowed_; }
    void clear();

private:
    Verdict look_for_content(const Slice& bytes);
    // `event` has kBufferSlack readable bytes behind it.
    Verdict judge_event(std::string_view event);

    json::Scanner& json_;
    json::Api api_ = json::Api::Unknown;
    bool unchecked_ = false;
    bool committed_ = false;
    bool complete_ = false;
    bool event_stream_ = false;
    bool error_status_ = false;
    bool overflowed_ = false;
    bool inside_event_ = false;
    std::uint16_t status_ = 0;
    std::uint16_t refused_status_ = 0;
    http::Framing framing_ = http::Framing::None;
    std::uint64_t content_length_ = 0;
    Slice field_lines_;
    SliceQueue held_;
    std::size_t ready_ = 0;  // bytes of held_ that may go out
    std::string event_;      // before content, of an event that came in pieces: what was there
    std::string refused_body_;
    http::SseScanner scanner_;
};

}  // namespace sluice::pd
