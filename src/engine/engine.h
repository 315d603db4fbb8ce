// SPDX-License-Identifier: Apache-2.0
// A stand-in for `vllm serve`: the same HTTP API, KV roles and failures, with an imaginary model.
//
//   Engine engine(loop, options);
//   if (auto started = engine.start(); !started) ...
//   ... turn the loop; engine.address() is where it listens ...
//   engine.stop();  while (!engine.finished()) loop.run_turn(...);   // then it may be destroyed
//
// Any number of engines live on one loop. Everything it knows of time it has from the loop; its
// dice are seeded. Threads: the loop's. Owns: its listeners and connections. The loop outlives it.
// Costs: some kilobytes when idle. Errors: start() says what could not be opened; later failures
// are vLLM's own, answered over HTTP. dead() is what a vLLM process shows by exiting.
#pragma once

#include <memory>
#include <string>

#include "engine/context.h"
#include "engine/kv/connector.h"
#include "engine/scheduler.h"

namespace sluice::engine {

struct EngineState {
    EngineCounters counters;
    SchedulerCounts scheduler;
    ConnectorCounts connector;
    std::uint32_t generations_live = 0;
    std::uint32_t connections = 0;
    std::uint32_t restarts = 0;
};

class Engine {
public:
    Engine(io::Loop& loop, EngineOptions options);
    ~Engine();
    Engine(const Engine&) = delete;
    Engine& operator=(const Engine&) = delete;

    Result<void> start();
    void stop();
    bool finished() const;

    // The API answers. Not before all workers are registered, nor during a fault that closes the
    // listener.
    bool serving() const;
    // The engine core died; nothing listens any more, for good.
    bool dead() const;

    const io::Address& address() const;
    const io::Address& bootstrap_address() const;  // !valid() without a bootstrap server
    std::string engine_id(std::size_t rank = 0) const;
    const EngineOptions& options() const;

    EngineState state() const;
    void add_fault(const Fault& fault);
    void clear_faults();

private:
    class Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace sluice::engine
