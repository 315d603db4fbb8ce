// SPDX-License-Identifier: Apache-2.0
// One GET over a plain blocking socket with a time limit, for the doctor; the data plane has its
// own client (http/).
//
// The answer goes through the same strict parser as the proxy's, so what is accepted here is
// accepted there. Threads: any; calls are independent. Errors: HttpFailure, which says how far it
// got.
#pragma once

#include <expected>
#include <string>
#include <string_view>

#include "base/time.h"
#include "io/address.h"

namespace sluice::app {

struct HttpAnswer {
    std::uint16_t status = 0;
    std::string body;
    Duration connect_time{};
    Duration total_time{};  // from the first step to the last byte
};

struct HttpFailure {
    enum class Stage : std::uint8_t { Connect, Exchange, Answer };
    Stage stage;  // no connection; it broke or took too long; what came is not HTTP
    Error error;
    std::string what;  // a clause
    Duration total_time{};
};

struct HttpQuestion {
    io::Address address;
    std::string_view host_header;
    std::string_view path;
    std::string_view api_key;  // sent as a bearer token, if not empty
    Duration limit = std::chrono::seconds(2);
};

std::expected<HttpAnswer, HttpFailure> http_get(const HttpQuestion& question);

}  // namespace sluice::app
