// SPDX-License-Identifier: Apache-2.0
// An answer that is an error, in vLLM's shapes.
// Threads: a value.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace sluice::engine {

struct ApiError {
    std::uint16_t status = 400;
    std::string type = "BadRequestError";
    std::string message;
    std::optional<std::string> param;
};

// What vLLM's own checks find.
ApiError bad_request(std::string message, std::optional<std::string> param = std::nullopt);
// What its request model (pydantic) finds; `place` is the path in the body, e.g. "messages" or
// "10".
ApiError invalid_body(std::string type, std::string place, std::string message);
ApiError not_found_model(std::string message);
ApiError internal_error(std::string message = "Internal server error");
// With the type that vLLM gives a status, or its phrase.
ApiError error_of_status(std::uint16_t status, std::string message);

// {"error":{...}}, as in an answer's body.
std::string error_json(const ApiError& error);
// The same with Python's spaces, as in a stream's event.
std::string error_event_json(const ApiError& error);

}  // namespace sluice::engine
