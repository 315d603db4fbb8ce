// SPDX-License-Identifier: Apache-2.0
// Finds the end of a message body, for every framing, and hands out its bytes where they lie.
//
// Chunked bodies go through llhttp; the peer's chunk lines, extensions and trailers end here and
// are never passed on. Their size is bounded (kChunkLineMax, kTrailerBytesMax). Threads: one. Owns:
// nothing. Costs: nothing a byte, except chunk lines. Errors: Bad with a sentence.
#pragma once

#include <llhttp.h>

#include "base/delegate.h"
#include "http/head.h"

namespace sluice::http {

class BodyReader {
public:
    enum class State : unsigned char { NeedMore, Complete, Bad };

    void start(Framing framing, std::uint64_t content_length);

    // Gives the body's parts of `bytes` to `sink`. After Complete, rest() is what followed the
    // message.
    State feed(Slice bytes, Delegate<void(Slice)> sink);
    // The stream has ended: Complete if that is how this body ends, otherwise Bad (it was cut
    // short).
    State end_of_stream();

    Slice take_rest() { return std::move(rest_); }
    const char* fault() const { return fault_; }
    Framing framing() const { return framing_; }
    std::uint64_t remaining() const { return remaining_; }  // of Framing::Length

private:
    // A chunk's line and the line end of the chunk before it.
    static constexpr std::size_t kChunkLineMax = limits::kChunkLineMax + 2;

    State feed_chunked(const Slice& bytes, Delegate<void(Slice)> sink);
    State refuse(const char* fault) {
        fault_ = fault;
        return State::Bad;
    }
    bool count_overhead_until(const char* at);
    // Stops behind each chunk line, which is the only way to learn how long it was.
    static int on_chunk_header(llhttp_t*) { return HPE_PAUSED; }
    static int on_body(llhttp_t* parser, const char* at, std::size_t size);
    static int on_complete(llhttp_t* parser);
    static const llhttp_settings_t& settings();
    static const llhttp_t& prototype();

    Framing framing_ = Framing::None;
    std::uint64_t remaining_ = 0;
    std::size_t overhead_ = 0;  // bytes of the chunk line or trailer being read
    std::size_t overhead_max_ = 0;
    bool complete_ = false;
    const char* fault_ = nullptr;
    Slice rest_;
    llhttp_t chunks_;
    const Slice* input_ = nullptr;  // during feed_chunked
    const char* seen_until_ = nullptr;
    Delegate<void(Slice)> sink_;
};

}  // namespace sluice::http
