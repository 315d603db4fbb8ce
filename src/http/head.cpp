// SPDX-License-Identifier: Apache-2.0
#include "http/head.h"

#include <strings.h>

namespace sluice::http {

namespace {

struct Known {
    std::string_view name;
    FieldId id;
};

constexpr Known kKnown[] = {
    {"accept", FieldId::Accept},
    {"accept-encoding", FieldId::AcceptEncoding},
    {"authorization", FieldId::Authorization},
    {"connection", FieldId::Connection},
    {"content-length", FieldId::ContentLength},
    {"content-type", FieldId::ContentType},
    {"date", FieldId::Date},
    {"expect", FieldId::Expect},
    {"host", FieldId::Host},
    {"keep-alive", FieldId::KeepAlive},
    {"proxy-authenticate", FieldId::ProxyAuthenticate},
    {"proxy-authorization", FieldId::ProxyAuthorization},
    {"proxy-connection", FieldId::ProxyConnection},
    {"retry-after", FieldId::RetryAfter},
    {"server", FieldId::Server},
    {"te", FieldId::TE},
    {"trailer", FieldId::Trailer},
    {"transfer-encoding", FieldId::TransferEncoding},
    {"upgrade", FieldId::Upgrade},
    {"via", FieldId::Via},
    {"x-data-parallel-rank", FieldId::XDataParallelRank},
    {"x-request-id", FieldId::XRequestId},
    {"x-session-id", FieldId::XSessionId},
};

}  // namespace

bool equals_ignoring_case(std::string_view a, std::string_view b) {
    return a.size() == b.size() && strncasecmp(a.data(), b.data(), a.size()) == 0;
}

FieldId identify(std::string_view name) {
    for (const Known& known : kKnown)
        if (known.name.size() == name.size() && (known.name[0] | 0x20) == (name[0] | 0x20) &&
            equals_ignoring_case(known.name, name))
            return known.id;
    return FieldId::Other;
}

bool FieldList::add(std::string_view name, std::string_view value) {
    if (count_ == entries_.size()) return false;
    const auto at = [this](std::string_view text) {
        return static_cast<std::uint16_t>(text.empty() ? 0 : text.data() - base_);
    };
    entries_[count_++] = {at(name), static_cast<std::uint16_t>(name.size()), at(value),
                          static_cast<std::uint16_t>(value.size()), identify(name)};
    return true;
}

Field FieldList::operator[](std::size_t i) const {
    const Entry& entry = entries_[i];
    return {{base_ + entry.name_at, entry.name_size},
            {base_ + entry.value_at, entry.value_size},
            entry.id};
}

std::size_t FieldList::count(FieldId id) const {
    std::size_t found = 0;
    for (std::size_t i = 0; i < count_; ++i) found += entries_[i].id == id;
    return found;
}

std::optional<std::string_view> FieldList::find(FieldId id) const {
    for (std::size_t i = 0; i < count_; ++i)
        if (entries_[i].id == id) return (*this)[i].value;
    return std::nullopt;
}

std::optional<std::string_view> FieldList::find(std::string_view name) const {
    for (std::size_t i = 0; i < count_; ++i)
        if (equals_ignoring_case((*this)[i].name, name)) return (*this)[i].value;
    return std::nullopt;
}

bool FieldList::has_token(FieldId id, std::string_view token) const {
    bool found = false;
    for (std::size_t i = 0; i < count_; ++i)
        if (entries_[i].id == id)
            for_each_list_element((*this)[i].value, [&](std::string_view element) {
                found |= equals_ignoring_case(element, token);
            });
    return found;
}

}  // namespace sluice::http
