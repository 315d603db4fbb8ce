// SPDX-License-Identifier: Apache-2.0
#include "load/tally.h"

namespace sluice::load {

void Tally::merge(const Tally& other) {
    ended.add(other.ended.value());
    events_seen.add(other.events_seen.value());
    started.add(other.started.value());
    succeeded.add(other.succeeded.value());
    events.add(other.events.value());
    bytes_in.add(other.bytes_in.value());
    bytes_out.add(other.bytes_out.value());
    for (std::size_t i = 0; i < failures.size(); ++i) failures[i].add(other.failures[i].value());
    first_token.merge(other.first_token);
    gap.merge(other.gap);
    total.merge(other.total);
    late.merge(other.late);
}

}  // namespace sluice::load
