// SPDX-License-Identifier: Apache-2.0
// What a fence must hold: blocks are reused the moment an abort has returned, and nothing of the
// old transfer may be found in them later, whatever the sender's process does.
#pragma once

#include <cstdint>
#include <string_view>

#include "base/time.h"

namespace sluice::transport {

struct FenceResult {
    std::uint64_t trials = 0;
    std::uint64_t aborted_early = 0;   // nothing had landed yet
    std::uint64_t aborted_midway = 0;  // some blocks had
    std::uint64_t stopped = 0, killed = 0;
    std::uint64_t stale_bytes = 0;
    std::uint64_t late_aborts = 0;  // took longer than the bound
    std::uint64_t lost = 0;         // something that should have come never came
    std::uint64_t leaks = 0;        // regions still held at the end
    std::uint64_t dropped_bytes = 0;
    Duration slowest{};
};

// `trials` transfers of random size, each aborted at a random moment, a tenth of them with the
// sender stopped or killed.
FenceResult fence_trials(std::string_view transport, std::uint64_t trials, std::uint64_t seed);

// kv-transfer's reproduction: the receiver (or the sender) is stopped with bytes under way, the
// sender gives up, closes (with FIN or RST), the stopped one resumes. Answers the stale bytes.
FenceResult stop_and_give_up(std::string_view transport, bool stop_receiver, bool with_fin);

}  // namespace sluice::transport
