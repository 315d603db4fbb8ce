// SPDX-License-Identifier: Apache-2.0
#include "base/result.h"

#include <unistd.h>

#include <cstring>

#include "base/assert.h"

namespace sluice {

namespace {

const char* name_of(Errc code) {
    switch (code) {
        case Errc::System:
            return "system error";
        case Errc::Unsupported:
            return "not supported here";
        case Errc::InvalidAddress:
            return "not a valid address";
        case Errc::NotResolved:
            return "the host name has no address";
        case Errc::LimitReached:
            return "a limit was reached";
        case Errc::Timeout:
            return "timed out";
        case Errc::ConnectionClosed:
            return "the peer closed the connection";
        case Errc::ConnectionReset:
            return "the connection was broken";
        case Errc::ConnectFailed:
            return "could not connect";
        case Errc::ProtocolViolation:
            return "the peer sent bytes that break the protocol";
        case Errc::Cancelled:
            return "cancelled";
    }
    UNREACHABLE();
}

}  // namespace

std::unexpected<Error> close_and_fail(int descriptor, int os) {
    ::close(descriptor);
    return fail_errno(os);
}

std::string describe(const Error& error) {
    if (error.os == 0) return name_of(error.code);
    if (error.code == Errc::System) return std::strerror(error.os);
    return std::string(name_of(error.code)) + ": " + std::strerror(error.os);
}

}  // namespace sluice
