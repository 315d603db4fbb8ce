// SPDX-License-Identifier: Apache-2.0
// The model of an HTTP/1.1 head: what the parser fills and everything else reads.
//
// Names and values are views into the head's own bytes, which the model keeps alive. A head is
// never forwarded as bytes: the writer makes a new one from this model (head_writer.h). Threads:
// one. Costs: 12 bytes a field.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

#include "base/limits.h"
#include "mem/buffer.h"

namespace sluice::http {

// Fields that the proxy reads, drops or writes itself. All others are Other.
enum class FieldId : std::uint8_t {
    Other,
    Accept,
    AcceptEncoding,
    Authorization,
    Connection,
    ContentLength,
    ContentType,
    Date,
    Expect,
    Host,
    KeepAlive,
    ProxyAuthenticate,
    ProxyAuthorization,
    ProxyConnection,
    RetryAfter,
    Server,
    TE,
    Trailer,
    TransferEncoding,
    Upgrade,
    Via,
    XDataParallelRank,
    XRequestId,
    XSessionId,
};

FieldId identify(std::string_view name);
bool equals_ignoring_case(std::string_view a, std::string_view b);
// Calls `visit` with each trimmed, non-empty element of a comma-separated list.
template <class F>
void for_each_list_element(std::string_view list, F&& visit);

struct Field {
    std::string_view name;
    std::string_view value;
    FieldId id;
};

class FieldList {
public:
    void reset(const char* base) {
        base_ = base;
        count_ = 0;
    }
    // False when full. Both views lie within kHeadBytesMax of the base.
    bool add(std::string_view name, std::string_view value);

    std::size_t size() const { return count_; }
    Field operator[](std::size_t i) const;

    std::size_t count(FieldId id) const;
    std::optional<std::string_view> find(FieldId id) const;  // the first one
    std::optional<std::string_view> find(std::string_view name) const;
    // True if a field `id` holds `token` as a list element, ignoring case.
    bool has_token(FieldId id, std::string_view token) const;

private:
    struct Entry {
        std::uint16_t name_at, name_size, value_at, value_size;
        FieldId id;
    };
    const char* base_ = nullptr;
    std::uint16_t count_ = 0;
    std::array<Entry, limits::kHeaderFieldsMax> entries_;
};

enum class Framing : std::uint8_t { None, Length, Chunked, UntilClose };

struct RequestHead {
    Slice bytes;  // keeps the views alive
    std::string_view method;
    std::string_view target;  // as it came
    std::string_view path;    // without query
    std::string_view query;   // without '?'
    std::uint8_t minor_version = 1;
    bool keep_alive = true;
    bool expects_continue = false;
    Framing framing = Framing::None;
    std::uint64_t content_length = 0;
    FieldList fields;
};

struct ResponseHead {
    Slice bytes;
    std::uint16_t status = 0;
    std::string_view reason;
    std::uint8_t minor_version = 1;
    bool keep_alive = true;
    Framing framing = Framing::None;
    std::uint64_t content_length = 0;
    FieldList fields;
};

template <class F>
void for_each_list_element(std::string_view list, F&& visit) {
    while (!list.empty()) {
        const auto comma = list.find(',');
        std::string_view element = list.substr(0, comma);
        list = comma == std::string_view::npos ? std::string_view() : list.substr(comma + 1);
        while (!element.empty() && (element.front() == ' ' || element.front() == '\t'))
            element.remove_prefix(1);
        while (!element.empty() && (element.back() == ' ' || element.back() == '\t'))
            element.remove_suffix(1);
        if (!element.empty()) visit(element);
    }
}

}  // namespace sluice::http
