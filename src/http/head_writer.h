// SPDX-License-Identifier: Apache-2.0
// Writes heads, always from the model, never from the peer's bytes.
// Threads: one. Costs: one pass over the fields.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string_view>

#include "http/head.h"
#include "mem/text_arena.h"

namespace sluice::http {

// A set of known fields.
class FieldSet {
public:
    constexpr FieldSet() = default;
    constexpr FieldSet(std::initializer_list<FieldId> ids) {
        for (const FieldId id : ids) bits_ |= bit(id);
    }
    constexpr bool contains(FieldId id) const { return (bits_ & bit(id)) != 0; }
    constexpr FieldSet operator|(FieldSet other) const {
        FieldSet both;
        both.bits_ = bits_ | other.bits_;
        return both;
    }

private:
    static constexpr std::uint64_t bit(FieldId id) {
        return id == FieldId::Other ? 0 : 1ULL << static_cast<unsigned>(id);
    }
    std::uint64_t bits_ = 0;
};

// What concerns one connection only (RFC 9110, 7.6.1), and what the writer decides itself.
inline constexpr FieldSet kHopByHop{
    FieldId::Connection,
    FieldId::KeepAlive,
    FieldId::ProxyConnection,
    FieldId::ProxyAuthenticate,
    FieldId::ProxyAuthorization,
    FieldId::TE,
    FieldId::Trailer,
    FieldId::TransferEncoding,
    FieldId::Upgrade,
    FieldId::Expect,
    FieldId::ContentLength,
};

void write_status_line(TextWriter& writer, std::uint16_t status);
void write_field(TextWriter& writer, std::string_view name, std::string_view value);
void write_field(TextWriter& writer, std::string_view name, std::uint64_t value);

// Copies all fields but `dropped` and those that the sender's Connection field names (which cannot
// name away what routing and security rest on).
void copy_fields(TextWriter& writer, const FieldList& fields, FieldSet dropped);

// "Date: ...\r\n" of this second.
void write_date(TextWriter& writer);

std::string_view reason_of(std::uint16_t status);

}  // namespace sluice::http
