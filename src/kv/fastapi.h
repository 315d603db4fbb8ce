// SPDX-License-Identifier: Apache-2.0
// Answers that FastAPI gives by itself: {"detail": ...}.
// Threads: one.
#pragma once

#include <cstdint>
#include <string_view>

#include "http/server_connection.h"

namespace sluice::kv {

void respond_detail(http::ServerConnection& connection, std::uint16_t status,
                    std::string_view detail, std::string_view field_lines = {});
void not_found(http::ServerConnection& connection);
void method_not_allowed(http::ServerConnection& connection, std::string_view allowed);

}  // namespace sluice::kv
