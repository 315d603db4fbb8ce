// SPDX-License-Identifier: Apache-2.0
#include "obs/histogram.h"

#include <algorithm>
#include <cmath>

namespace sluice::obs {

void Histogram::merge(const Histogram& other) {
    for (std::size_t i = 0; i < kBuckets; ++i)
        if (const std::uint64_t more = other.buckets_[i].value()) buckets_[i].add(more);
    sum_.add(other.sum());
    max_.set(std::max(max(), other.max()));
}

void Histogram::clear() {
    for (Counter& bucket : buckets_) bucket.set(0);
    sum_.set(0);
    max_.set(0);
}

std::uint64_t Histogram::count() const {
    std::uint64_t total = 0;
    for (const Counter& bucket : buckets_) total += bucket.value();
    return total;
}

double Histogram::mean() const {
    const std::uint64_t total = count();
    return total == 0 ? 0 : static_cast<double>(sum()) / static_cast<double>(total);
}

std::uint64_t Histogram::quantile(double quantile) const {
    const std::uint64_t total = count();
    if (total == 0) return 0;
    const double share = std::ceil(std::clamp(quantile, 0.0, 1.0) * static_cast<double>(total));
    const auto wanted = std::clamp<std::uint64_t>(static_cast<std::uint64_t>(share), 1, total);
    std::uint64_t seen = 0;
    for (std::size_t i = 0; i < kBuckets; ++i) {
        seen += buckets_[i].value();
        if (seen < wanted) continue;
        // The middle of the bucket, but nothing that never occurred above the largest.
        return std::min((lowest_of(i) + lowest_of(i + 1) - 1) / 2, max());
    }
    return max();
}

std::uint64_t Histogram::count_up_to(std::uint64_t value) const {
    std::uint64_t total = 0;
    for (std::size_t i = 0; i < kBuckets && lowest_of(i + 1) - 1 <= value; ++i)
        total += buckets_[i].value();
    return total;
}

}  // namespace sluice::obs
