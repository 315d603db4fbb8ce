// SPDX-License-Identifier: Apache-2.0

// Scanner, the value readers, Splice and classify() on arbitrary bytes. The first 8 bytes choose
// the edits and what stands behind the body, the rest is the body. Oracles:
// * scan's verdict is nlohmann/json's, apart from the differences listed in agrees();
// * every member found has the value that nlohmann finds, and the exact bounds;
// * the spliced body parses to the tree edited the same way, and keeps every byte no edit names.

#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include "json/scan.h"
#include "json/stream_event.h"
#include "json/value.h"
#include "unit/json/splice_model.h"

namespace {

using namespace sluice::json;
using test::kEditSpecs;
using test::kEditTable;

void require(bool condition, const char* what, std::string_view detail = {}) {
    if (!condition) {
        std::fprintf(stderr, "%s: %.*s\n", what, static_cast<int>(detail.size()), detail.data());
        std::abort();
    }
}

// nlohmann's verdict, and why not.
enum class Verdict { Valid, Invalid, NumberTooLarge };

Verdict judge(std::string_view body, nlohmann::json& tree) {
    try {
        tree = nlohmann::json::parse(body);
        return Verdict::Valid;
    } catch (const nlohmann::json::out_of_range&) {
        return Verdict::NumberTooLarge;  // 1e999: our scan leaves numbers to the engine
    } catch (const nlohmann::json::exception&) {
        return Verdict::Invalid;
    }
}

bool has_surrogate_escape(std::string_view body) {
    for (std::size_t at = body.find("\\u"); at != std::string_view::npos;
         at = body.find("\\u", at + 1)) {
        if (at + 2 < body.size() && (body[at + 2] == 'd' || body[at + 2] == 'D')) return true;
    }
    return false;
}

void compare_verdicts(std::string_view body, const std::expected<Member, ScanError>& root,
                      Verdict verdict, const nlohmann::json& tree) {
    if (body.find('\0') != std::string_view::npos) {
        require(!root, "a NUL byte was accepted");  // nlohmann takes it for the end
        return;
    }
    if (root) {
        require(verdict != Verdict::Invalid || has_surrogate_escape(body), "accepted", body);
        return;
    }
    switch (root.error().code) {
        case ScanCode::Duplicate:  // members seen twice, wrong at our level only
        case ScanCode::TooDeep:
        case ScanCode::ByteOrderMark:  // nlohmann skips it
            return;
        case ScanCode::RootNotObject:
            require(verdict != Verdict::Valid || !tree.is_object(), "refused the root", body);
            return;
        default:
            // After a number too large nlohmann stops, so it may have missed what we refused.
            require(verdict != Verdict::Valid, "refused", body);
            require(root.error().offset <= body.size(), "offset outside", body);
    }
}

void compare_members(std::string_view body, std::span<const Member> found,
                     const nlohmann::json& tree) {
    for (std::size_t i = 0; i < found.size(); ++i) {
        const MemberSpec& spec = kEditSpecs[i];
        const nlohmann::json* object = &tree;
        std::array<std::int16_t, 4> path{};
        std::size_t depth = 0;
        for (std::int16_t up = spec.parent; up != kRoot;
             up = kEditSpecs[static_cast<std::size_t>(up)].parent) {
            path[depth++] = up;
        }
        while (object != nullptr && depth > 0) {
            const auto name = kEditSpecs[static_cast<std::size_t>(path[--depth])].name;
            const auto next = object->is_object() ? object->find(name) : object->end();
            object = next != object->end() ? &*next : nullptr;
        }
        const bool expected =
            object != nullptr && object->is_object() && object->contains(spec.name);
        require(expected == static_cast<bool>(found[i]), "presence", spec.name);
        if (!expected) continue;
        const nlohmann::json& value = (*object)[spec.name];
        const std::string_view text = raw(found[i], body);
        require(nlohmann::json::parse(text) == value, "value", text);
        require(text.find_last_of(" \n\r\t") != text.size() - 1, "trailing blank", text);
        if (value.is_array()) {
            require(found[i].count == value.size(), "array count", text);
            std::size_t elements = 0;
            Elements walk(text);
            while (const auto element = walk.next()) {
                require(nlohmann::json::parse(*element) == value[elements++], "element", *element);
            }
            require(elements == value.size(), "elements", text);
            const bool nested = !value.empty() && value[0].is_array();
            require(found[i].first_count == (nested ? value[0].size() : 0), "first count", text);
        } else if (value.is_string()) {
            std::string out(text.size(), '\0');
            const auto decoded = as_string(found[i], body, out);
            require(decoded == value.get_ref<const std::string&>(), "string", text);
            std::string again(decoded->size() * kEscapeGrowthMax, '\0');
            const auto escaped = escape(*decoded, again);
            require(escaped && nlohmann::json::parse("\"" + std::string(*escaped) + "\"") == value,
                    "escape", text);
        } else if (value.is_boolean()) {
            require(as_bool(found[i], body) == value.get<bool>(), "bool", text);
        } else if (value.is_number_integer()) {
            const auto number = as_int64(found[i], body);
            require(!number || *number == value.get<std::int64_t>(), "integer", text);
        }
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    std::uint64_t seed = 0;
    if (size < sizeof seed) return 0;
    std::memcpy(&seed, data, sizeof seed);
    size -= sizeof seed;
    // A block of exactly that size: reading one byte too many is seen by the address sanitizer.
    const auto copy = std::make_unique<char[]>(size + sluice::limits::kBufferSlack);
    std::memcpy(copy.get(), data + sizeof seed, size);
    std::memset(copy.get() + size, "}],:\"{[1"[seed / 2 % 8], sluice::limits::kBufferSlack);
    const std::string_view body(copy.get(), size);

    static Scanner scanner;
    std::array<Member, kEditSpecs.size()> found;
    const auto root = scanner.scan(body, kEditTable, found);
    nlohmann::json tree;
    const Verdict verdict = judge(body, tree);
    compare_verdicts(body, root, verdict, tree);
    if (!root) {
        std::array<char, kErrorTextBytesMax> sentence;
        require(!describe(root.error(), kEditSpecs, sentence).empty(), "no description");
    } else if (verdict == Verdict::Valid) {
        require(raw(*root, body).front() == '{' && raw(*root, body).back() == '}', "root", body);
        compare_members(body, found, tree);
        test::Random random(seed);
        test::EditedTwice twice(body, *root, found);
        twice.edit_at_random(random);
        const std::string wrong = twice.check();
        require(wrong.empty(), wrong.c_str(), body);
    }
    for (const Api api :
         {Api::Unknown, Api::Chat, Api::Completions, Api::Responses, Api::Messages}) {
        const StreamEvent event = classify(scanner, api, seed % 2 == 0 ? "" : "error", body);
        const bool error = event.kind == StreamEvent::Kind::Error;
        require(error == (event.http_code >= 400 && event.http_code <= 599), "status", body);
    }
    return 0;
}
