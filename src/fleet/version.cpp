// SPDX-License-Identifier: Apache-2.0
#include "fleet/version.h"

#include <array>
#include <charconv>

#include "json/value.h"

namespace sluice::fleet {

namespace {

using json::Kind;

constexpr json::MemberSpec kSpecs[] = {{"version", json::kRoot, json::mask_of(Kind::String)}};
constexpr json::MemberTable kTable{kSpecs};

}  // namespace

std::optional<Version> parse_version(std::string_view text) {
    if (text.starts_with('v')) text.remove_prefix(1);
    const char* const end = text.data() + text.size();
    Version version;
    const auto major = std::from_chars(text.data(), end, version.major);
    if (major.ec != std::errc() || major.ptr == end || *major.ptr != '.') return std::nullopt;
    const auto minor = std::from_chars(major.ptr + 1, end, version.minor);
    if (minor.ec != std::errc()) return std::nullopt;
    return version;
}

std::optional<Version> parse_version_reply(std::string_view body) {
    std::array<json::Member, std::size(kSpecs)> found;
    if (!json::scan_copy(body, kTable, found)) return std::nullopt;
    std::array<char, 128> scratch;
    const auto text = json::as_string(found[0], body, scratch);
    return text ? parse_version(*text) : std::nullopt;
}

}  // namespace sluice::fleet
