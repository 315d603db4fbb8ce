// SPDX-License-Identifier: Apache-2.0
#include "http/body_reader.h"

#include <algorithm>

#include "base/assert.h"

namespace sluice::http {

const llhttp_settings_t& BodyReader::settings() {
    static const llhttp_settings_t made = [] {
        llhttp_settings_t settings;
        llhttp_settings_init(&settings);
        settings.on_chunk_header = on_chunk_header;
        settings.on_body = on_body;
        settings.on_message_complete = on_complete;
        return settings;
    }();
    return made;
}

// A parser that stands behind the head of a chunked message. The real head was parsed by itself;
// each chunked body starts from a copy of this.
const llhttp_t& BodyReader::prototype() {
    static const llhttp_t made = [] {
        llhttp_t parser;
        llhttp_init(&parser, HTTP_REQUEST, &settings());
        constexpr std::string_view kHead = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        const llhttp_errno_t verdict = llhttp_execute(&parser, kHead.data(), kHead.size());
        ASSERT(verdict == HPE_OK);
        return parser;
    }();
    return made;
}

void BodyReader::start(Framing framing, std::uint64_t content_length) {
    framing_ = framing;
    remaining_ = framing == Framing::Length ? content_length : 0;
    overhead_ = 0;
    overhead_max_ = kChunkLineMax;
    complete_ = false;
    fault_ = nullptr;
    rest_ = Slice();
    if (framing == Framing::Chunked) chunks_ = prototype();
}

BodyReader::State BodyReader::feed(Slice bytes, Delegate<void(Slice)> sink) {
    switch (framing_) {
        case Framing::None:
            rest_ = std::move(bytes);
            return State::Complete;
        case Framing::UntilClose:
            if (!bytes.empty()) sink(std::move(bytes));
            return State::NeedMore;
        case Framing::Length: {
            const auto mine =
                static_cast<std::size_t>(std::min<std::uint64_t>(remaining_, bytes.size));
            remaining_ -= mine;
            rest_ = bytes.from(mine);
            if (mine > 0) sink(bytes.part(0, mine));
            return remaining_ == 0 ? State::Complete : State::NeedMore;
        }
        case Framing::Chunked:
            return feed_chunked(bytes, sink);
    }
    UNREACHABLE();
}

int BodyReader::on_body(llhttp_t* parser, const char* at, std::size_t size) {
    auto* self = static_cast<BodyReader*>(parser->data);
    self->seen_until_ = at + size;
    self->sink_(self->input_->part(static_cast<std::size_t>(at - self->input_->data()), size));
    return 0;
}

int BodyReader::on_complete(llhttp_t* parser) {
    static_cast<BodyReader*>(parser->data)->complete_ = true;
    return HPE_PAUSED;
}

// llhttp bounds neither chunk lines nor trailers.
bool BodyReader::count_overhead_until(const char* at) {
    overhead_ += static_cast<std::size_t>(at - seen_until_);
    seen_until_ = at;
    return overhead_ <= overhead_max_;
}

BodyReader::State BodyReader::feed_chunked(const Slice& bytes, Delegate<void(Slice)> sink) {
    if (bytes.empty()) return State::NeedMore;
    chunks_.data = this;
    input_ = &bytes;
    sink_ = sink;
    const char* at = seen_until_ = bytes.data();
    const char* const end = at + bytes.size;
    while (at < end) {
        const llhttp_errno_t verdict =
            llhttp_execute(&chunks_, at, static_cast<std::size_t>(end - at));
        if (verdict != HPE_OK && verdict != HPE_PAUSED) return refuse("invalid chunked encoding");
        at = verdict == HPE_OK ? end : llhttp_get_error_pos(&chunks_);
        if (!count_overhead_until(at)) return refuse("a chunk line or trailer that is too long");
        if (complete_) {
            rest_ = bytes.from(static_cast<std::size_t>(at - bytes.data()));
            return State::Complete;
        }
        if (verdict == HPE_PAUSED) {  // behind a chunk line
            llhttp_resume(&chunks_);
            overhead_ = 0;
            overhead_max_ = chunks_.content_length == 0 ? limits::kTrailerBytesMax : kChunkLineMax;
        }
    }
    return State::NeedMore;
}

BodyReader::State BodyReader::end_of_stream() {
    if (framing_ == Framing::UntilClose) return State::Complete;
    return refuse("the body was cut short");
}

}  // namespace sluice::http
