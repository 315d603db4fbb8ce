// SPDX-License-Identifier: Apache-2.0
// vLLM's version, as far as it decides which Mooncake contract an instance speaks.
// Threads: any. Errors: std::nullopt for what is no version.
#pragma once

#include <compare>
#include <cstdint>
#include <optional>
#include <string_view>

namespace sluice::fleet {

struct Version {
    std::uint32_t major = 0;
    std::uint32_t minor = 0;

    friend auto operator<=>(const Version&, const Version&) = default;
};

// The first two numbers of "0.15.1", "0.16.0rc1", "v0.20.2+cu129".
std::optional<Version> parse_version(std::string_view text);

// Of the answer to GET /version: {"version": "0.15.1"}
std::optional<Version> parse_version_reply(std::string_view body);

// The contract of 0.13 to 0.15: P, then D, joined by the request id. Releases before had no such
// connector, and a build from a checkout without tags calls itself 0.1; neither tells anything.
constexpr bool speaks_sequential_mooncake(Version version) {
    return version >= Version{0, 13} && version < Version{0, 16};
}

}  // namespace sluice::fleet
