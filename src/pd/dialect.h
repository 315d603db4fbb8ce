// SPDX-License-Identifier: Apache-2.0
// How a P/D pair wants the KV hand-over said in HTTP: one small file each in dialects/, listed in
// dialect.cpp.
//
// A dialect says in which order the legs start, what each is told, what P's answer means for D, and
// whether a prefill that nobody waits for any more is better finished or cut. Threads: any;
// dialects have no state.
#pragma once

#include <cstdint>
#include <string_view>

#include "fleet/instance.h"
#include "mem/text_arena.h"

namespace sluice::pd {

enum class LegOrder : std::uint8_t {
    Concurrent,  // D waits for P inside the engines
    Sequential,  // D is told what P answered
};

// One attempt at one pair.
struct AttemptFacts {
    const fleet::Instance* prefill = nullptr;
    const fleet::DataParallelRank* rank = nullptr;  // of the prefill, if it has ranks
    std::string_view transfer_id;                   // never used twice
    // Whom D is to ask for the blocks: P's own, or the KV relay's (src/relay).
    std::string_view bootstrap_url;
    std::string_view engine_id;
};

class Dialect {
public:
    virtual std::string_view name() const = 0;
    virtual LegOrder order() const = 0;

    // Appends the value of kv_transfer_params for P's request.
    virtual void write_prefill_params(TextWriter& out, const AttemptFacts& attempt) const = 0;
    // ... and for D's. `prefill_answer`: the raw kv_transfer_params object of P's answer
    // (Sequential), or empty.
    virtual void write_decode_params(TextWriter& out, const AttemptFacts& attempt,
                                     std::string_view prefill_answer) const = 0;
    // Sequential: whether P's answer must carry kv_transfer_params (their absence is a failed
    // prefill).
    virtual bool answer_carries_params() const { return order() == LegOrder::Sequential; }

    // D's pull may go through the KV relay.
    virtual bool can_be_relayed() const { return false; }

    // The exchange is over for P (the client left, or D failed) while its prefill runs: whether to
    // let it finish. `decode_may_pull`: D has been sent its request, so it may be waiting for these
    // blocks.
    virtual bool finish_unwanted_prefill(bool decode_may_pull) const = 0;
    // The client left while D computes: whether D's leg is better finished than cut.
    virtual bool finish_unwanted_decode(bool /*stream*/) const { return false; }

protected:
    ~Dialect() = default;
};

// nullptr for Unknown.
const Dialect* dialect_of(fleet::DialectKind kind);

}  // namespace sluice::pd
