// SPDX-License-Identifier: Apache-2.0
#include "load/stream_reader.h"

#include <algorithm>

#include "base/limits.h"

namespace sluice::load {

void StreamReader::start(json::Api api) {
    scanner_ = http::SseScanner();
    api_ = api;
    content_ = done_ = false;
    event_.clear();
}

StreamReader::Seen StreamReader::next(json::Scanner& scanner, std::string_view& bytes) {
    while (!bytes.empty()) {
        const auto end = scanner_.next_end(bytes);
        const std::string_view part = bytes.substr(0, end.value_or(bytes.size()));
        const std::size_t room = content_ ? kStartBytes - std::min(kStartBytes, event_.size())
                                          : limits::kPartialEventMax - event_.size();
        event_.append(part.substr(0, room));
        bytes.remove_prefix(part.size());
        if (!end) return Seen::Nothing;
        const Seen seen = judge(scanner);
        event_.clear();
        if (seen != Seen::Nothing) return seen;
    }
    return Seen::Nothing;
}

StreamReader::Seen StreamReader::judge(json::Scanner& scanner) {
    if (event_.starts_with("data: [DONE]")) {
        done_ = true;
        return Seen::Done;
    }
    if (event_.starts_with("data: {\"error\"") || event_.starts_with("event: error"))
        return Seen::Error;
    if (content_) return event_.starts_with(":") ? Seen::Nothing : Seen::Content;
    const std::size_t size = event_.size();
    event_.append(limits::kBufferSlack, '\0');
    char joined[1024 + limits::kBufferSlack] = {};
    const auto event = http::parse_event(std::string_view(event_).substr(0, size),
                                         std::span(joined).first<1024>());
    if (event) {
        if (event->comment_only || !event->has_data) return Seen::Nothing;
        const json::StreamEvent kind = json::classify(scanner, api_, event->name, event->data);
        if (kind.kind == json::StreamEvent::Kind::Preamble) return Seen::Nothing;
        if (kind.kind == json::StreamEvent::Kind::Error) return Seen::Error;
    }
    content_ = true;
    return Seen::FirstContent;
}

}  // namespace sluice::load
