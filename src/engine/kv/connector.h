// SPDX-License-Identifier: Apache-2.0
// A KV connector of one data parallel rank, with the hooks that vLLM's scheduler has for it.
//
// The prefill side is told when a sequence has its blocks and when it has finished, and may keep
// the blocks; the decode side starts a load and later tells the scheduler how it ended
// (LoadResult). See kv/mooncake.h and kv/nixl.h. Threads: one.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "base/delegate.h"
#include "engine/block_pool.h"
#include "engine/sequence.h"

namespace sluice::engine {

// What connectors ask of the scheduler. Sequences are named by number: they may have gone.
class KvHost {
public:
    // `content`: the hash of the prompt whose KV has come; none: the load failed.
    virtual void load_ended(std::uint64_t sequence, std::optional<std::uint64_t> content) = 0;
    virtual void release_blocks(std::span<const BlockId> blocks) = 0;
    virtual std::uint64_t content_of(BlockId block) const = 0;

protected:
    ~KvHost() = default;
};

struct ConnectorCounts {
    std::uint32_t transfers_live = 0;  // P: transfer ids known
    std::uint32_t seats_taken = 0;     // P: sender tasks busy
    std::uint32_t pulls_queued = 0;    // P: messages without a seat
    std::uint32_t pulls_waiting = 0;   // D: sequences whose blocks are being written
    std::uint32_t blocks_held = 0;     // P: of finished sequences
};

class KvConnector {
public:
    virtual ~KvConnector() = default;

    // vLLM asserts that an engine's role fits the request; false kills the engine core.
    virtual bool role_fits(const KvParams& params) const = 0;
    // The sequence waits for another engine's blocks.
    virtual bool loads(const Sequence& sequence) const = 0;
    virtual void start_load(Sequence& sequence) = 0;
    // Nobody waits for the load any more; it goes on. False kills the core.
    virtual bool load_abandoned(Sequence&) { return true; }
    virtual void allocated(Sequence&) {}
    // True: the blocks are the connector's until release_blocks(). May set returned_params.
    virtual bool finished(Sequence&, FinishReason) { return false; }
    // A request that was to load was given up before it was scheduled, or refused by the API. False
    // kills the core.
    virtual bool dropped(const KvParams&, const std::string&) { return true; }

    virtual const std::string& engine_id() const = 0;
    virtual ConnectorCounts counts() const = 0;

    // Forgets everything. Run the loop until finished().
    virtual void stop() = 0;
    virtual bool finished() const = 0;
};

}  // namespace sluice::engine
