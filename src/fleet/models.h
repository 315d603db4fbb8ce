// SPDX-License-Identifier: Apache-2.0
// The answers to /v1/models, merged over the fleet: every model once, by id, each entry byte for
// byte as the first instance gave it.
//
// vLLM makes `created` and `permission` anew for every answer, so two answers are compared without
// them; otherwise every look would be a change.
// Threads: any. Costs: one walk over the body and one over each entry; control plane only. Errors:
// a sentence.
#pragma once

#include <cstdint>
#include <expected>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace sluice::fleet {

inline constexpr std::size_t kModelsReplyMax = 1 << 20;
inline constexpr std::size_t kModelsMax = 1024;  // of one instance, and of the merged answer

struct ModelEntry {
    std::string id;
    std::string text;               // the entry as it came
    std::uint64_t fingerprint = 0;  // of what does not change by itself
};
using ModelList = std::vector<ModelEntry>;

std::expected<ModelList, std::string> parse_models(std::string_view body);

// Whether the second says the same as the first, but for what changes by itself.
bool same_models(const ModelList& a, const ModelList& b);

// {"object":"list","data":[...]}; empty if there is no model at all. The first list that has an id
// wins it.
std::string merge_models(std::span<const ModelList* const> lists);

}  // namespace sluice::fleet
