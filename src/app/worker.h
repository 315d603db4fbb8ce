// SPDX-License-Identifier: Apache-2.0
// One worker thread of `sluice proxy`: its ring, its loop, its proxy, and on the first one the
// fleet's keeper.
//
// Made on the main thread, so that everything that can fail fails before a thread starts; belongs
// to its own thread from run() on. Threads: as said; ask_to_drain(), ask_to_stop() and finished()
// from any.
#pragma once

#include <atomic>
#include <memory>
#include <vector>

#include "fleet/keeper.h"
#include "io/uring/uring_io.h"
#include "pd/proxy.h"

namespace sluice::app {

class Worker {
public:
    static Result<std::unique_ptr<Worker>> make(pd::Shared& shared,
                                                const io::UringCapabilities& capabilities);

    void add_listener(int listening_socket) { proxy_.add_listener(listening_socket); }
    // On one worker only, before run().
    void keep_fleet(fleet::Resolver& resolver);

    // The thread's body: turns until drained or stopped. `cpu` < 0: not pinned.
    void run(int index, int cpu);

    void ask_to_drain();
    void ask_to_stop();
    bool finished() const { return finished_.load(std::memory_order_acquire); }

    pd::Proxy& proxy() { return proxy_; }
    io::Io& io() { return *io_; }

private:
    Worker(pd::Shared& shared, std::unique_ptr<io::UringIo> io);
    void between_turns();

    pd::Shared& shared_;
    std::unique_ptr<io::UringIo> io_;
    io::Loop loop_;
    pd::Proxy proxy_;
    std::unique_ptr<fleet::Keeper> keeper_;
    std::atomic<bool> drain_wanted_{false};
    std::atomic<bool> stop_wanted_{false};
    std::atomic<bool> finished_{false};
    bool draining_ = false;
    bool stopping_ = false;
};

}  // namespace sluice::app
