// SPDX-License-Identifier: Apache-2.0
#include "http/head_writer.h"

#include <ctime>

namespace sluice::http {

namespace {

// A peer's Connection field may not remove these.
constexpr FieldSet kProtected{FieldId::Host,       FieldId::Authorization,     FieldId::ContentType,
                              FieldId::XRequestId, FieldId::XDataParallelRank, FieldId::Via,
                              FieldId::Date};

}  // namespace

std::string_view reason_of(std::uint16_t status) {
    switch (status) {
        case 100:
            return "Continue";
        case 200:
            return "OK";
        case 201:
            return "Created";
        case 204:
            return "No Content";
        case 304:
            return "Not Modified";
        case 400:
            return "Bad Request";
        case 401:
            return "Unauthorized";
        case 403:
            return "Forbidden";
        case 404:
            return "Not Found";
        case 405:
            return "Method Not Allowed";
        case 408:
            return "Request Timeout";
        case 409:
            return "Conflict";
        case 413:
            return "Content Too Large";
        case 414:
            return "URI Too Long";
        case 415:
            return "Unsupported Media Type";
        case 417:
            return "Expectation Failed";
        case 422:
            return "Unprocessable Content";
        case 429:
            return "Too Many Requests";
        case 431:
            return "Request Header Fields Too Large";
        case 500:
            return "Internal Server Error";
        case 501:
            return "Not Implemented";
        case 502:
            return "Bad Gateway";
        case 503:
            return "Service Unavailable";
        case 504:
            return "Gateway Timeout";
        case 505:
            return "HTTP Version Not Supported";
        default:
            return "Unknown";
    }
}

void write_status_line(TextWriter& writer, std::uint16_t status) {
    writer.append("HTTP/1.1 ");
    writer.append_number(status);
    writer.append(' ');
    writer.append(reason_of(status));
    writer.append("\r\n");
}

void write_field(TextWriter& writer, std::string_view name, std::string_view value) {
    writer.append(name);
    writer.append(": ");
    writer.append(value);
    writer.append("\r\n");
}

void write_field(TextWriter& writer, std::string_view name, std::uint64_t value) {
    writer.append(name);
    writer.append(": ");
    writer.append_number(value);
    writer.append("\r\n");
}

void copy_fields(TextWriter& writer, const FieldList& fields, FieldSet dropped) {
    // Rarely more than "keep-alive", which names a hop-by-hop field anyway.
    bool names_others = false;
    for (std::size_t i = 0; i < fields.size(); ++i)
        if (fields[i].id == FieldId::Connection)
            for_each_list_element(fields[i].value, [&](std::string_view token) {
                names_others |= !equals_ignoring_case(token, "keep-alive") &&
                                !equals_ignoring_case(token, "close");
            });
    for (std::size_t i = 0; i < fields.size(); ++i) {
        const Field field = fields[i];
        if (dropped.contains(field.id)) continue;
        if (names_others && !kProtected.contains(field.id) &&
            fields.has_token(FieldId::Connection, field.name))
            continue;
        write_field(writer, field.name, field.value);
    }
}

void write_date(TextWriter& writer) {
    thread_local std::time_t written_at = 0;
    thread_local char text[40];
    const std::time_t now = std::time(nullptr);
    if (now != written_at) {
        std::tm utc{};
        gmtime_r(&now, &utc);
        std::strftime(text, sizeof text, "%a, %d %b %Y %H:%M:%S GMT", &utc);
        written_at = now;
    }
    write_field(writer, "Date", text);
}

}  // namespace sluice::http
