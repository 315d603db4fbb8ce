// SPDX-License-Identifier: Apache-2.0
#include "engine/api/error.h"

#include "json/text.h"
#include "http/error_answer.h"
#include "http/head_writer.h"

namespace sluice::engine {

ApiError bad_request(std::string message, std::optional<std::string> param) {
    return {400, "BadRequestError", std::move(message), std::move(param)};
}

ApiError bad_value(std::string message, std::string param, std::string_view value) {
    message += " (parameter=" + param;
    if (!value.empty()) message.append(", value=").append(value);
    return bad_request(message + ")", std::move(param));
}

ApiError invalid_body(std::initializer_list<InvalidMember> members) {
    const auto path = [](const InvalidMember& member) {
        return member.place.empty() ? "body" : "body." + member.place;
    };
    ApiError error;
    error.type = "Bad Request";
    error.message = std::to_string(members.size()) +
                    (members.size() == 1 ? " validation error:" : " validation errors:");
    for (const InvalidMember& member : members) {
        error.message.append("\n  {'type': '").append(member.type);
        error.message.append("', 'loc': '").append(path(member));
        error.message.append("', 'msg': '").append(member.message);
        error.message.append("', 'input': '").append(member.input).append("'");
        if (!member.context.empty()) error.message.append(", 'ctx': ").append(member.context);
        error.message += "}";
    }
    error.param = path(*members.begin());
    return error;
}

ApiError invalid_body(InvalidMember member) { return invalid_body({std::move(member)}); }

ApiError not_found_model(std::string message) {
    return {404, "NotFoundError", std::move(message), "model"};
}

ApiError internal_error(std::string message) {
    return {500, "InternalServerError", std::move(message), std::nullopt};
}

ApiError error_of_status(std::uint16_t status, std::string message) {
    ApiError error;
    error.status = status;
    switch (status) {
        case 400:
            error.type = "BadRequestError";
            break;
        case 404:
            error.type = "NotFoundError";
            break;
        case 500:
            error.type = "InternalServerError";
            break;
        case 429:
        case 503:
            error.type = status == 503 ? "Service Unavailable" : "Too Many Requests";
            break;
        default:
            error.type = http::error_type_of(status);
    }
    error.message = message.empty() ? std::string(http::reason_of(status)) : std::move(message);
    return error;
}

std::string error_json(const ApiError& error) {
    json::JsonText json;
    json.begin_object()
        .key("error")
        .begin_object()
        .member("message", error.message)
        .member("type", error.type);
    if (error.param) {
        json.member("param", *error.param);
    } else {
        json.member("param", nullptr);
    }
    return std::move(json.member("code", error.status).end_object().end_object().text);
}

std::string error_event_json(const ApiError& error) {
    std::string text = R"({"error": {"message": )";
    json::append_json_string(text, error.message);
    text += R"(, "type": )";
    json::append_json_string(text, error.type);
    text += R"(, "param": )";
    if (error.param) {
        json::append_json_string(text, *error.param);
    } else {
        text += "null";
    }
    return text + R"(, "code": )" + std::to_string(error.status) + "}}";
}

}  // namespace sluice::engine
