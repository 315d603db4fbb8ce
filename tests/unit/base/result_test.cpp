// SPDX-License-Identifier: Apache-2.0
// Errors as values, delegates and times: the small types that everything uses.
#include "base/result.h"

#include <gtest/gtest.h>

#include "base/delegate.h"
#include "base/time.h"

namespace sluice {
namespace {

Result<void> fails_with(int os) {
    if (os != 0) return fail_errno(os);
    return {};
}

Result<int> passes_on(int os) {
    TRY(fails_with(os));
    return 7;
}

TEST(Result, TryReturnsTheErrorOrGoesOn) {
    EXPECT_EQ(*passes_on(0), 7);
    const auto failed = passes_on(ENOENT);
    ASSERT_FALSE(failed.has_value());
    EXPECT_EQ(failed.error(), (Error{Errc::System, ENOENT}));
}

TEST(Result, AnErrorIsDescribedInOneClause) {
    EXPECT_EQ(describe({Errc::Timeout}), "timed out");
    EXPECT_EQ(describe({Errc::System, ENOENT}), "No such file or directory");
    EXPECT_EQ(describe({Errc::ConnectFailed, ECONNREFUSED}),
              "could not connect: Connection refused");
    for (int code = 0; code <= static_cast<int>(Errc::Cancelled); ++code)
        EXPECT_FALSE(describe({static_cast<Errc>(code)}).empty());
}

TEST(Result, AnErrorIsEightBytes) { EXPECT_EQ(sizeof(Error), 8u); }

struct Adder {
    int add(int a, int b) { return sum += a + b; }
    int sum = 0;
};

TEST(Delegate, CallsItsObject) {
    Adder adder;
    const auto add = Delegate<int(int, int)>::to<&Adder::add>(adder);
    EXPECT_TRUE(static_cast<bool>(add));
    EXPECT_EQ(add(1, 2), 3);
    EXPECT_EQ(add(3, 4), 10);
    EXPECT_FALSE(static_cast<bool>(Delegate<void()>()));
    EXPECT_EQ(sizeof add, 2 * sizeof(void*));
}

TEST(Time, Converts) {
    EXPECT_EQ(from_seconds(1.5), std::chrono::milliseconds(1500));
    EXPECT_DOUBLE_EQ(to_ms(std::chrono::microseconds(1500)), 1.5);
    EXPECT_DOUBLE_EQ(to_seconds(std::chrono::milliseconds(250)), 0.25);
    const Instant a = MonotonicClock::now();
    EXPECT_LE(a, MonotonicClock::now());
}

}  // namespace
}  // namespace sluice
