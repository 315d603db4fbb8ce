// SPDX-License-Identifier: Apache-2.0
#include "pd/prefill_end.h"

#include "json/value.h"

namespace sluice::pd {

namespace {

enum Root : std::int16_t { kChoices, kStatus, kMessageStopReason };
constexpr json::MemberSpec kRootSpecs[] = {
    {"choices", json::kRoot}, {"status", json::kRoot}, {"stop_reason", json::kRoot}};
constexpr json::MemberTable kRoot{kRootSpecs};

enum Choice : std::int16_t { kFinishReason, kStopReason };
constexpr json::MemberSpec kChoiceSpecs[] = {{"finish_reason", json::kRoot},
                                             {"stop_reason", json::kRoot}};
constexpr json::MemberTable kChoice{kChoiceSpecs};

bool choice_stopped(json::Scanner& scanner, std::string_view choices) {
    // One choice was asked for, so what lies between the brackets is that object.
    const auto begin = choices.find('{');
    const auto end = choices.rfind('}');
    if (begin == std::string_view::npos || end == std::string_view::npos || end < begin)
        return false;
    const std::string_view choice = choices.substr(begin, end - begin + 1);
    json::Member found[2];
    if (!scanner.scan(choice, kChoice, found)) return false;
    const std::string_view reason = json::raw(found[kFinishReason], choice);
    if (reason == "\"abort\"" || reason == "\"error\"") return true;
    return reason == "\"stop\"" && found[kStopReason].kind != json::Kind::String;
}

}  // namespace

bool prefill_stopped(json::Scanner& scanner, json::Api api, std::string_view answer) {
    json::Member found[3];
    if (!scanner.scan(answer, kRoot, found)) return false;
    switch (api) {
        case json::Api::Chat:
        case json::Api::Completions:
            return found[kChoices].kind == json::Kind::Array && found[kChoices].count == 1 &&
                   choice_stopped(scanner, json::raw(found[kChoices], answer));
        case json::Api::Responses:
            return json::raw(found[kStatus], answer) == "\"completed\"";
        case json::Api::Messages:
            return json::raw(found[kMessageStopReason], answer) == "\"end_turn\"";
        case json::Api::Unknown:
            return false;
    }
    return false;
}

}  // namespace sluice::pd
