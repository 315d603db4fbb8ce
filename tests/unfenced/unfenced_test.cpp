// SPDX-License-Identifier: Apache-2.0
// The fence's own trials against a build of the transports whose gates let everything through
// (SLUICE_TEST_UNFENCED): they must find stale bytes, or they would prove nothing.
#include <gtest/gtest.h>

#include <cstdio>

#include "contract/fence_trials.h"

namespace sluice::transport {
namespace {

class Unfenced : public testing::TestWithParam<std::string_view> {};

TEST_P(Unfenced, TheRandomTrialsBite) {
    const FenceResult result = fence_trials(GetParam(), 150, 20251125);
    std::printf("%llu trials, %llu stale bytes\n", static_cast<unsigned long long>(result.trials),
                static_cast<unsigned long long>(result.stale_bytes));
    EXPECT_GT(result.stale_bytes, 0u);
}

// With shm nothing waits in a socket: the copy is the receiver's.
TEST(UnfencedTcp, StoppingTheReceiverBites) {
    // Who runs first in the resumed process, the owner or the thread that receives, is chance.
    std::uint64_t stale = 0;
    for (int round = 0; round < 10 && stale == 0; ++round)
        stale = stop_and_give_up("tcp", true, true).stale_bytes;
    std::printf("%llu stale bytes\n", static_cast<unsigned long long>(stale));
    EXPECT_GT(stale, 0u);
}

INSTANTIATE_TEST_SUITE_P(All, Unfenced, testing::Values("tcp", "shm", "mooncake"));

}  // namespace
}  // namespace sluice::transport
