// SPDX-License-Identifier: Apache-2.0
#pragma once

// Server-sent events as bytes (WHATWG HTML, section 9.2.5). SseScanner finds where events end in a
// stream that arrives in arbitrary pieces; parse_event() reads one whole event.
//
// Threads: one at a time (a scanner belongs to one stream).
// Owns: four words of state, no bytes.
// Costs: a piece that ends with a blank line ("\n\n" or "\r\n\r\n" after text) costs a look at its
//   tail. Otherwise LF streams are searched from the back, and only streams with CR byte by byte.
// Errors: the scanner has none: every byte sequence is some stream. open_bytes() lets the relay
//   enforce kSseEventBytesMax. parse_event() reports data that does not fit.
//
// 1. Any way of cutting a stream into pieces gives the same event ends.
// 2. A line ends with LF, CRLF or CR. When the line before the blank line ended with CRLF, a CR is
//    not taken for the end before the next byte is known (it is nearly always its LF); streams that
//    end their lines with CR alone are not held back.
// 3. Blank lines between events end an empty event, so that their bytes travel on as well.

#include <cstddef>
#include <cstdint>
#include <expected>
#include <optional>
#include <span>
#include <string_view>

namespace sluice::http {

inline constexpr std::size_t kSseEventBytesMax = std::size_t{1} << 20;  // of one event, for relays

class SseScanner {
public:
    // Takes the whole piece. Returns the offset in the piece just behind the last event that is
    // complete; nothing when no event was completed. 0 means: everything before this piece.
    std::optional<std::size_t> last_end(std::string_view piece) noexcept;

    // Takes the piece up to the end of the first event that completes in it, and returns that
    // offset; takes it all and returns nothing when none does. Call again with what follows it.
    std::optional<std::size_t> next_end(std::string_view piece) noexcept;

    // Bytes taken since the last event end.
    std::uint64_t open_bytes() const { return open_bytes_; }

private:
    enum class State : std::uint8_t {
        LineStart,   // a line end here completes an event
        Text,        // inside a line
        TextCr,      // a CR ended a line that had text; an LF would belong to it
        BlankCr,     // a CR ended a blank line after CRLF lines; the LF is awaited
        BlankCrEnd,  // a CR completed an event; an LF would belong to it
    };

    enum class End : std::uint8_t { None, BeforeByte, BehindByte };

    End step(char c);
    End step_line_start(char c);
    std::optional<std::size_t> scan_lf_only(std::string_view piece);
    std::optional<std::size_t> taken(std::string_view piece, std::optional<std::size_t> end);

    std::uint64_t open_bytes_ = 0;
    State state_ = State::LineStart;
    bool crlf_ = false;  // the last line end was CRLF
};

struct SseEvent {
    std::string_view name;      // of the last `event:` line
    std::string_view data;      // the `data:` lines joined with LF
    bool has_data = false;      // there was a data line: a client would dispatch this event
    bool comment_only = false;  // nothing but `:` lines (keep-alive) or blank lines
};

enum class SseError : std::uint8_t { DataTooLong };

// Reads one whole event (its bytes up to and with the blank line). `joined` takes the data when it
// stands on several lines; otherwise the data is a view of `bytes`.
std::expected<SseEvent, SseError> parse_event(std::string_view bytes,
                                              std::span<char> joined) noexcept;

}  // namespace sluice::http
