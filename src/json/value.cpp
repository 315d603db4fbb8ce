// SPDX-License-Identifier: Apache-2.0
#include "json/value.h"

#include <algorithm>
#include <charconv>
#include <cstring>

#include "json/kernel.h"

namespace sluice::json {

namespace {

constexpr std::uint32_t kReplacement = 0xfffd;
constexpr std::string_view kHexDigits = "0123456789abcdef";

// A span that is filled from the front and remembers whether everything fitted.
class Output {
public:
    explicit Output(std::span<char> out) : out_(out) {}

    void put(char c) {
        fits_ = fits_ && used_ < out_.size();
        if (fits_) {
            out_[used_++] = c;
        }
    }

    void put(std::string_view text) {
        fits_ = fits_ && text.size() <= out_.size() - used_;
        if (fits_ && !text.empty()) {
            std::memcpy(out_.data() + used_, text.data(), text.size());
            used_ += text.size();
        }
    }

    void put_utf8(std::uint32_t code) {
        const auto tail = [&](unsigned shift) {
            put(static_cast<char>(0x80U | ((code >> shift) & 0x3fU)));
        };
        if (code < 0x80) {
            put(static_cast<char>(code));
        } else if (code < 0x800) {
            put(static_cast<char>(0xc0U | (code >> 6)));
            tail(0);
        } else if (code < 0x10000) {
            put(static_cast<char>(0xe0U | (code >> 12)));
            tail(6);
            tail(0);
        } else {
            put(static_cast<char>(0xf0U | (code >> 18)));
            tail(12);
            tail(6);
            tail(0);
        }
    }

    std::optional<std::string_view> result() const {
        return fits_ ? std::optional(std::string_view(out_.data(), used_)) : std::nullopt;
    }

private:
    std::span<char> out_;
    std::size_t used_ = 0;
    bool fits_ = true;
};

// The four hex digits of a \u escape at the front of `text`.
std::optional<std::uint32_t> hex4(std::string_view text) {
    std::uint32_t code = 0;
    if (text.size() < 4) {
        return std::nullopt;
    }
    const auto [end, errc] = std::from_chars(text.data(), text.data() + 4, code, 16);
    return errc == std::errc{} && end == text.data() + 4 ? std::optional(code) : std::nullopt;
}

// Decodes "XXXX" (and "\uXXXX" behind it when they are a surrogate pair); returns bytes consumed.
std::size_t put_unicode(std::string_view text, Output& out) {
    const std::uint32_t first = hex4(text).value_or(kReplacement);
    if (first < 0xd800 || first > 0xdfff) {
        out.put_utf8(first);
        return 4;
    }
    const bool escape_follows = first < 0xdc00 && text.size() >= 10 && text.substr(4, 2) == "\\u";
    const std::uint32_t second = escape_follows ? hex4(text.substr(6)).value_or(0) : 0;
    if (second < 0xdc00 || second > 0xdfff) {
        out.put_utf8(kReplacement);
        return 4;
    }
    out.put_utf8(0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00));
    return 10;
}

char decode_simple(char c) {
    switch (c) {
        case 'b':
            return '\b';
        case 'f':
            return '\f';
        case 'n':
            return '\n';
        case 'r':
            return '\r';
        case 't':
            return '\t';
        default:
            return c;
    }
}

// Length of the string at the front of `text`, quotes included.
std::size_t string_size(std::string_view text) {
    std::size_t at = 1;
    while (at < text.size() && text[at] != '"') {
        at += text[at] == '\\' ? 2 : 1;
    }
    return std::min(at + 1, text.size());
}

}  // namespace

std::optional<bool> as_bool(const Member& member, std::string_view body) noexcept {
    if (member.kind != Kind::Bool) {
        return std::nullopt;
    }
    return body[member.value_begin] == 't';
}

std::optional<std::int64_t> as_int64(const Member& member, std::string_view body) noexcept {
    if (member.kind != Kind::Number) {
        return std::nullopt;
    }
    const std::string_view text = raw(member, body);
    std::int64_t value = 0;
    const auto [end, errc] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (errc != std::errc{} || end != text.data() + text.size()) {
        return std::nullopt;
    }
    return value;
}

std::optional<std::string_view> as_string(const Member& member, std::string_view body,
                                          std::span<char> out) noexcept {
    if (member.kind != Kind::String) {
        return std::nullopt;
    }
    std::string_view inside = raw(member, body);
    inside = inside.substr(1, inside.size() - 2);
    return inside.find('\\') == std::string_view::npos ? inside : unescape(inside, out);
}

std::optional<std::string_view> unescape(std::string_view inside, std::span<char> out) noexcept {
    Output output(out);
    for (;;) {
        const std::size_t slash = std::min(inside.find('\\'), inside.size());
        output.put(inside.substr(0, slash));
        inside.remove_prefix(slash);
        if (inside.size() < 2) {
            return output.result();
        }
        if (inside[1] == 'u') {
            inside.remove_prefix(2);
            inside.remove_prefix(std::min(put_unicode(inside, output), inside.size()));
        } else {
            output.put(decode_simple(inside[1]));
            inside.remove_prefix(2);
        }
    }
}

std::optional<std::string_view> escape(std::string_view text, std::span<char> out) noexcept {
    const auto is_special = [](char c) {
        return c == '"' || c == '\\' || static_cast<unsigned char>(c) < 0x20;
    };
    Output output(out);
    const char* at = text.data();
    const char* const end = at + text.size();
    for (;;) {
        const char* const special = std::find_if(at, end, is_special);
        output.put(std::string_view(at, special));
        if (special == end) {
            return output.result();
        }
        switch (*special) {
            case '"':
                output.put("\\\"");
                break;
            case '\\':
                output.put("\\\\");
                break;
            case '\b':
                output.put("\\b");
                break;
            case '\f':
                output.put("\\f");
                break;
            case '\n':
                output.put("\\n");
                break;
            case '\r':
                output.put("\\r");
                break;
            case '\t':
                output.put("\\t");
                break;
            default:
                output.put("\\u00");
                output.put(kHexDigits[static_cast<unsigned char>(*special) >> 4]);
                output.put(kHexDigits[static_cast<unsigned char>(*special) & 15U]);
        }
        at = special + 1;
    }
}

std::optional<std::string_view> Elements::next() noexcept {
    std::size_t begin = 0;
    while (begin < rest_.size() && kernel::is_blank(rest_[begin])) {
        ++begin;
    }
    if (begin == rest_.size() || rest_[begin] == ']') {
        return std::nullopt;
    }
    std::size_t depth = 0;
    std::size_t end = begin;
    while (end < rest_.size()) {
        const char c = rest_[end];
        if (c == '"') {
            end += string_size(rest_.substr(end));
            continue;
        }
        const bool closes = c == ']' || c == '}';
        if (depth == 0 && (c == ',' || closes)) {
            break;
        }
        depth += c == '[' || c == '{' ? 1 : 0;
        depth -= closes ? 1 : 0;
        ++end;
    }
    std::string_view element = rest_.substr(begin, end - begin);
    while (!element.empty() && kernel::is_blank(element.back())) {
        element.remove_suffix(1);
    }
    const bool comma = end < rest_.size() && rest_[end] == ',';
    rest_.remove_prefix(comma ? end + 1 : end);
    return element;
}

}  // namespace sluice::json
