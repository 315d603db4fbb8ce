// SPDX-License-Identifier: Apache-2.0

// The SSE scanner on arbitrary bytes cut at arbitrary places. The first byte seeds the cuts.
// Oracles:
// * any cutting gives the event ends of the whole, by next_end() and by last_end();
// * the events so delimited, and a line-by-line reading of the whole stream written straight from
//   the specification, dispatch the same names and data.

#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "http/sse.h"

namespace {

using namespace sluice::http;

void require(bool condition, const char* what) {
    if (!condition) {
        std::fprintf(stderr, "%s\n", what);
        std::abort();
    }
}

struct Dispatched {
    std::string name;
    std::string data;
    bool operator==(const Dispatched&) const = default;
};

// WHATWG HTML 9.2.6, as written there; events that end with the stream are not dispatched.
std::vector<Dispatched> read_by_specification(std::string_view stream) {
    std::vector<Dispatched> events;
    std::string name;
    std::string data;
    bool has_data = false;
    std::string line;
    const auto end_line = [&] {
        if (line.empty()) {
            if (has_data) events.push_back({name, data.substr(0, data.size() - 1)});
            name.clear();
            data.clear();
            has_data = false;
        } else if (line[0] != ':') {
            const std::size_t colon = line.find(':');
            const std::string field = line.substr(0, colon);
            std::string value = colon == std::string::npos ? "" : line.substr(colon + 1);
            if (!value.empty() && value[0] == ' ') value.erase(0, 1);
            if (field == "event") name = value;
            if (field == "data") {
                data += value + "\n";
                has_data = true;
            }
        }
        line.clear();
    };
    for (std::size_t i = 0; i < stream.size(); ++i) {
        if (stream[i] == '\n' && i > 0 && stream[i - 1] == '\r') continue;
        if (stream[i] == '\n' || stream[i] == '\r') {
            end_line();
        } else {
            line += stream[i];
        }
    }
    return events;
}

class Cuts {
public:
    explicit Cuts(std::uint8_t seed) : state_(seed * 2U + 1U) {}

    std::size_t next(std::size_t left) {
        state_ = state_ * 1664525U + 1013904223U;
        const std::size_t size = 1 + (state_ >> 24U) % ((state_ >> 20U) % 8U + 1U);
        return size < left ? size : left;
    }

private:
    std::uint32_t state_;
};

// A piece in a block of its own, so that the address sanitizer guards both its ends.
struct Piece {
    explicit Piece(std::string_view text) : bytes(new char[text.size()]), size(text.size()) {
        std::memcpy(bytes.get(), text.data(), text.size());
    }
    std::string_view view() const { return {bytes.get(), size}; }

    std::unique_ptr<char[]> bytes;
    std::size_t size;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size == 0) return 0;
    std::string_view stream(reinterpret_cast<const char*>(data) + 1, size - 1);
    // parse_event() drops a mark at the front of any event; the specification, of the stream.
    if (stream.find("\xef\xbb\xbf") != std::string_view::npos) return 0;

    std::vector<std::size_t> whole;
    SseScanner one;
    for (std::size_t at = 0; const auto end = one.next_end(stream.substr(at));) {
        at += *end;
        whole.push_back(at);
    }

    std::vector<std::size_t> cut_ends;
    SseScanner by_next;
    SseScanner by_last;
    Cuts cuts(data[0]);
    std::size_t known = 0;
    for (std::size_t at = 0; at < stream.size();) {
        const Piece piece(stream.substr(at, cuts.next(stream.size() - at)));
        std::size_t taken = 0;
        while (const auto end = by_next.next_end(piece.view().substr(taken))) {
            taken += *end;
            cut_ends.push_back(at + taken);
        }
        if (const auto end = by_last.last_end(piece.view())) known = at + *end;
        at += piece.size;
        require(by_last.open_bytes() == at - known, "open_bytes() counts from the last end");
        require(known == (cut_ends.empty() ? 0 : cut_ends.back()), "last_end() is not next_end()");
    }
    require(cut_ends == whole, "a cut changed the event ends");

    std::vector<Dispatched> events;
    std::vector<char> joined(stream.size());
    std::size_t begin = 0;
    for (const std::size_t end : whole) {
        const auto event = parse_event(stream.substr(begin, end - begin), joined);
        require(event.has_value(), "an event that must fit does not");
        require(!event->comment_only || !event->has_data, "a comment with data");
        if (event->has_data) events.push_back({std::string(event->name), std::string(event->data)});
        begin = end;
    }
    // A blank CR at the very end may still get its LF, so its event is not over for us.
    std::vector<Dispatched> expected = read_by_specification(stream);
    const bool may_wait = stream.ends_with('\r');
    if (may_wait && expected.size() == events.size() + 1) expected.pop_back();
    require(events == expected, "the events are not those of the specification");
    return 0;
}
