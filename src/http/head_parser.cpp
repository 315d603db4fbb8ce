// SPDX-License-Identifier: Apache-2.0
#include "http/head_parser.h"

#include <llhttp.h>

#include "http/head_guard.h"

namespace sluice::http {

namespace {

constexpr HeadError kTooManyFields{431, "too many header fields"};

// What llhttp's callbacks collect. The head is complete and contiguous, so each span comes whole or
// in adjacent parts.
struct Collector {
    FieldList* fields;
    std::string_view name;
    std::string_view value;
    bool overflow = false;

    static Collector& of(llhttp_t* parser) { return *static_cast<Collector*>(parser->data); }
    static void extend(std::string_view& span, const char* at, std::size_t size) {
        span = span.empty() ? std::string_view(at, size)
                            : std::string_view(span.data(), span.size() + size);
    }
    static int on_name(llhttp_t* parser, const char* at, std::size_t size) {
        extend(of(parser).name, at, size);
        return 0;
    }
    static int on_value(llhttp_t* parser, const char* at, std::size_t size) {
        extend(of(parser).value, at, size);
        return 0;
    }
    static int on_value_complete(llhttp_t* parser) {
        Collector& self = of(parser);
        while (!self.value.empty() && (self.value.back() == ' ' || self.value.back() == '\t'))
            self.value.remove_suffix(1);
        if (!self.fields->add(self.name, self.value)) {
            self.overflow = true;
            return -1;
        }
        self.name = self.value = {};
        return 0;
    }
    static int on_headers_complete(llhttp_t*) { return HPE_PAUSED; }
};

const llhttp_settings_t& head_settings() {
    static const llhttp_settings_t settings = [] {
        llhttp_settings_t made;
        llhttp_settings_init(&made);
        made.on_header_field = Collector::on_name;
        made.on_header_value = Collector::on_value;
        made.on_header_value_complete = Collector::on_value_complete;
        made.on_headers_complete = Collector::on_headers_complete;
        return made;
    }();
    return settings;
}

// Runs llhttp over the head. What it refuses is refused; the parser is left for its flags.
std::optional<HeadError> run_llhttp(llhttp_type_t type, const Slice& bytes, FieldList& fields,
                                    llhttp_t& parser) {
    fields.reset(bytes.data());
    Collector collector{&fields, {}, {}};
    llhttp_init(&parser, type, &head_settings());
    parser.data = &collector;
    const llhttp_errno_t verdict = llhttp_execute(&parser, bytes.data(), bytes.size);
    if (collector.overflow) return kTooManyFields;
    switch (verdict) {
        case HPE_PAUSED:
            return std::nullopt;
        case HPE_INVALID_METHOD:
            return HeadError{501, "this method is not supported"};
        case HPE_INVALID_VERSION:
            return HeadError{505, "this HTTP version is not supported"};
        default:
            return HeadError{400, "the head breaks the rules of HTTP"};
    }
}

bool all_digits(std::string_view text) {
    for (const char c : text)
        if (c < '0' || c > '9') return false;
    return !text.empty();
}

// RFC 3986, 3.2.2: unreserved, sub-delims and percent-encoded bytes.
bool is_registered_name(std::string_view text) {
    constexpr std::string_view kHex = "0123456789abcdefABCDEF";
    for (std::size_t i = 0; i < text.size(); ++i) {
        const char c = text[i];
        const bool alphanumeric =
            (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        if (alphanumeric || std::string_view("-._~!$&'()*+,;=").find(c) != std::string_view::npos)
            continue;
        if (c != '%' || text.size() - i < 3 || kHex.find(text[i + 1]) == std::string_view::npos ||
            kHex.find(text[i + 2]) == std::string_view::npos)
            return false;
        i += 2;
    }
    return true;
}

// Host and the authority of an absolute target: host[:port], no user information, no blanks.
bool is_authority(std::string_view text) {
    if (text.empty()) return false;
    if (text.front() == '[') {
        const auto close = text.find(']');
        if (close == std::string_view::npos || close == 1) return false;
        for (const char c : text.substr(1, close - 1))
            if (std::string_view("0123456789abcdefABCDEF:.").find(c) == std::string_view::npos)
                return false;
        const std::string_view rest = text.substr(close + 1);
        return rest.empty() ||
               (rest.front() == ':' && (rest.size() == 1 || all_digits(rest.substr(1))));
    }
    const auto colon = text.find(':');
    const std::string_view host = text.substr(0, colon);
    if (host.empty()) return false;
    if (!is_registered_name(host)) return false;
    if (colon == std::string_view::npos) return true;
    const std::string_view port = text.substr(colon + 1);
    return port.empty() || all_digits(port);
}

// Only a message that ends with "chunked" has an end that everybody agrees on (RFC 9112, 6.3).
HeadError refuse_coding(std::string_view list) {
    std::string_view last;
    int times_chunked = 0;
    for_each_list_element(list, [&](std::string_view coding) {
        last = coding;
        times_chunked += equals_ignoring_case(coding, "chunked");
    });
    if (!equals_ignoring_case(last, "chunked"))
        return {400, "a Transfer-Encoding that does not end with chunked"};
    if (times_chunked > 1) return {400, "chunked more than once"};
    return {501, "only the transfer coding \"chunked\" is supported"};
}

std::optional<HeadError> read_framing(const FieldList& fields, int minor_version, Framing& framing,
                                      std::uint64_t& content_length) {
    const std::size_t codings = fields.count(FieldId::TransferEncoding);
    const std::size_t lengths = fields.count(FieldId::ContentLength);
    if (codings > 0) {
        if (lengths > 0) return HeadError{400, "both Content-Length and Transfer-Encoding"};
        if (minor_version == 0) return HeadError{400, "Transfer-Encoding in HTTP/1.0"};
        if (codings > 1) return HeadError{400, "more than one Transfer-Encoding"};
        const std::string_view coding = *fields.find(FieldId::TransferEncoding);
        if (!equals_ignoring_case(coding, "chunked")) return refuse_coding(coding);
        framing = Framing::Chunked;
        return std::nullopt;
    }
    if (lengths == 0) return std::nullopt;
    if (lengths > 1) return HeadError{400, "more than one Content-Length"};
    const std::string_view text = *fields.find(FieldId::ContentLength);
    if (!all_digits(text) || text.size() > 18) return HeadError{400, "an invalid Content-Length"};
    content_length = 0;
    for (const char c : text)
        content_length = content_length * 10 + static_cast<std::uint64_t>(c - '0');
    framing = Framing::Length;
    return std::nullopt;
}

std::optional<HeadError> check_host(RequestHead& head) {
    const std::size_t hosts = head.fields.count(FieldId::Host);
    if (hosts > 1) return HeadError{400, "more than one Host"};
    if (hosts == 0) {
        if (head.minor_version == 0) return std::nullopt;
        return HeadError{400, "no Host"};
    }
    const std::string_view host = *head.fields.find(FieldId::Host);
    // An empty Host is what RFC 9112 asks for when the target has no authority.
    if (!host.empty() && !is_authority(host)) return HeadError{400, "an invalid Host"};
    return std::nullopt;
}

std::optional<HeadError> read_target(RequestHead& head) {
    std::string_view target = head.target;
    if (target.size() > limits::kRequestTargetMax)
        return HeadError{414, "the request target is too long"};
    if (head.method == "CONNECT") return HeadError{501, "CONNECT is not supported"};
    if (target == "*") {
        if (head.method != "OPTIONS") return HeadError{400, "the target * is for OPTIONS only"};
        head.path = target;
        return std::nullopt;
    }
    if (target.front() != '/') {
        const std::size_t scheme = equals_ignoring_case(target.substr(0, 7), "http://")    ? 7
                                   : equals_ignoring_case(target.substr(0, 8), "https://") ? 8
                                                                                           : 0;
        if (scheme == 0) return HeadError{400, "an invalid request target"};
        target.remove_prefix(scheme);
        const auto slash = target.find_first_of("/?");
        if (!is_authority(target.substr(0, slash)))
            return HeadError{400, "an invalid authority in the target"};
        target = slash == std::string_view::npos ? std::string_view("/") : target.substr(slash);
        if (target.front() == '?') {
            head.path = "/";
            head.query = target.substr(1);
            return std::nullopt;
        }
    }
    const auto mark = target.find('?');
    head.path = target.substr(0, mark);
    head.query = mark == std::string_view::npos ? std::string_view() : target.substr(mark + 1);
    return std::nullopt;
}

std::optional<HeadError> check_expectation(RequestHead& head) {
    const auto expectation = head.fields.find(FieldId::Expect);
    if (!expectation || head.minor_version == 0) return std::nullopt;
    if (head.fields.count(FieldId::Expect) > 1 ||
        !equals_ignoring_case(*expectation, "100-continue"))
        return HeadError{417, "the only known expectation is 100-continue"};
    head.expects_continue = true;
    return std::nullopt;
}

bool persistent(const FieldList& fields, int minor_version) {
    if (fields.has_token(FieldId::Connection, "close")) return false;
    return minor_version == 1 || fields.has_token(FieldId::Connection, "keep-alive");
}

std::string_view first_line(const Slice& bytes) {
    const std::string_view view = bytes.view();
    return view.substr(0, view.find('\r'));
}

}  // namespace

std::optional<HeadError> parse_request_head(Slice bytes, RequestHead& head) {
    head.bytes = std::move(bytes);
    head.framing = Framing::None;
    head.content_length = 0;
    head.expects_continue = false;
    head.method = head.target = head.path = head.query = {};
    head.minor_version = 1;
    head.fields.reset(head.bytes.data());
    if (const char* fault = find_line_fault(head.bytes.view())) return HeadError{400, fault};

    RequestLine line;
    switch (split_request_line(first_line(head.bytes), line)) {
        case RequestLineFault::None:
            break;
        case RequestLineFault::Malformed:
            return HeadError{400, "an invalid request line"};
        case RequestLineFault::BadTarget:
            return HeadError{400, "an invalid character in the request target"};
        case RequestLineFault::UnknownVersion:
            return HeadError{505, "this HTTP version is not supported"};
    }
    head.method = line.method;
    head.target = line.target;
    head.minor_version = static_cast<std::uint8_t>(line.minor_version);
    // llhttp also rejects CONNECT targets and the like with less telling errors, so the target
    // comes first.
    if (auto error = read_target(head)) return error;

    llhttp_t parser;
    if (auto error = run_llhttp(HTTP_REQUEST, head.bytes, head.fields, parser)) {
        // A conflict of framings is more telling than llhttp's "invalid".
        Framing framing = Framing::None;
        std::uint64_t length = 0;
        if (auto telling = read_framing(head.fields, head.minor_version, framing, length))
            return telling;
        return error;
    }
    if (auto error = check_host(head)) return error;
    if (auto error =
            read_framing(head.fields, head.minor_version, head.framing, head.content_length))
        return error;
    if (auto error = check_expectation(head)) return error;
    head.keep_alive = persistent(head.fields, head.minor_version);
    return std::nullopt;
}

std::optional<HeadError> parse_response_head(Slice bytes, bool to_head_request,
                                             ResponseHead& head) {
    head.bytes = std::move(bytes);
    head.framing = Framing::UntilClose;
    head.content_length = 0;
    if (const char* fault = find_line_fault(head.bytes.view())) return HeadError{502, fault};

    const std::string_view line = first_line(head.bytes);
    // "HTTP/1.x SP 3 digits [SP reason]"
    if (line.size() < 12 || !line.starts_with("HTTP/1.") || line[8] != ' ' ||
        !all_digits(line.substr(9, 3)) || (line.size() > 12 && line[12] != ' ') ||
        (line[7] != '0' && line[7] != '1'))
        return HeadError{502, "an invalid status line"};
    head.minor_version = static_cast<std::uint8_t>(line[7] - '0');
    head.status = static_cast<std::uint16_t>((line[9] - '0') * 100 + (line[10] - '0') * 10 +
                                             (line[11] - '0'));
    head.reason = line.size() > 13 ? line.substr(13) : std::string_view();
    if (head.status < 100 || head.status > 599) return HeadError{502, "an invalid status code"};

    llhttp_t parser;
    if (run_llhttp(HTTP_RESPONSE, head.bytes, head.fields, parser))
        return HeadError{502, "the head breaks the rules of HTTP"};
    if (read_framing(head.fields, head.minor_version, head.framing, head.content_length))
        return HeadError{502, "contradictory or unknown framing"};
    head.keep_alive = persistent(head.fields, head.minor_version);
    if (to_head_request || head.status < 200 || head.status == 204 || head.status == 304)
        head.framing = Framing::None;
    if (head.framing == Framing::UntilClose) head.keep_alive = false;
    return std::nullopt;
}

}  // namespace sluice::http
