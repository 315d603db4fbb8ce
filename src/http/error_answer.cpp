// SPDX-License-Identifier: Apache-2.0
#include "http/error_answer.h"

namespace sluice::http {

namespace {

void append_escaped(TextWriter& writer, std::string_view text) {
    constexpr std::string_view kHex = "0123456789abcdef";
    for (const char c : text) {
        const auto byte = static_cast<unsigned char>(c);
        if (c == '"' || c == '\\') {
            writer.append('\\');
            writer.append(c);
        } else if (byte < 0x20) {
            writer.append("\\u00");
            writer.append(kHex[byte >> 4]);
            writer.append(kHex[byte & 15]);
        } else {
            writer.append(c);
        }
    }
}

}  // namespace

std::string_view error_type_of(std::uint16_t status) {
    switch (status) {
        case 401:
            return "AuthenticationError";
        case 403:
            return "PermissionDeniedError";
        case 404:
            return "NotFoundError";
        case 408:
            return "RequestTimeoutError";
        case 413:
            return "RequestTooLargeError";
        case 422:
            return "UnprocessableEntityError";
        case 429:
            return "RateLimitError";
        case 501:
            return "NotImplementedError";
        case 502:
            return "BadGatewayError";
        case 503:
            return "ServiceUnavailableError";
        case 504:
            return "GatewayTimeoutError";
        default:
            return status < 500 ? "BadRequestError" : "InternalServerError";
    }
}

void write_error_json(TextWriter& writer, std::uint16_t status, std::string_view message,
                      std::string_view param) {
    writer.append("{\"error\":{\"message\":\"");
    append_escaped(writer, message);
    writer.append("\",\"type\":\"");
    writer.append(error_type_of(status));
    writer.append("\",\"param\":");
    if (param.empty()) {
        writer.append("null");
    } else {
        writer.append('"');
        append_escaped(writer, param);
        writer.append('"');
    }
    writer.append(",\"code\":");
    writer.append_number(status);
    writer.append("}}");
}

}  // namespace sluice::http
