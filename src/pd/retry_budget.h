// SPDX-License-Identifier: Apache-2.0
// Keeps retries from multiplying load: each request earns a share of a retry, each retry spends a
// whole one.
//
// With a budget of 0.2 a fleet whose every answer fails sees at most 1.2 times its load. A reserve
// lets a quiet proxy retry at all. Threads: one (a worker's own).
#pragma once

#include <algorithm>

namespace sluice::pd {

class RetryBudget {
public:
    explicit RetryBudget(double per_request) : per_request_(per_request) {}

    void earn() { tokens_ = std::min(tokens_ + per_request_, kTokensMax); }
    bool spend() {
        if (tokens_ < 1.0) return false;
        tokens_ -= 1.0;
        return true;
    }

private:
    static constexpr double kReserve = 20.0;
    static constexpr double kTokensMax = 200.0;
    double per_request_;
    double tokens_ = kReserve;
};

}  // namespace sluice::pd
