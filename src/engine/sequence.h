// SPDX-License-Identifier: Apache-2.0
// One prompt being answered once: vLLM's engine-core request. A chat request with n = 2 has two.
//
// Made by Scheduler::add(), which owns it. It outlives the HTTP request that asked for it while
// blocks of it are still being written by another engine. Threads: one.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/intrusive_list.h"
#include "base/timer_wheel.h"
#include "engine/block_pool.h"
#include "engine/kv/params.h"
#include "engine/model/text.h"

namespace sluice::engine {

enum class FinishReason : std::uint8_t { None, Stop, Length, Abort, Error };

struct SequenceSpec {
    std::string request_id;  // "chatcmpl-<id>-<8 hex digits>", as the engine core knows it
    std::uint32_t prompt_tokens = 0;
    std::uint64_t prompt_hash = 0;
    std::uint32_t choice = 0;  // of n
    std::uint32_t max_tokens = 1;
    std::uint32_t min_tokens = 0;
    bool ignore_eos = false;
    std::vector<Token> stop_token_ids;
    bool eos_first = false;          // a fault
    Duration extra_delay{0};         // a fault
    bool skips_cache_reads = false;  // prompt_logprobs: computed here whatever the cache holds
    std::shared_ptr<const KvParams> kv;
};

struct SequenceOutput {
    std::optional<Token> token;  // none: end of sequence, or an end without a token
    FinishReason finish = FinishReason::None;
    std::optional<Token> stop_token;
    std::uint32_t output_tokens = 0;  // so far, the end-of-sequence token included
    const std::string* kv_params =
        nullptr;  // with the finish: what the connector returns; null: nothing
};

class Sequence;

class SequenceEvents {
public:
    // After an output with a finish no other comes, and the sequence must not be used again.
    virtual void on_output(Sequence& sequence, const SequenceOutput& output) = 0;

protected:
    ~SequenceEvents() = default;
};

class Scheduler;

class Sequence : public ListNode<Sequence> {
public:
    enum class State : std::uint8_t {
        Waiting,  // for a slot and blocks
        Loading,  // its blocks are being written by another engine
        Loaded,   // ... and were; it waits for a slot
        Running,
        Finished,
    };

    Sequence(Scheduler& scheduler, SequenceSpec spec, SequenceEvents& events, std::uint64_t number);

    const SequenceSpec spec;
    const std::uint64_t number;  // unique in the scheduler
    std::vector<BlockId> blocks;
    std::string returned_params;  // JSON, from the connector, when it has finished
    std::uint64_t content = 0;    // the hash whose text it gives

private:
    friend class Scheduler;
    void on_timer();

    Scheduler& scheduler_;
    SequenceEvents* events_;  // nullptr: nobody listens any more
    Timer timer_;
    State state_ = State::Waiting;
    Instant due_{};
    std::uint32_t position_ = 0;  // tokens given
    bool paused_ = false;
};

}  // namespace sluice::engine
