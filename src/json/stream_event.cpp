// SPDX-License-Identifier: Apache-2.0
#include "json/stream_event.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>
#include <span>

#include "json/scan.h"
#include "json/value.h"

namespace sluice::json {

namespace {

constexpr StreamEvent kPreamble{StreamEvent::Kind::Preamble, 0};
constexpr StreamEvent kContent{StreamEvent::Kind::Content, 0};
constexpr StreamEvent kDone{StreamEvent::Kind::Done, 0};

constexpr StreamEvent error_event(std::uint16_t http_code) {
    return {StreamEvent::Kind::Error, http_code};
}

// ---- The members looked at. The indices name them.

namespace top {
enum Index : std::int16_t {
    Error,
    ErrorCode,
    ErrorType,
    Object,
    Code,
    Type,
    Choices,
    Usage,
    Response,
    ResponseError,
    ResponseErrorCode,
    ResponseErrorType,
    kCount,
};
constexpr std::array<MemberSpec, kCount> kSpecs{{
    {"error"},
    {"code", Error},
    {"type", Error},
    {"object"},
    {"code"},
    {"type"},
    {"choices"},
    {"usage"},
    {"response"},
    {"error", Response},
    {"code", ResponseError},
    {"type", ResponseError},
}};
constexpr MemberTable kTable(kSpecs);
}  // namespace top

namespace choice {
enum Index : std::int16_t {
    Delta,
    Text,
    FinishReason,
    Logprobs,
    TokenIds,
    Role,
    Content,
    Reasoning,
    ReasoningContent,
    Refusal,
    FunctionCall,
    ToolCalls,
    kCount,
};
constexpr std::array<MemberSpec, kCount> kSpecs{{
    {"delta"},
    {"text"},
    {"finish_reason"},
    {"logprobs"},
    {"token_ids"},
    {"role", Delta},
    {"content", Delta},
    {"reasoning", Delta},
    {"reasoning_content", Delta},
    {"refusal", Delta},
    {"function_call", Delta},
    {"tool_calls", Delta},
}};
constexpr MemberTable kTable(kSpecs);
}  // namespace choice

// A JSON object with the members that were found in it.
template <std::size_t Size>
struct View {
    std::string_view text;
    std::array<Member, Size> found;

    const Member& operator[](std::int16_t index) const {
        return found[static_cast<std::size_t>(index)];
    }
    std::string_view raw_of(std::int16_t index) const { return raw((*this)[index], text); }

    // The text of a short string; empty for anything else. Escaped strings never equal ours.
    std::string_view string(std::int16_t index) const {
        const std::string_view value = raw_of(index);
        return (*this)[index].kind == Kind::String ? value.substr(1, value.size() - 2)
                                                   : std::string_view{};
    }
};

template <std::size_t Size>
std::optional<View<Size>> look(Scanner& scanner, std::string_view text, const MemberTable& table) {
    View<Size> view{text, {}};
    return scanner.scan(text, table, view.found) ? std::optional(view) : std::nullopt;
}

using Top = View<top::kCount>;
using Choice = View<choice::kCount>;

// ---- Errors

struct NamedStatus {
    std::string_view name;
    std::uint16_t status;
};

// What engines and the two vendors' APIs call their errors, where no number is given.
constexpr std::array<NamedStatus, 22> kNamedStatuses{{
    {"invalid_request_error", 400},
    {"BadRequestError", 400},
    {"invalid_prompt", 400},
    {"authentication_error", 401},
    {"AuthenticationError", 401},
    {"permission_error", 403},
    {"PermissionDeniedError", 403},
    {"not_found_error", 404},
    {"NotFoundError", 404},
    {"timeout_error", 504},
    {"request_too_large", 413},
    {"UnprocessableEntityError", 422},
    {"rate_limit_error", 429},
    {"rate_limit_exceeded", 429},
    {"api_error", 500},
    {"server_error", 500},
    {"InternalServerError", 500},
    {"NotImplementedError", 501},
    {"overloaded_error", 503},  // 529 at the vendor; 503 says the same to everybody
    {"ServiceUnavailableError", 503},
    {"Service Unavailable", 503},
    {"service_unavailable_error", 503},
}};

constexpr std::uint16_t kVendorOverloaded = 529;

std::optional<std::uint16_t> status_of(std::string_view word) {
    std::uint16_t number = 0;
    const auto [end, errc] = std::from_chars(word.data(), word.data() + word.size(), number);
    if (errc == std::errc{} && end == word.data() + word.size()) {
        if (number == kVendorOverloaded) {
            return std::uint16_t{503};
        }
        return number >= 400 && number <= 599 ? std::optional(number) : std::nullopt;
    }
    const auto* const named =
        std::find_if(kNamedStatuses.begin(), kNamedStatuses.end(),
                     [word](const NamedStatus& entry) { return entry.name == word; });
    return named != kNamedStatuses.end() ? std::optional(named->status) : std::nullopt;
}

// The first of these members (numbers or strings) that says a status.
std::uint16_t status_from(const Top& event, std::span<const std::int16_t> members) {
    for (const std::int16_t member : members) {
        const std::string_view word =
            event[member].kind == Kind::Number ? event.raw_of(member) : event.string(member);
        if (const auto status = status_of(word)) {
            return *status;
        }
    }
    return kDefaultErrorStatus;
}

StreamEvent error_of(const Top& event) {
    static constexpr std::array<std::int16_t, 6> kPlaces{
        top::ErrorCode,         top::ErrorType, top::ResponseErrorCode,
        top::ResponseErrorType, top::Code,      top::Type};
    return error_event(status_from(event, kPlaces));
}

// {"error": {...}} or {"error": "text"}; very old engines: {"object": "error", ...}.
bool has_error(const Top& event) {
    const Kind kind = event[top::Error].kind;
    return kind == Kind::Object || kind == Kind::String || event.string(top::Object) == "error";
}

// ---- Chat and completions

// Absent, null, "", [] or {}.
bool is_empty(const Choice& view, std::int16_t member) {
    const Member& found = view[member];
    switch (found.kind) {
        case Kind::Absent:
            return true;
        case Kind::Null:
            return true;
        case Kind::String:
            return found.value_end - found.value_begin == 2;
        case Kind::Array:
            return found.count == 0;
        case Kind::Object:
            return found.count == 0;
        default:
            return false;
    }
}

// Nothing but a role, and known members that are empty.
bool is_bare_delta(const Choice& view) {
    static constexpr std::array<std::int16_t, 6> kMustBeEmpty{
        choice::Content, choice::Reasoning,    choice::ReasoningContent,
        choice::Refusal, choice::FunctionCall, choice::ToolCalls};
    const Member& delta = view[choice::Delta];
    if (delta.kind != Kind::Object) {
        return false;
    }
    std::uint32_t known = view[choice::Role] ? 1 : 0;
    for (const std::int16_t member : kMustBeEmpty) {
        if (!is_empty(view, member)) {
            return false;
        }
        known += view[member] ? 1 : 0;
    }
    return known == delta.count;
}

StreamEvent classify_choice(Scanner& scanner, Api api, std::string_view text) {
    const auto view = look<choice::kCount>(scanner, text, choice::kTable);
    if (!view) {
        return kContent;
    }
    if (view->string(choice::FinishReason) == "error") {
        return error_event(kDefaultErrorStatus);
    }
    const bool nothing_yet = is_empty(*view, choice::FinishReason) &&
                             is_empty(*view, choice::Logprobs) && is_empty(*view, choice::TokenIds);
    const bool bare = api == Api::Chat ? is_bare_delta(*view)
                                       : (*view)[choice::Text].kind == Kind::String &&
                                             is_empty(*view, choice::Text);
    return nothing_yet && bare ? kPreamble : kContent;
}

// The event is an error if any choice is, preamble if all are.
StreamEvent classify_choices(Scanner& scanner, Api api, const Top& event) {
    const Member& choices = event[top::Choices];
    if (choices.kind != Kind::Array || choices.count > kChoicesMax) {
        return kContent;
    }
    if (choices.count == 0) {
        const Kind usage = event[top::Usage].kind;
        return usage == Kind::Absent || usage == Kind::Null ? kPreamble : kContent;
    }
    StreamEvent result = kPreamble;
    Elements elements(event.raw_of(top::Choices));
    while (const auto element = elements.next()) {
        const StreamEvent one = classify_choice(scanner, api, *element);
        if (one.kind == StreamEvent::Kind::Error) {
            return one;
        }
        result = one.kind == StreamEvent::Kind::Content ? one : result;
    }
    return result;
}

// ---- Responses and messages: the type says it

constexpr std::array<std::string_view, 6> kResponsesPreamble{
    "response.created",           "response.in_progress",        "response.queued",
    "response.output_item.added", "response.content_part.added", "response.reasoning_part.added"};

constexpr std::array<std::string_view, 3> kMessagesPreamble{"message_start", "content_block_start",
                                                            "ping"};

StreamEvent classify_type(Api api, std::string_view type, const Top& event) {
    if (type == "error" || (api == Api::Responses && type == "response.failed")) {
        return error_of(event);
    }
    const std::span<const std::string_view> preamble =
        api == Api::Responses ? std::span<const std::string_view>(kResponsesPreamble)
                              : std::span<const std::string_view>(kMessagesPreamble);
    const bool known = std::find(preamble.begin(), preamble.end(), type) != preamble.end();
    return known ? kPreamble : kContent;
}

}  // namespace

StreamEvent classify(Scanner& scanner, Api api, std::string_view event_name,
                     std::string_view data) noexcept {
    if (data.empty()) {
        return kPreamble;
    }
    if (data == "[DONE]") {
        return kDone;
    }
    const auto event = look<top::kCount>(scanner, data, top::kTable);
    if (!event) {
        return kContent;
    }
    if (has_error(*event)) {
        return error_of(*event);
    }
    switch (api) {
        case Api::Chat:
        case Api::Completions:
            return classify_choices(scanner, api, *event);
        case Api::Responses:
        case Api::Messages:
            return classify_type(api, event_name.empty() ? event->string(top::Type) : event_name,
                                 *event);
        case Api::Unknown:
            return kContent;
    }
    return kContent;
}

}  // namespace sluice::json
