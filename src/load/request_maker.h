// SPDX-License-Identifier: Apache-2.0
// Writes the requests of one load thread: head and JSON body, the prompt of the drawn size.
//
// Every prompt begins with 16 digits of its own (if it is that long), so that no engine finds it in
// a prefix cache; the rest is the same text for all and is sent from where it lies. Threads: one.
// Owns: the text. Costs: nothing proportional to the prompt.
#pragma once

#include "base/rng.h"
#include "load/options.h"
#include "mem/slice_queue.h"
#include "mem/text_arena.h"

namespace sluice::load {

class RequestMaker {
public:
    RequestMaker(const LoadOptions& options, BufferPool& buffers, std::uint64_t seed);

    // False: there is not enough memory for the largest prompt.
    bool ready() const { return filler_.size > 0 || options_.prompt_bytes.largest() == 0; }
    SliceQueue make();

private:
    static constexpr std::size_t kMarkBytes = 17;

    const LoadOptions& options_;
    TextArena texts_;
    Rng rng_;
    Slice filler_;
};

}  // namespace sluice::load
