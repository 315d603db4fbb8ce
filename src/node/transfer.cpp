// SPDX-License-Identifier: Apache-2.0
#include "node/transfer.h"

namespace sluice::node {

kv::Status status_of(transport::Status status) {
    using transport::Status;
    const std::string text(transport::to_string(status));
    switch (status) {
        case Status::Landed:
        case Status::Delivered:
            return {};
        case Status::Revoked:
        case Status::PeerRevoked:
            return {kv::Code::Aborted, "the transport says: " + text};
        case Status::TimedOut:
            return {kv::Code::Timeout, "the transport says: " + text};
        case Status::PeerLost:
            return {kv::Code::PeerLost, "the data connection was lost"};
        case Status::Corrupt:
        case Status::Violation:
            return {kv::Code::PeerFailed, "the transport says: " + text};
        case Status::Refused:
            return {kv::Code::WrongToken, "the transport says: " + text};
    }
    return {kv::Code::PeerFailed, text};
}

void count_transfer(TransferMetrics& metrics, const kv::Half& half, Duration took) {
    metrics.transfers.add();
    metrics.bytes.add(half.bytes);
    metrics.ranges_before.add(half.pieces);
    metrics.ranges_after.add(half.merged);
    metrics.time.record(took);
    if (half.bytes > 0)
        metrics.time_per_gb.record(Duration(static_cast<std::int64_t>(
            static_cast<double>(took.count()) * 1e9 / static_cast<double>(half.bytes))));
}

}  // namespace sluice::node
