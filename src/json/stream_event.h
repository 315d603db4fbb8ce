// SPDX-License-Identifier: Apache-2.0
#pragma once

// What an event of a streamed answer means to a proxy that has sent nothing to the client yet: is
// it only preamble (headers and roles go out before a token exists), the first content, an error
// that may still be retried elsewhere, or the end?
//
// Threads: the scanner's. Owns: nothing.
// Costs: one or a few scans of the event's data, no allocation. Looks at kChoicesMax choices at
//   most. Used until the first content only, so clarity goes before speed.
// Errors: none. Whatever is not understood is Content: a surprise must never hold a stream back.

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace sluice::json {

class Scanner;

inline constexpr std::size_t kChoicesMax = 256;            // more choices than that are content
inline constexpr std::uint16_t kDefaultErrorStatus = 500;  // an error that names no usable code

enum class Api : std::uint8_t { Unknown, Chat, Completions, Responses, Messages };

struct StreamEvent {
    enum class Kind : std::uint8_t { Preamble, Content, Error, Done };

    Kind kind = Kind::Content;
    std::uint16_t http_code = 0;  // Error: 400..599

    bool operator==(const StreamEvent&) const = default;
};

// `event_name` is the SSE event field (may be empty), `data` its data, with limits::kBufferSlack
// readable bytes behind it. An event without data is Preamble: a client would not even dispatch it.
StreamEvent classify(Scanner& scanner, Api api, std::string_view event_name,
                     std::string_view data) noexcept;

}  // namespace sluice::json
