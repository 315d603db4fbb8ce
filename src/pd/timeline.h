// SPDX-License-Identifier: Apache-2.0
// What happened to one request, and when: what its histograms, its Server-Timing field and its log
// line are made of.
//
// Times are the loop's, so those of one turn are equal; kNever is what did not happen. The legs'
// times are those of the last attempt, bytes are over all attempts, and of bodies only. Threads:
// one.
#pragma once

#include "base/time.h"
#include "fleet/instance.h"

namespace sluice::pd {

struct Timeline {
    static constexpr std::uint32_t kNoInstance = UINT32_MAX;

    Instant received = kNever;  // its first byte
    Instant began = kNever;     // all of it
    Instant admitted = kNever;
    Instant prefill_began = kNever;
    Instant prefill_ended = kNever;
    Instant decode_sent = kNever;
    Instant decode_head = kNever;
    Instant first_content = kNever;
    Instant last_byte = kNever;

    std::uint64_t client_in = 0;
    std::uint64_t client_out = 0;
    std::uint64_t prefill_in = 0;
    std::uint64_t prefill_out = 0;
    std::uint64_t decode_in = 0;
    std::uint64_t decode_out = 0;
    std::uint32_t pieces = 0;  // in which the answer went to the client

    std::uint32_t attempts = 0;
    std::uint32_t prefill_index = kNoInstance;
    std::uint32_t decode_index = kNoInstance;
    fleet::DialectKind dialect = fleet::DialectKind::Unknown;  // Unknown: no prefill leg
    std::uint16_t status = 0;                                  // of the answer

    // Before another attempt.
    void forget_legs() {
        prefill_began = prefill_ended = decode_sent = decode_head = kNever;
        prefill_index = decode_index = kNoInstance;
        dialect = fleet::DialectKind::Unknown;
    }
};

// From `from` to `to`, or zero if either did not happen or they are the other way round.
constexpr Duration between(Instant from, Instant to) {
    if (from == kNever || to == kNever || to < from) return Duration::zero();
    return to - from;
}

}  // namespace sluice::pd
