// SPDX-License-Identifier: Apache-2.0
// Errors as values.
//
// An Error is a code and, where the kernel was asked, its errno: eight bytes, no text. Text is made
// at the edge by describe(). Result<T> is what a function returns that can fail. Threads: values,
// any thread.
#pragma once

#include <cerrno>
#include <cstdint>
#include <expected>
#include <string>

namespace sluice {

enum class Errc : std::uint16_t {
    System,             // a kernel call failed; `os` says why
    Unsupported,        // this kernel or build lacks something needed
    InvalidAddress,     // an address or URL that cannot be read
    NotResolved,        // a host name without an address
    LimitReached,       // a named limit was hit
    Timeout,            // a deadline passed
    ConnectionClosed,   // the peer closed
    ConnectionReset,    // the peer or the network broke the connection
    ConnectFailed,      // no connection could be made
    ProtocolViolation,  // the peer's bytes are not valid for the protocol
    Cancelled,          // our side gave up
};

struct Error {
    Errc code;
    std::int32_t os = 0;  // errno, or 0

    friend bool operator==(const Error&, const Error&) = default;
};

template <class T>
using Result = std::expected<T, Error>;

inline std::unexpected<Error> fail(Errc code, int os = 0) {
    return std::unexpected(Error{code, os});
}
inline std::unexpected<Error> fail_errno(int os = errno) { return fail(Errc::System, os); }
// ... where a descriptor was made that is not handed out.
std::unexpected<Error> close_and_fail(int descriptor, int os = errno);

// One clause for logs and messages, e.g. "connection refused".
std::string describe(const Error& error);

}  // namespace sluice

// Returns early with the error of `expression`, a Result<void>.
#define TRY(expression)                                    \
    do {                                                   \
        if (auto try_result_ = (expression); !try_result_) \
            return std::unexpected(try_result_.error());   \
    } while (false)
