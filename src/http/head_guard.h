// SPDX-License-Identifier: Apache-2.0
// Our own look at a head's raw bytes, before llhttp sees them.
//
// llhttp 9 still lets some forms through, and the 8.1 that some systems have lets many (io-http
// notes in the README); these checks are the line that does not depend on its version. Threads:
// any. Costs: one pass over the bytes.
#pragma once

#include <string_view>

namespace sluice::http {

// Why the lines of this head are not acceptable, or nullptr. The first line (request or status
// line) is checked for control characters only.
const char* find_line_fault(std::string_view head);

enum class RequestLineFault : unsigned char { None, Malformed, BadTarget, UnknownVersion };

struct RequestLine {
    std::string_view method;
    std::string_view target;
    int minor_version = 0;
};

// Splits "METHOD SP target SP HTTP/1.x", exactly.
RequestLineFault split_request_line(std::string_view line, RequestLine& out);

bool is_token(std::string_view text);

}  // namespace sluice::http
