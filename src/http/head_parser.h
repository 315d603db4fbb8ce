// SPDX-License-Identifier: Apache-2.0
// From the bytes of one complete head to its model, strictly.
//
// Three steps: our own look at the raw lines (head_guard.h: bare CR and LF, folded lines, blanks
// before colons, control characters, the request line's form), then llhttp, then the rules that
// llhttp leaves open (Host, targets, codings, versions). What llhttp lets through and we refuse is
// in tests/vectors/http/. Threads: any. Costs: ~0.4 us for a 350-byte head. Errors: the status to
// answer with and a sentence.
#pragma once

#include <optional>
#include <string_view>

#include "http/head.h"

namespace sluice::http {

struct HeadError {
    std::uint16_t status;  // for a request: what to answer; for a response: 502
    const char* message;
};

// `bytes` is one head with its final empty line.
std::optional<HeadError> parse_request_head(Slice bytes, RequestHead& head);

// `to_head_request`: the answer to HEAD has no body whatever its fields say.
std::optional<HeadError> parse_response_head(Slice bytes, bool to_head_request, ResponseHead& head);

}  // namespace sluice::http
