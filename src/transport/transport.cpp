// SPDX-License-Identifier: Apache-2.0
#include "transport/transport.h"

namespace sluice::transport {

std::string_view to_string(Status status) {
    switch (status) {
        case Status::Landed:
            return "landed";
        case Status::Delivered:
            return "delivered";
        case Status::Revoked:
            return "revoked";
        case Status::PeerRevoked:
            return "revoked by the peer";
        case Status::TimedOut:
            return "timed out";
        case Status::PeerLost:
            return "peer lost";
        case Status::Corrupt:
            return "checksum mismatch";
        case Status::Refused:
            return "hello refused";
        case Status::Violation:
            return "protocol violation";
    }
    return "unknown";
}

}  // namespace sluice::transport
