// SPDX-License-Identifier: Apache-2.0
#include "io/sim/trace.h"

#include <algorithm>
#include <cstdio>

namespace sluice::io::sim {

void Trace::add(Instant at, int host, std::string_view what, std::int64_t a, std::int64_t b) {
    // The text and not its address is hashed, since addresses differ between runs.
    std::uint64_t text = what.size();
    for (const char c : what) text = text * 131 + static_cast<unsigned char>(c);
    mix(static_cast<std::uint64_t>(at.time_since_epoch().count()));
    mix(text + (static_cast<std::uint64_t>(host + 1) << 56));
    mix(static_cast<std::uint64_t>(a));
    mix(static_cast<std::uint64_t>(b));
    if (!ring_.empty()) ring_[count_ % ring_.size()] = {at, host, what, a, b};
    ++count_;
}

std::string Trace::text() const {
    std::string lines;
    const std::uint64_t kept = std::min<std::uint64_t>(count_, ring_.size());
    for (std::uint64_t i = count_ - kept; i < count_; ++i) {
        const Event& event = ring_[i % ring_.size()];
        char line[200];
        std::snprintf(line, sizeof line, "%10llu %14.6f ms  host %2d  %-26.*s %lld %lld\n",
                      static_cast<unsigned long long>(i), to_ms(event.at.time_since_epoch()),
                      event.host, static_cast<int>(event.what.size()), event.what.data(),
                      static_cast<long long>(event.a), static_cast<long long>(event.b));
        lines += line;
    }
    return lines;
}

}  // namespace sluice::io::sim
