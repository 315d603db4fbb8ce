// SPDX-License-Identifier: Apache-2.0
#include "kv/fastapi.h"

#include "json/text.h"

namespace sluice::kv {

void respond_detail(http::ServerConnection& connection, std::uint16_t status,
                    std::string_view detail, std::string_view field_lines) {
    json::JsonText json;
    json.begin_object().member("detail", detail).end_object();
    connection.respond(status, "application/json", json.text, field_lines);
}

void not_found(http::ServerConnection& connection) { respond_detail(connection, 404, "Not Found"); }

void method_not_allowed(http::ServerConnection& connection, std::string_view allowed) {
    const std::string allow = "Allow: " + std::string(allowed) + "\r\n";
    respond_detail(connection, 405, "Method Not Allowed", allow);
}

}  // namespace sluice::kv
