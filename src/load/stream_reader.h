// SPDX-License-Identifier: Apache-2.0
// Counts a streamed answer's events: the first with content, those behind it, the end, errors.
//
// Until the first content each event is judged as the proxy does (json/stream_event.h): a role or a
// comment is no token. From then on events are told apart by their first bytes alone. Threads: one.
// Owns: the event being gathered, until content. Costs: a search for the event's end.
#pragma once

#include <cstdint>
#include <string>

#include "http/sse.h"
#include "json/scan.h"
#include "json/stream_event.h"

namespace sluice::load {

class StreamReader {
public:
    enum class Seen : std::uint8_t { Nothing, FirstContent, Content, Error, Done };

    void start(json::Api api);
    // Takes bytes up to the end of the first event that is worth telling, which it says; removes
    // them from `bytes`. Nothing: all of `bytes` was taken.
    Seen next(json::Scanner& scanner, std::string_view& bytes);
    bool done() const { return done_; }

private:
    static constexpr std::size_t kStartBytes = 16;

    Seen judge(json::Scanner& scanner);

    http::SseScanner scanner_;
    json::Api api_ = json::Api::Unknown;
    bool content_ = false;
    bool done_ = false;
    std::string event_;  // whole before content, its first bytes afterwards
};

}  // namespace sluice::load
