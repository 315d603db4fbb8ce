// SPDX-License-Identifier: Apache-2.0

// What instances answer to the keeper (/query, /v1/models, /version) as arbitrary bytes. Oracles:
// * a bootstrap reply that is accepted is what nlohmann/json finds in it: the same ranks with the
// same engine ids, in
//   order, and every id may be written into JSON as it is;
// * one that is refused for its JSON is refused by nlohmann too;
// * models that are accepted merge into an answer that parses to the same entries.

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include "fleet/bootstrap.h"
#include "fleet/models.h"
#include "fleet/version.h"

namespace {

using namespace sluice::fleet;

void require(bool condition, const char* what, std::string_view detail = {}) {
    if (condition) return;
    std::fprintf(stderr, "%s: %.*s\n", what, static_cast<int>(detail.size()), detail.data());
    std::abort();
}

void check_bootstrap(std::string_view body) {
    const auto reply = parse_bootstrap_reply(body);
    const auto tree = nlohmann::json::parse(body, nullptr, false);
    if (!reply) {
        require(!reply.error().empty(), "no sentence");
        return;
    }
    // A duplicate key below what is read, and a number too large for nlohmann, are all that may
    // differ.
    if (tree.is_discarded()) {
        require(body.find_first_of("0123456789\xef") != std::string_view::npos, "accepted", body);
        return;
    }
    require(tree.is_object() && tree.size() == reply->ranks.size(), "ranks", body);
    std::int64_t previous = -1;
    for (const DataParallelRank& rank : reply->ranks) {
        require(rank.rank > previous, "order", body);
        previous = rank.rank;
        const auto found = tree.find(std::to_string(rank.rank));
        require(found != tree.end() && (*found)["engine_id"] == rank.engine_id, "engine id",
                rank.engine_id);
        const std::string as_it_is = "\"" + rank.engine_id + "\"";
        require(nlohmann::json::parse(as_it_is) == rank.engine_id, "not plain", rank.engine_id);
    }
    const auto again = parse_bootstrap_reply(body);
    require(again->fingerprint == reply->fingerprint && again->shape == reply->shape, "fingerprint",
            body);
}

void check_models(std::string_view body) {
    const auto models = parse_models(body);
    if (!models) {
        require(!models.error().empty(), "no sentence");
        return;
    }
    const ModelList* const lists[] = {&*models, &*models};
    const std::string merged = merge_models(lists);
    require(merged.empty() == models->empty(), "merged", body);
    if (merged.empty()) return;
    const auto again = parse_models(merged);
    require(again.has_value(), "merged answer does not parse", merged);
    require(again->size() <= models->size(), "grew", merged);
    for (const ModelEntry& entry : *again)
        require(body.find(entry.text) != std::string_view::npos, "entry", entry.text);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    // A block of exactly that size: reading one byte too many is seen by the address sanitizer.
    const auto copy = std::make_unique<char[]>(size);
    std::copy_n(data, size, copy.get());
    const std::string_view body(copy.get(), size);
    check_bootstrap(body);
    check_models(body);
    (void)parse_version_reply(body);
    return 0;
}
