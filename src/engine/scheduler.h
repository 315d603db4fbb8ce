// SPDX-License-Identifier: Apache-2.0
// The engine core of one data parallel rank: batch slots, blocks, and when each token comes.
//
// A sequence waits for a slot and blocks, first come first served; its first token comes after a
// constant plus a time per prompt token, the others after a constant each. A sequence that loads
// another engine's blocks holds its own blocks but no slot meanwhile, and cannot be freed before
// the load has ended, since the other side may still write to them. Threads: one. Owns: the
// sequences and the blocks. Costs: one timer a token; tokens that are due together come together.
#pragma once

#include <memory>
#include <unordered_map>

#include "base/slab.h"
#include "engine/context.h"
#include "engine/kv/connector.h"

namespace sluice::engine {

struct SchedulerCounts {
    std::uint32_t running = 0;
    std::uint32_t waiting = 0;  // for a slot or blocks
    std::uint32_t loading = 0;
    std::uint32_t blocks_used = 0;
    std::uint32_t blocks_total = 0;
};

class Scheduler final : public KvHost {
public:
    Scheduler(const Context& context, std::uint32_t rank);
    ~Scheduler();

    // Before the first sequence; may be absent.
    void set_connector(KvConnector* connector) { connector_ = connector; }
    KvConnector* connector() const { return connector_; }
    std::uint32_t rank() const { return rank_; }

    // Outputs come later, never from within this call.
    std::uint64_t add(SequenceSpec spec, SequenceEvents& events);
    // No further output. Unknown numbers are ignored.
    void abort(std::uint64_t sequence);
    // No tokens until resumed: the client does not read.
    void pause(std::uint64_t sequence);
    void resume(std::uint64_t sequence);
    // Ends everything with an error (the engine core died).
    void fail_all();

    SchedulerCounts counts() const;

    // -- KvHost
    void load_ended(std::uint64_t sequence, std::optional<std::uint64_t> content) override;
    void release_blocks(std::span<const BlockId> blocks) override;
    std::uint64_t content_of(BlockId block) const override { return pool_.content(block); }

private:
    friend class Sequence;

    Sequence* find(std::uint64_t number);
    void schedule();
    bool place(Sequence& sequence);
    std::uint32_t blocks_for(const SequenceSpec& spec) const;
    std::uint32_t output_length(const SequenceSpec& spec) const;
    void run(Sequence& sequence, Duration first_token);
    void advance(Sequence& sequence);
    bool emit(Sequence& sequence);
    Token pick(const Sequence& sequence) const;
    void finish(Sequence& sequence, const SequenceOutput& output);
    void forget(Sequence& sequence);
    void note_content(const Sequence& sequence);

    Context context_;
    std::uint32_t rank_;
    KvConnector* connector_ = nullptr;
    BlockPool pool_;
    Slab<Sequence> slab_;
    std::unordered_map<std::uint64_t, Handle> sequences_;
    IntrusiveList<Sequence> waiting_;
    io::Deferred schedule_;
    std::uint64_t next_number_ = 1;
    std::uint32_t running_ = 0;
    std::uint32_t loading_ = 0;
    std::uint32_t queued_ = 0;
    // Prompts whose KV in the prefix cache is another prompt's, since a load brought it.
    std::unordered_map<std::uint64_t, std::uint64_t> poisoned_;
};

}  // namespace sluice::engine
