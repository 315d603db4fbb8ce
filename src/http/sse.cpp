// SPDX-License-Identifier: Apache-2.0
#include "http/sse.h"

#include <algorithm>
#include <cstring>

namespace sluice::http {

namespace {

constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";

// Splits one event into its lines.
class Lines {
public:
    explicit Lines(std::string_view bytes) : rest_(bytes) {}

    std::optional<std::string_view> next() {
        if (rest_.empty()) {
            return std::nullopt;
        }
        const std::size_t size = std::min(rest_.find_first_of("\r\n"), rest_.size());
        const std::string_view line = rest_.substr(0, size);
        rest_.remove_prefix(size);
        rest_.remove_prefix(rest_.starts_with("\r\n") ? 2 : rest_.empty() ? 0 : 1);
        return line;
    }

private:
    std::string_view rest_;
};

// Collects data lines: a view while there is one, a copy in `joined_` from the second on.
class DataLines {
public:
    explicit DataLines(std::span<char> joined) : joined_(joined) {}

    bool add(std::string_view line) {
        if (count_++ == 0) {
            data_ = line;
            return true;
        }
        const std::size_t before = data_.size();
        if (before + 1 + line.size() > joined_.size()) {
            return false;
        }
        if (count_ == 2) {
            std::copy(data_.begin(), data_.end(), joined_.begin());
        }
        joined_[before] = '\n';
        std::copy(line.begin(), line.end(),
                  joined_.begin() + static_cast<std::ptrdiff_t>(before + 1));
        data_ = std::string_view(joined_.data(), before + 1 + line.size());
        return true;
    }

    std::string_view data() const { return data_; }
    bool any() const { return count_ != 0; }

private:
    std::span<char> joined_;
    std::string_view data_;
    std::size_t count_ = 0;
};

// Offset behind the last blank line that lies within `piece` ("\n\n"), or 0.
std::size_t behind_last_blank_line(std::string_view piece) {
    std::size_t size = piece.size();
    while (size > 1) {
        const void* const found = ::memrchr(piece.data(), '\n', size);
        if (found == nullptr) {
            return 0;
        }
        const auto at = static_cast<std::size_t>(static_cast<const char*>(found) - piece.data());
        if (at > 0 && piece[at - 1] == '\n') {
            return at + 1;
        }
        size = at;
    }
    return 0;
}

bool is_line_end(char c) { return c == '\n' || c == '\r'; }

}  // namespace

std::optional<std::size_t> SseScanner::last_end(std::string_view piece) noexcept {
    if (piece.empty()) {
        return std::nullopt;
    }
    if (piece.ends_with("\n\n")) {
        // Whatever came before, the first LF ends a line (or belongs to a CR that did).
        state_ = State::LineStart;
        crlf_ = false;
        return taken(piece, piece.size());
    }
    if (piece.size() > 4 && piece.ends_with("\r\n\r\n") && !is_line_end(piece[piece.size() - 5])) {
        state_ = State::LineStart;
        crlf_ = true;
        return taken(piece, piece.size());
    }
    const bool at_cr = state_ != State::LineStart && state_ != State::Text;
    if (!at_cr && std::memchr(piece.data(), '\r', piece.size()) == nullptr) {
        return taken(piece, scan_lf_only(piece));
    }
    std::optional<std::size_t> last;
    for (std::size_t i = 0; i < piece.size(); ++i) {
        const End end = step(piece[i]);
        if (end != End::None) {
            last = end == End::BehindByte ? i + 1 : i;
        }
    }
    return taken(piece, last);
}

std::optional<std::size_t> SseScanner::next_end(std::string_view piece) noexcept {
    for (std::size_t i = 0; i < piece.size(); ++i) {
        const End end = step(piece[i]);
        if (end == End::BehindByte) {
            return taken(piece.substr(0, i + 1), i + 1);
        }
        if (end == End::BeforeByte) {
            // The byte was looked at but is not taken: the event ended with the CR in front of it.
            state_ = State::LineStart;
            return taken(piece.substr(0, i), i);
        }
    }
    return taken(piece, std::nullopt);
}

SseScanner::End SseScanner::step(char c) {
    switch (state_) {
        case State::LineStart:
            return step_line_start(c);
        case State::Text:
            crlf_ = is_line_end(c) ? false : crlf_;
            state_ = c == '\n' ? State::LineStart : c == '\r' ? State::TextCr : State::Text;
            return End::None;
        case State::TextCr:
            crlf_ = c == '\n';
            if (c == '\n') {
                state_ = State::LineStart;
                return End::None;
            }
            return step_line_start(c);
        case State::BlankCr:
            if (c == '\n') {
                state_ = State::LineStart;
                return End::BehindByte;
            }
            crlf_ = false;
            // If this byte ends an event as well, that end is the later one.
            return std::max(End::BeforeByte, step_line_start(c));
        case State::BlankCrEnd:
            if (c == '\n') {
                state_ = State::LineStart;
                return End::None;
            }
            return step_line_start(c);
    }
    return End::None;
}

SseScanner::End SseScanner::step_line_start(char c) {
    if (c == '\n') {
        state_ = State::LineStart;
        crlf_ = false;
        return End::BehindByte;
    }
    if (c == '\r') {
        state_ = crlf_ ? State::BlankCr : State::BlankCrEnd;
        return crlf_ ? End::None : End::BehindByte;
    }
    state_ = State::Text;
    return End::None;
}

// No CR in the piece and none pending.
std::optional<std::size_t> SseScanner::scan_lf_only(std::string_view piece) {
    const std::size_t blank = behind_last_blank_line(piece);
    std::optional<std::size_t> end;
    if (blank != 0) {
        end = blank;
    } else if (state_ == State::LineStart && piece.front() == '\n') {
        end = 1;
    }
    crlf_ = crlf_ && piece.find('\n') == std::string_view::npos;
    state_ = piece.back() == '\n' ? State::LineStart : State::Text;
    return end;
}

// Accounts for the piece and passes the event end through.
std::optional<std::size_t> SseScanner::taken(std::string_view piece,
                                             std::optional<std::size_t> end) {
    open_bytes_ = end ? piece.size() - *end : open_bytes_ + piece.size();
    return end;
}

std::expected<SseEvent, SseError> parse_event(std::string_view bytes,
                                              std::span<char> joined) noexcept {
    if (bytes.starts_with(kByteOrderMark)) {
        bytes.remove_prefix(kByteOrderMark.size());
    }
    SseEvent event;
    event.comment_only = true;
    DataLines data(joined);
    Lines lines(bytes);
    while (const auto line = lines.next()) {
        if (line->empty() || line->front() == ':') {
            continue;
        }
        event.comment_only = false;
        const std::size_t colon = std::min(line->find(':'), line->size());
        const std::string_view field = line->substr(0, colon);
        std::string_view value = line->substr(std::min(colon + 1, line->size()));
        value.remove_prefix(value.starts_with(' ') ? 1 : 0);
        if (field == "data") {
            if (!data.add(value)) {
                return std::unexpected(SseError::DataTooLong);
            }
        } else if (field == "event") {
            event.name = value;
        }
    }
    event.data = data.data();
    event.has_data = data.any();
    return event;
}

}  // namespace sluice::http
