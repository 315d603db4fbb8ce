// SPDX-License-Identifier: Apache-2.0
// An answer that is an error, in vLLM's shapes.
// Threads: a value.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>

namespace sluice::engine {

struct ApiError {
    std::uint16_t status = 400;
    std::string type = "BadRequestError";
    std::string message;
    std::optional<std::string> param;
};

// What vLLM's own checks find.
ApiError bad_request(std::string message, std::optional<std::string> param = std::nullopt);
// The same with vLLM's trailing words about the member, and about the value if there is one to
// name.
ApiError bad_value(std::string message, std::string param, std::string_view value = {});

// What its request model (pydantic) finds. `place` is the path in the body, e.g. "messages" or
// "10"; `input` the value there as vLLM abridges it (python_input()).
struct InvalidMember {
    std::string_view type;
    std::string place;
    std::string_view message;
    std::string input;
    std::string_view context = {};  // {...}, with some types
};
ApiError invalid_body(std::initializer_list<InvalidMember> members);
ApiError invalid_body(InvalidMember member);
ApiError not_found_model(std::string message);
ApiError internal_error(std::string message = "Internal server error");
// With the type that vLLM gives a status, or its phrase.
ApiError error_of_status(std::uint16_t status, std::string message);

// {"error":{...}}, as in an answer's body.
std::string error_json(const ApiError& error);
// The same with Python's spaces, as in a stream's event.
std::string error_event_json(const ApiError& error);

}  // namespace sluice::engine
