// SPDX-License-Identifier: Apache-2.0
// What is sent to P and to D: a new head, and the client's body with edits spliced in.
//
// The body is never written anew: the message is the head, the untouched parts of the body where
// they lie, and small inserted texts between them. Threads: one. Costs: one pass over the head's
// fields; nothing proportional to the body. Errors: an empty queue when buffer memory is exhausted.
#pragma once

#include "http/head.h"
#include "mem/slice_queue.h"
#include "pd/body_scan.h"
#include "pd/dialect.h"

namespace sluice::pd {

struct LegHeadFacts {
    std::string_view request_id;
    std::string_view upstream_api_key;              // replaces the client's Authorization
    bool drop_authorization = false;                // the client's key is the proxy's own business
    const fleet::DataParallelRank* rank = nullptr;  // X-data-parallel-rank
    std::uint32_t attempt = 1;                      // later ones get an id of their own
};

// P: everything that shapes the prompt stays; it computes one token and streams nothing.
SliceQueue make_prefill_message(TextArena& texts, const http::RequestHead& head, const Slice& body,
                                const BodyScan& scan, json::Api api,
                                const fleet::Instance& instance, const LegHeadFacts& facts,
                                const Dialect& dialect, const AttemptFacts& attempt);

// D: the client's body as it came, with the dialect's parameters; without, if `dialect` is nullptr.
SliceQueue make_decode_message(TextArena& texts, const http::RequestHead& head, const Slice& body,
                               const BodyScan& scan, const fleet::Instance& instance,
                               const LegHeadFacts& facts, const Dialect* dialect,
                               const AttemptFacts& attempt, std::string_view prefill_answer);

// One decode instance, unchanged (body as it is).
SliceQueue make_plain_message(TextArena& texts, const http::RequestHead& head, const Slice& body,
                              const fleet::Instance& instance, const LegHeadFacts& facts);

}  // namespace sluice::pd
