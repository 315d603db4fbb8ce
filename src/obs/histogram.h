// SPDX-License-Identifier: Apache-2.0
// How often each value occurred, in buckets of equal relative width (as HdrHistogram has them).
//
// Values are whole numbers, nanoseconds as a rule. Up to 64 each has a bucket of its own; above, a
// power of two is cut in 64, so a value read back is off by at most 1/128 of itself. Values beyond
// kValueMax (73 minutes in ns) count as kValueMax. One writer, any readers, who see whole numbers,
// a little late. Threads: as said. Owns: 19 KiB. Costs: record() is a few shifts and two cache
// lines.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

#include "base/time.h"
#include "obs/metrics.h"

namespace sluice::obs {

class Histogram {
public:
    static constexpr std::uint64_t kValueMax = (1ULL << 42) - 1;

    void record(std::uint64_t value) {
        if (value > kValueMax) value = kValueMax;
        buckets_[bucket_of(value)].add();
        sum_.add(value);
        if (value > max_.value()) max_.set(value);
    }
    void record(Duration d) { record(d.count() < 0 ? 0 : static_cast<std::uint64_t>(d.count())); }

    // Adds what `other` holds; the caller is this one's writer.
    void merge(const Histogram& other);
    void clear();

    std::uint64_t count() const;
    std::uint64_t sum() const { return sum_.value(); }
    std::uint64_t max() const { return max_.value(); }
    double mean() const;
    // The value that a share `quantile` (0 to 1) of all values does not exceed; 0 if there are
    // none.
    std::uint64_t quantile(double quantile) const;
    // How many values are in buckets that lie wholly at or below `value`.
    std::uint64_t count_up_to(std::uint64_t value) const;

private:
    static constexpr unsigned kBits = 6;
    static constexpr std::uint64_t kPerPower = 1ULL << kBits;
    static constexpr std::size_t kBuckets = (42 - kBits + 1) * kPerPower;

    static constexpr std::size_t bucket_of(std::uint64_t value) {
        if (value < kPerPower) return value;
        const auto shift = static_cast<unsigned>(std::bit_width(value)) - kBits - 1;
        return shift * kPerPower + (value >> shift);
    }
    static constexpr std::uint64_t lowest_of(std::size_t bucket) {
        if (bucket < 2 * kPerPower) return bucket;
        const std::uint64_t shift = bucket / kPerPower - 1;
        return (bucket % kPerPower + kPerPower) << shift;
    }

    std::array<Counter, kBuckets> buckets_;
    Counter sum_;
    Counter max_;
};

}  // namespace sluice::obs
