// SPDX-License-Identifier: Apache-2.0
#include "http/head_guard.h"

#include <array>
#include <cstdint>

namespace sluice::http {

namespace {

constexpr std::uint8_t kTokenChar = 1;
constexpr std::uint8_t kForbidden = 2;  // control characters but HTAB, CR and LF

constexpr std::array<std::uint8_t, 256> make_classes() {
    std::array<std::uint8_t, 256> classes{};
    for (int c = 0; c < 32; ++c)
        if (c != '\t' && c != '\r' && c != '\n') classes[c] = kForbidden;
    classes[127] = kForbidden;
    for (int c = '0'; c <= '9'; ++c) classes[c] = kTokenChar;
    for (int c = 'a'; c <= 'z'; ++c) classes[c] = kTokenChar;
    for (int c = 'A'; c <= 'Z'; ++c) classes[c] = kTokenChar;
    for (const char c : std::string_view("!#$%&'*+-.^_`|~"))
        classes[static_cast<unsigned char>(c)] = kTokenChar;
    return classes;
}

constexpr auto kClasses = make_classes();

std::uint8_t class_of(char c) { return kClasses[static_cast<unsigned char>(c)]; }

// One line without its CRLF.
const char* find_fault(std::string_view line, bool first) {
    for (const char c : line) {
        if (class_of(c) == kForbidden) return "a control character in the head";
        if (c == '\r') return "a carriage return inside a line";
    }
    if (first) return nullptr;
    if (line.front() == ' ' || line.front() == '\t') return "a folded header line";
    const auto colon = line.find(':');
    if (colon == std::string_view::npos) return "a header line without a colon";
    if (colon == 0) return "an empty header name";
    if (!is_token(line.substr(0, colon))) return "an invalid character in a header name";
    return nullptr;
}

}  // namespace

bool is_token(std::string_view text) {
    for (const char c : text)
        if (class_of(c) != kTokenChar) return false;
    return !text.empty();
}

const char* find_line_fault(std::string_view head) {
    bool first = true;
    while (true) {
        const auto end = head.find('\n');
        if (end == std::string_view::npos) return "a head without an end";
        if (end == 0 || head[end - 1] != '\r') return "a line feed without a carriage return";
        const std::string_view line = head.substr(0, end - 1);
        head.remove_prefix(end + 1);
        if (line.empty()) return head.empty() ? nullptr : "bytes behind the end of the head";
        if (const char* fault = find_fault(line, first)) return fault;
        first = false;
    }
}

RequestLineFault split_request_line(std::string_view line, RequestLine& out) {
    const auto first = line.find(' ');
    const auto last = line.rfind(' ');
    if (first == std::string_view::npos || first == last) return RequestLineFault::Malformed;
    out.method = line.substr(0, first);
    out.target = line.substr(first + 1, last - first - 1);
    const std::string_view version = line.substr(last + 1);
    if (!is_token(out.method) || out.target.empty()) return RequestLineFault::Malformed;
    for (const char c : out.target) {
        const auto byte = static_cast<unsigned char>(c);
        if (byte <= ' ' || byte >= 127 || c == '#') return RequestLineFault::BadTarget;
    }
    if (version.size() != 8 || !version.starts_with("HTTP/") || version[6] != '.' ||
        version[5] < '0' || version[5] > '9' || version[7] < '0' || version[7] > '9')
        return RequestLineFault::Malformed;
    if (version[5] != '1' || version[7] > '1') return RequestLineFault::UnknownVersion;
    out.minor_version = version[7] - '0';
    return RequestLineFault::None;
}

}  // namespace sluice::http
