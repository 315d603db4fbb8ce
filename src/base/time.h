// SPDX-License-Identifier: Apache-2.0
// Time as the loop sees it: monotonic, in nanoseconds, read once per turn.
//
// Instant has no epoch that anyone may rely on; the simulation starts its clock where it likes.
#pragma once

#include <chrono>
#include <cstdint>

namespace sluice {

using Duration = std::chrono::nanoseconds;

struct MonotonicClock {
    using duration = Duration;
    using rep = duration::rep;
    using period = duration::period;
    using time_point = std::chrono::time_point<MonotonicClock>;
    static constexpr bool is_steady = true;
    static time_point now() {
        return time_point(std::chrono::duration_cast<Duration>(
            std::chrono::steady_clock::now().time_since_epoch()));
    }
};

using Instant = MonotonicClock::time_point;

inline constexpr Instant kNever = Instant::max();
inline constexpr Duration kForever = Duration::max();

constexpr double to_ms(Duration d) { return std::chrono::duration<double, std::milli>(d).count(); }
constexpr double to_seconds(Duration d) { return std::chrono::duration<double>(d).count(); }
constexpr Duration from_seconds(double s) {
    return std::chrono::duration_cast<Duration>(std::chrono::duration<double>(s));
}

}  // namespace sluice
