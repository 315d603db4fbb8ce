// SPDX-License-Identifier: Apache-2.0
// Errors as OpenAI's clients expect them: {"error": {"message", "type", "param", "code"}}.
#pragma once

#include <cstdint>
#include <string_view>

#include "mem/text_arena.h"

namespace sluice::http {

// vLLM's names for the kinds, by status.
std::string_view error_type_of(std::uint16_t status);

// Appends the JSON object. `param` may be empty (null).
void write_error_json(TextWriter& writer, std::uint16_t status, std::string_view message,
                      std::string_view param = {});

}  // namespace sluice::http
