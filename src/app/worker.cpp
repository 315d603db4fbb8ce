// SPDX-License-Identifier: Apache-2.0
#include "app/worker.h"

#include <string>

#include "base/cpu.h"
#include "obs/log.h"

namespace sluice::app {

Result<std::unique_ptr<Worker>> Worker::make(pd::Shared& shared,
                                             const io::UringCapabilities& capabilities) {
    io::UringOptions options;
    options.capabilities = capabilities;
    options.buffer_bytes_max = shared.options.buffer_bytes;
    auto io = io::UringIo::create(options);
    if (!io) return std::unexpected(io.error());
    return std::unique_ptr<Worker>(new Worker(shared, std::move(*io)));
}

Worker::Worker(pd::Shared& shared, std::unique_ptr<io::UringIo> io)
    : shared_(shared), io_(std::move(io)), loop_(*io_), proxy_(loop_, shared, random_seed()) {
    loop_.on_quiescent(Delegate<void()>::to<&Worker::between_turns>(*this));
}

void Worker::keep_fleet(fleet::Resolver& resolver) {
    keeper_ =
        std::make_unique<fleet::Keeper>(loop_, shared_.fleet, resolver, shared_.options.keeper);
    keeper_->start();
}

void Worker::run(int index, int cpu) {
    name_this_thread(("sluice-" + std::to_string(index)).c_str());
    if (cpu >= 0) {
        if (const auto pinned = pin_to_cpu(cpu); !pinned)
            obs::log_warning("worker " + std::to_string(index) + " could not be pinned to cpu " +
                             std::to_string(cpu) + ": " + describe(pinned.error()));
    }
    loop_.run();
    keeper_.reset();
    finished_.store(true, std::memory_order_release);
}

void Worker::ask_to_drain() {
    drain_wanted_.store(true, std::memory_order_release);
    io_->wake();
}

void Worker::ask_to_stop() {
    stop_wanted_.store(true, std::memory_order_release);
    io_->wake();
}

void Worker::between_turns() {
    proxy_.between_turns();
    if (!draining_ && drain_wanted_.load(std::memory_order_acquire)) {
        draining_ = true;
        proxy_.drain();
    }
    if (!stopping_ && stop_wanted_.load(std::memory_order_acquire)) {
        draining_ = stopping_ = true;
        proxy_.shut_down();
    }
    if (!draining_ || !proxy_.finished()) return;
    // The fleet is kept until the last request has ended.
    if (keeper_ != nullptr) {
        keeper_->stop();
        if (!keeper_->finished()) return;
    }
    loop_.stop();
}

}  // namespace sluice::app
