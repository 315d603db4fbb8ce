// SPDX-License-Identifier: Apache-2.0
#include "json/scan.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstdlib>
#include <cstring>
#include <new>
#include <string>
#include <tuple>
#include <utility>

#define SIMDJSON_EXCEPTIONS 0
#include <simdjson.h>

#include "json/kernel.h"
#include "json/value.h"

// Who checks what. simdjson: UTF-8, control characters in strings, closed strings, and, as each
// value is visited, braces, brackets, commas and colons. This file: what a scalar's token says
// (On-Demand judges numbers, words and escapes only when they are converted, and takes no number
// beyond a double), the root's kind, depth, and wanted members. Only what simdjson 3.0 has is used.
//
// simdjson does not say where an error lies in a way that is the same in all its versions. So the
// walk keeps next_, where the token behind the last value begins, and looks at the text from there.

namespace sluice::json {

namespace {

namespace ondemand = simdjson::ondemand;

static_assert(limits::kBufferSlack >= simdjson::SIMDJSON_PADDING);

constexpr std::int16_t kNotWanted = -2;  // an object in which nothing is wanted
constexpr std::size_t kFirstBodyBytes = 32 * 1024;

constexpr auto kKindByFirst = [] {
    std::array<Kind, 256> kinds{};
    for (const char c : std::string_view("-0123456789")) {
        kinds[static_cast<unsigned char>(c)] = Kind::Number;
    }
    kinds['"'] = Kind::String;
    kinds['{'] = Kind::Object;
    kinds['['] = Kind::Array;
    kinds['t'] = kinds['f'] = Kind::Bool;
    kinds['n'] = Kind::Null;
    return kinds;
}();

constexpr auto kSimpleEscape = [] {
    std::array<bool, 256> table{};
    for (const char c : std::string_view("\"\\/bfnrt")) {
        table[static_cast<unsigned char>(c)] = true;
    }
    return table;
}();

bool is_hex(char c) {
    return kernel::is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

const char* find_slash(const char* at, const char* end) {
    const void* const found = std::memchr(at, '\\', static_cast<std::size_t>(end - at));
    return found == nullptr ? end : static_cast<const char*>(found);
}

// A token reaches to the next one; this is where its own bytes end.
const char* without_blanks(const char* begin, const char* end) {
    while (end != begin && kernel::is_blank(end[-1])) {
        --end;
    }
    return end;
}

// Behind the number at the front of [at, end), or null: it is malformed.
const char* number_end(const char* at, const char* end) {
    at += *at == '-' ? 1 : 0;
    const char* const integer = at;
    at = kernel::skip_digits(at, end);
    if (at == integer || (*integer == '0' && at - integer > 1)) {
        return nullptr;
    }
    if (at != end && *at == '.') {
        const char* const fraction = at + 1;
        at = kernel::skip_digits(fraction, end);
        if (at == fraction) {
            return nullptr;
        }
    }
    if (at != end && (*at == 'e' || *at == 'E')) {
        ++at;
        at += at != end && (*at == '+' || *at == '-') ? 1 : 0;
        const char* const exponent = at;
        at = kernel::skip_digits(exponent, end);
        if (at == exponent) {
            return nullptr;
        }
    }
    return at;
}

// Behind true, false or null at the front of [at, end), or null: it is another word.
const char* word_end(const char* at, const char* end) {
    const std::string_view word = *at == 't' ? "true" : *at == 'f' ? "false" : "null";
    return std::string_view(at, end).starts_with(word) ? at + word.size() : nullptr;
}

// What a walk tells the array that a value is an element of.
struct Shape {
    Kind kind = Kind::Absent;
    Kind first_kind = Kind::Absent;
    Kind first_item_kind = Kind::Absent;
    std::uint32_t count = 0;
    std::uint32_t first_count = 0;

    void add(const Shape& element) {
        if (count++ == 0) {
            first_kind = element.kind;
            if (element.kind == Kind::Array) {
                first_count = element.count;
                first_item_kind = element.first_kind;
            }
        }
    }
};

class Walk {
public:
    Walk(std::string_view body, const MemberTable& wanted, std::span<Member> found)
        : begin_(body.data()),
          end_(body.data() + body.size()),
          slash_(find_slash(begin_, end_)),
          wanted_(wanted),
          found_(found) {
        std::fill(found.begin(), found.end(), Member{});
    }

    // `brace` is where the root begins.
    std::expected<Member, ScanError> run(ondemand::document& document, ondemand::object& root,
                                         const char* brace);

private:
    bool value(ondemand::value& value, std::int16_t member, ScanCode no_comma, Shape& shape);
    bool object(ondemand::object& object, const char* brace, std::int16_t scope, Shape& shape);
    bool array(ondemand::array& array, const char* bracket, Shape& shape);
    bool string(ondemand::value& value, const char* quote);
    bool scalar_ended(const char* begin, const char* end, ScanCode bad, ScanCode no_comma);

    bool key(const char* text, const char* value_begin, std::int16_t scope, std::int16_t& member);
    bool check_escapes(const char* end);
    bool object_broken(const char* brace, bool at_first);

    // simdjson stands behind a closing bracket. With some still open at the end of the body it
    // would take the bytes behind the body for tokens; here it is stopped.
    bool closed() {
        --depth_;
        const char* at = nullptr;
        next_ = document_->current_location().get(at) == simdjson::SUCCESS ? at : end_;
        return depth_ == 0 || next_ < end_ || fail(ScanCode::UnexpectedEnd, end_);
    }

    bool fail(ScanCode code, const char* where, std::int16_t member = -1) {
        // Running out of bytes is the better explanation wherever it happens.
        error_ = where >= end_ ? ScanError{ScanCode::UnexpectedEnd, member, offset(end_)}
                               : ScanError{code, member, offset(where)};
        return false;
    }

    std::uint32_t offset(const char* at) const { return static_cast<std::uint32_t>(at - begin_); }

    const char* const begin_;
    const char* const end_;
    const char* next_ = nullptr;  // the token behind the value just read
    const char* slash_;           // the first backslash that no string read so far has passed
    std::uint32_t depth_ = 0;
    ondemand::document* document_ = nullptr;
    const MemberTable& wanted_;
    const std::span<Member> found_;
    ScanError error_;
};

std::expected<Member, ScanError> Walk::run(ondemand::document& document, ondemand::object& root,
                                           const char* brace) {
    document_ = &document;
    Shape shape;
    if (!object(root, brace, kRoot, shape)) {
        return std::unexpected(error_);
    }
    if (document.current_location().error() == simdjson::SUCCESS) {
        fail(ScanCode::TrailingBytes, next_);  // or behind the end: a brace there closed it
        return std::unexpected(error_);
    }
    Member member;
    member.kind = Kind::Object;
    member.count = shape.count;
    member.value_begin = offset(brace);
    member.value_end = offset(without_blanks(begin_, end_));
    return member;
}

// Every value passes here. `member` is the wanted member it belongs to, or negative; `no_comma`
// says what is missing when something follows a scalar.
inline bool Walk::value(ondemand::value& value, std::int16_t member, ScanCode no_comma,
                        Shape& shape) {
    const std::string_view token = value.raw_json_token();
    const char* const begin = token.data();
    if (begin >= end_) {
        return fail(ScanCode::UnexpectedEnd, end_);
    }
    next_ = begin + token.size();
    shape.kind = kKindByFirst[static_cast<unsigned char>(*begin)];
    if (member >= 0 && shape.kind != Kind::Absent) {
        const MemberSpec& spec = wanted_.specs()[static_cast<std::size_t>(member)];
        if ((spec.allowed & mask_of(shape.kind)) == 0) {
            return fail(ScanCode::WrongType, begin, member);
        }
    }
    switch (shape.kind) {
        case Kind::String:
            return string(value, begin);
        case Kind::Number:
            return scalar_ended(begin, number_end(begin, end_), ScanCode::BadNumber, no_comma);
        case Kind::Bool:
        case Kind::Null:
            return scalar_ended(begin, word_end(begin, end_), ScanCode::BadLiteral, no_comma);
        case Kind::Object: {
            ondemand::object inner;
            return value.get_object().get(inner) == simdjson::SUCCESS
                       ? object(inner, begin, member >= 0 ? member : kNotWanted, shape)
                       : fail(ScanCode::UnexpectedEnd, end_);
        }
        case Kind::Array: {
            ondemand::array inner;
            return value.get_array().get(inner) == simdjson::SUCCESS
                       ? array(inner, begin, shape)
                       : fail(ScanCode::UnexpectedEnd, end_);
        }
        case Kind::Absent:
            break;
    }
    return fail(ScanCode::ExpectedValue, begin);
}

// Numbers and words are left to simdjson to skip: it does so at the next element or member.
inline bool Walk::scalar_ended(const char* begin, const char* end, ScanCode bad,
                               ScanCode no_comma) {
    if (end == nullptr) {
        return fail(bad, begin);
    }
    return end == next_ || kernel::is_blank(*end) || fail(no_comma, end);
}

inline bool Walk::string(ondemand::value& value, const char* quote) {
    // It must be consumed: skipping one takes a colon behind it for the end of a key.
    ondemand::raw_json_string text;
    if (value.get_raw_json_string().get(text) != simdjson::SUCCESS) {
        return fail(ScanCode::ExpectedValue, quote);
    }
    return slash_ >= next_ || check_escapes(next_);
}

bool Walk::object(ondemand::object& object, const char* brace, std::int16_t scope, Shape& shape) {
    if (depth_ == kDepthMax) {
        return fail(ScanCode::TooDeep, brace);
    }
    ++depth_;
    std::uint32_t comma = kNoOffset;
    for (auto entry : object) {
        if (entry.error() != simdjson::SUCCESS) {
            return object_broken(brace, shape.count == 0);
        }
        // In place: moving it out takes longer than visiting it.
        ondemand::field&& field = std::move(entry).value_unsafe();
        const char* const key_text = field.key().raw();
        ondemand::value& inner = field.value();
        const char* const value_begin = inner.raw_json_token().data();
        std::int16_t member = -1;
        Shape seen;
        if (!key(key_text, value_begin, scope, member) ||
            !value(inner, member, ScanCode::ExpectedCommaOrBrace, seen)) {
            return false;
        }
        const std::uint32_t ordinal = shape.count++;
        if (scope == kNotWanted) {
            continue;
        }
        const std::uint32_t comma_before = comma;
        comma = *next_ == ',' ? offset(next_) : kNoOffset;
        if (member >= 0) {
            found_[static_cast<std::size_t>(member)] =
                Member{.kind = seen.kind,
                       .first_kind = seen.first_kind,
                       .first_item_kind = seen.first_item_kind,
                       .parent = scope,
                       .ordinal = ordinal,
                       .key_begin = offset(key_text - 1),
                       .value_begin = offset(value_begin),
                       .value_end = offset(without_blanks(value_begin, next_)),
                       .comma_before = comma_before,
                       .comma_after = comma,
                       .count = seen.count,
                       .first_count = seen.first_count};
        }
    }
    return closed();
}

bool Walk::array(ondemand::array& array, const char* bracket, Shape& shape) {
    if (depth_ == kDepthMax) {
        return fail(ScanCode::TooDeep, bracket);
    }
    ++depth_;
    const char* const first = kernel::skip_blanks(bracket + 1, end_);
    if (first != end_ && kernel::is_digit(*first)) {
        shape.count = kernel::count_integers(first, end_);
        if (shape.count != 0) {
            // Judged without simdjson, which then only has to find its way out of it.
            shape.first_kind = Kind::Number;
            std::string_view text;
            if (array.raw_json().get(text) != simdjson::SUCCESS) {
                return fail(ScanCode::UnexpectedEnd, end_);
            }
            return closed();
        }
    }
    for (auto entry : array) {
        if (entry.error() != simdjson::SUCCESS) {
            return fail(ScanCode::ExpectedCommaOrBracket, next_);
        }
        ondemand::value&& element = std::move(entry).value_unsafe();
        Shape seen;
        if (!value(element, -1, ScanCode::ExpectedCommaOrBracket, seen)) {
            return false;
        }
        shape.add(seen);
    }
    return closed();
}

// `text` is behind the key's opening quote. Says in `member` which wanted one it names, if any.
inline bool Walk::key(const char* text, const char* value_begin, std::int16_t scope,
                      std::int16_t& member) {
    // simdjson has seen the colon and the quote; between them and the value are only blanks.
    const char* const colon = without_blanks(text, value_begin) - 1;
    const char* const quote = without_blanks(text, colon) - 1;
    const bool escaped = slash_ < quote;
    if (escaped && !check_escapes(quote)) {
        return false;
    }
    if (scope == kNotWanted) {
        return true;
    }
    std::string_view name(text, quote);
    std::array<char, kNameBytesMax> decoded;
    if (escaped) {
        // A key that does not fit when decoded is longer than any wanted name.
        name = unescape(name, decoded).value_or(std::string_view{});
    }
    member = wanted_.find(scope, name);
    const bool twice = member >= 0 && found_[static_cast<std::size_t>(member)];
    return !twice || fail(ScanCode::Duplicate, text - 1, member);
}

// Checks the escapes of the string that ends at `end`, beginning with the one at slash_.
bool Walk::check_escapes(const char* end) {
    while (slash_ < end) {
        const char* behind = slash_ + 2;
        if (!kSimpleEscape[static_cast<unsigned char>(slash_[1])]) {
            behind += 4;
            if (slash_[1] != 'u' || behind > end || !std::all_of(slash_ + 2, behind, is_hex)) {
                return fail(ScanCode::BadEscape, slash_);
            }
        }
        slash_ = find_slash(behind, end_);
    }
    return true;
}

// simdjson has refused what follows the opening brace (at_first) or the last value.
bool Walk::object_broken(const char* brace, bool at_first) {
    const char* at = at_first ? brace : next_;
    if (at < end_ && !at_first && *at != ',') {
        return fail(ScanCode::ExpectedCommaOrBrace, at);
    }
    at = at < end_ ? kernel::skip_blanks(at + 1, end_) : end_;
    if (at == end_ || *at != '"') {
        return fail(ScanCode::ExpectedKey, at);
    }
    ++at;
    while (at < end_ && *at != '"') {
        at += *at == '\\' ? 2 : 1;
    }
    return fail(ScanCode::ExpectedColon, at < end_ ? kernel::skip_blanks(at + 1, end_) : end_);
}

// ---- What simdjson refuses without saying where

// Length of the well-formed UTF-8 sequence at the front of `text`, or 0 (Unicode, table 3-7).
std::size_t utf8_size(std::string_view text) {
    const auto byte = [&](std::size_t i) -> unsigned {
        return i < text.size() ? static_cast<unsigned char>(text[i]) : 0U;
    };
    const auto tail = [&](std::size_t i) { return (byte(i) & 0xc0U) == 0x80U; };
    const unsigned lead = byte(0);
    if (lead < 0x80) {
        return 1;
    }
    if (lead >= 0xc2 && lead <= 0xdf) {
        return tail(1) ? 2 : 0;
    }
    if (lead >= 0xe0 && lead <= 0xef) {
        const bool overlong = lead == 0xe0 && byte(1) < 0xa0;
        const bool surrogate = lead == 0xed && byte(1) > 0x9f;
        return tail(1) && tail(2) && !overlong && !surrogate ? 3 : 0;
    }
    if (lead >= 0xf0 && lead <= 0xf4) {
        const bool overlong = lead == 0xf0 && byte(1) < 0x90;
        const bool beyond = lead == 0xf4 && byte(1) > 0x8f;
        return tail(1) && tail(2) && tail(3) && !overlong && !beyond ? 4 : 0;
    }
    return 0;
}

// The first of what makes a text no sequence of tokens: invalid UTF-8, a control character in a
// string, or a string that is not closed.
ScanError find_bad_text(std::string_view body) {
    bool in_string = false;
    bool escaped = false;
    std::size_t at = 0;
    while (at < body.size()) {
        const auto position = static_cast<std::uint32_t>(at);
        const std::size_t size = utf8_size(body.substr(at));
        if (size == 0) {
            return {ScanCode::BadUtf8, -1, position};
        }
        if (in_string && static_cast<unsigned char>(body[at]) < 0x20) {
            return {ScanCode::ControlCharacter, -1, position};
        }
        in_string ^= body[at] == '"' && !escaped;
        escaped = body[at] == '\\' && !escaped;
        at += size;
    }
    return {ScanCode::UnexpectedEnd, -1, static_cast<std::uint32_t>(body.size())};
}

}  // namespace

class Scanner::Impl {
public:
    Impl() : parser_(kBodyBytesMax) { std::ignore = reserve(kFirstBodyBytes); }

    std::expected<Member, ScanError> scan(std::string_view body, const MemberTable& wanted,
                                          std::span<Member> found);

private:
    simdjson::error_code index(std::string_view body, ondemand::document& document);
    simdjson::error_code reserve(std::size_t bytes);
    ScanError find_unclosed(std::string_view body, const MemberTable& wanted,
                            std::span<Member> found, const char* brace);

    ondemand::parser parser_;
};

std::expected<Member, ScanError> Scanner::Impl::scan(std::string_view body,
                                                     const MemberTable& wanted,
                                                     std::span<Member> found) {
    const auto refuse = [&](ScanCode code, std::size_t at) {
        return std::unexpected(ScanError{code, -1, static_cast<std::uint32_t>(at)});
    };
    if (body.size() > kBodyBytesMax) {
        return refuse(ScanCode::TooLarge, 0);
    }
    const char* const end = body.data() + body.size();
    const char* const brace = kernel::skip_blanks(body.data(), end);
    if (brace == end) {
        return refuse(ScanCode::Empty, body.size());
    }
    if (*brace != '{') {
        // Some versions of simdjson skip the mark.
        const bool mark = body.starts_with("\xef\xbb\xbf");
        return refuse(mark ? ScanCode::ByteOrderMark : ScanCode::RootNotObject,
                      static_cast<std::size_t>(brace - body.data()));
    }
    ondemand::document document;
    switch (index(body, document)) {
        case simdjson::SUCCESS:
            break;
        case simdjson::CAPACITY:
        case simdjson::MEMALLOC:
            return refuse(ScanCode::TooLarge, 0);
        default:
            return std::unexpected(find_bad_text(body));
    }
    Walk walk(body, wanted, found);
    ondemand::object root;
    const auto result = document.get_object().get(root) == simdjson::SUCCESS
                            ? walk.run(document, root, brace)
                            : std::unexpected(find_unclosed(body, wanted, found, brace));
    if (parser_.capacity() > kKeptBodyBytes) {
        std::ignore = parser_.allocate(kFirstBodyBytes);
    }
    return result;
}

simdjson::error_code Scanner::Impl::index(std::string_view body, ondemand::document& document) {
    if (const auto error = reserve(body.size()); error != simdjson::SUCCESS) {
        return error;
    }
    return parser_.iterate(body.data(), body.size(), body.size() + limits::kBufferSlack)
        .get(document);
}

// simdjson by itself would grow by a few bytes for each body that is a little longer.
simdjson::error_code Scanner::Impl::reserve(std::size_t bytes) {
    return bytes <= parser_.capacity() ? simdjson::SUCCESS : parser_.allocate(std::bit_ceil(bytes));
}

// simdjson does not begin to walk a body whose last token is no brace. With one added the walk gets
// as far as the body is right.
ScanError Scanner::Impl::find_unclosed(std::string_view body, const MemberTable& wanted,
                                       std::span<Member> found, const char* brace) {
    const ScanError at_end{ScanCode::UnexpectedEnd, -1, static_cast<std::uint32_t>(body.size())};
    const std::unique_ptr<char[]> closed(
        new (std::nothrow) char[body.size() + 1 + limits::kBufferSlack]{});
    if (closed == nullptr) {
        return at_end;
    }
    std::copy(body.begin(), body.end(), closed.get());
    closed[body.size()] = '}';
    ondemand::document document;
    ondemand::object root;
    if (index({closed.get(), body.size() + 1}, document) != simdjson::SUCCESS ||
        document.get_object().get(root) != simdjson::SUCCESS) {
        return at_end;
    }
    Walk walk({closed.get(), body.size()}, wanted, found);
    const auto result = walk.run(document, root, closed.get() + (brace - body.data()));
    return result ? at_end : result.error();
}

Scanner::Scanner() : impl_(std::make_unique<Impl>()) {}
Scanner::~Scanner() = default;

std::expected<Member, ScanError> Scanner::scan(std::string_view body, const MemberTable& wanted,
                                               std::span<Member> found) noexcept {
    if (found.size() != wanted.specs().size()) {
        std::abort();  // a programming error that would write out of bounds
    }
    return impl_->scan(body, wanted, found);
}

std::expected<Member, ScanError> scan_copy(std::string_view body, const MemberTable& wanted,
                                           std::span<Member> found) {
    std::string padded;
    padded.reserve(body.size() + limits::kBufferSlack);
    padded.append(body).append(limits::kBufferSlack, '\0');
    return Scanner().scan(std::string_view(padded).substr(0, body.size()), wanted, found);
}

}  // namespace sluice::json
