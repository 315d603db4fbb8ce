// SPDX-License-Identifier: Apache-2.0
#include "fleet/models.h"

#include <algorithm>
#include <array>
#include <set>

#include "fleet/hash.h"
#include "json/value.h"

namespace sluice::fleet {

namespace {

using json::Kind;
using json::kRoot;
using json::mask_of;

constexpr json::MemberSpec kListSpecs[] = {{"data", kRoot, mask_of(Kind::Array)}};
constexpr json::MemberTable kListTable{kListSpecs};

enum EntryMember : std::size_t { kId, kCreated, kPermission };
constexpr json::MemberSpec kEntrySpecs[] = {
    {"id", kRoot, mask_of(Kind::String)}, {"created"}, {"permission"}};
constexpr json::MemberTable kEntryTable{kEntrySpecs};

std::string sentence_of(const json::ScanError& error, std::span<const json::MemberSpec> specs) {
    std::array<char, json::kErrorTextBytesMax> text;
    return std::string(json::describe(error, specs, text));
}

std::uint64_t fingerprint_of(std::string_view entry, std::span<const json::Member> found) {
    std::array volatile_parts{found[kCreated], found[kPermission]};
    std::ranges::sort(volatile_parts, {}, &json::Member::value_begin);
    std::uint64_t hash = kHashStart;
    std::size_t at = 0;
    for (const json::Member& part : volatile_parts) {
        if (!part) continue;
        hash = hash_bytes(entry.substr(at, part.value_begin - at), hash);
        at = part.value_end;
    }
    return hash_bytes(entry.substr(at), hash);
}

std::expected<ModelEntry, std::string> read_entry(std::string_view text) {
    std::array<json::Member, std::size(kEntrySpecs)> found;
    if (const auto scanned = json::scan_copy(text, kEntryTable, found); !scanned)
        return std::unexpected("an entry of data is not a model: " +
                               sentence_of(scanned.error(), kEntrySpecs));
    ModelEntry entry;
    entry.id.resize(text.size());
    const auto id = json::as_string(found[kId], text, entry.id);
    if (!id || id->empty()) return std::unexpected("an entry of data has no id");
    entry.id = std::string(*id);
    entry.text = text;
    entry.fingerprint = fingerprint_of(text, found);
    return entry;
}

}  // namespace

std::expected<ModelList, std::string> parse_models(std::string_view body) {
    if (body.size() > kModelsReplyMax)
        return std::unexpected("it is longer than " + std::to_string(kModelsReplyMax) + " bytes");
    std::array<json::Member, std::size(kListSpecs)> found;
    if (const auto scanned = json::scan_copy(body, kListTable, found); !scanned)
        return std::unexpected(sentence_of(scanned.error(), kListSpecs));
    if (!found[0]) return std::unexpected("it has no member data");
    if (found[0].count > kModelsMax)
        return std::unexpected("it has more than " + std::to_string(kModelsMax) + " models");
    ModelList models;
    json::Elements elements(json::raw(found[0], body));
    while (const auto text = elements.next()) {
        auto entry = read_entry(*text);
        if (!entry) return std::unexpected(std::move(entry.error()));
        models.push_back(std::move(*entry));
    }
    return models;
}

bool same_models(const ModelList& a, const ModelList& b) {
    return std::ranges::equal(a, b, {}, &ModelEntry::fingerprint, &ModelEntry::fingerprint);
}

std::string merge_models(std::span<const ModelList* const> lists) {
    std::string merged;
    std::set<std::string_view> known;
    for (const ModelList* list : lists)
        for (const ModelEntry& entry : *list) {
            if (known.size() == kModelsMax || !known.insert(entry.id).second) continue;
            merged += merged.empty() ? R"({"object":"list","data":[)" : ",";
            merged += entry.text;
        }
    return merged.empty() ? merged : merged + "]}";
}

}  // namespace sluice::fleet
