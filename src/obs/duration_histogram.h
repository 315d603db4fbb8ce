// SPDX-License-Identifier: Apache-2.0
// How often a duration fell between which two bounds: the histogram of /metrics.
//
// The bounds are the `le` of the text, three a decade from 10 us to 1,000 s, so what is counted is
// what is shown and a scrape reads a few cache lines of each worker. (Histogram has fine buckets
// and is a hundred times as large: for one's own reading.) One writer, any readers, who see whole
// numbers, a little late. Threads: as said. Owns: 216 bytes. Costs: record() is one look-up, one
// comparison and two counters, about 2 ns.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/time.h"
#include "obs/metrics.h"

namespace sluice::obs {

class DurationHistogram {
public:
    static constexpr std::size_t kBounds = 25;
    // In nanoseconds, inclusive; what is beyond the last has a bucket of its own.
    static constexpr std::array<std::uint64_t, kBounds> kUpperBounds = [] {
        std::array<std::uint64_t, kBounds> bounds{};
        std::uint64_t decade = 10'000;
        for (std::size_t i = 0; i < kBounds; ++i) {
            bounds[i] = decade * (i % 3 == 0 ? 10 : i % 3 == 1 ? 25 : 50) / 10;
            if (i % 3 == 2) decade *= 10;
        }
        return bounds;
    }();
    // The same in seconds, as they are written.
    static constexpr std::array<std::string_view, kBounds> kBoundTexts = {
        "0.00001", "0.000025", "0.00005", "0.0001", "0.00025", "0.0005", "0.001", "0.0025", "0.005",
        "0.01",    "0.025",    "0.05",    "0.1",    "0.25",    "0.5",    "1",     "2.5",    "5",
        "10",      "25",       "50",      "100",    "250",     "500",    "1000"};

    void record(Duration d) {
        const std::uint64_t ns = d.count() < 0 ? 0 : static_cast<std::uint64_t>(d.count());
        buckets_[bucket_of(ns)].add();
        sum_ns_.add(ns);
    }

    static constexpr std::size_t bucket_of(std::uint64_t ns) {
        const std::size_t first = kFirst[static_cast<std::size_t>(std::bit_width(ns))];
        return first + (first < kBounds && ns > kUpperBounds[first] ? 1 : 0);
    }

    // What several writers counted, added up by a reader.
    struct Sum {
        std::array<std::uint64_t, kBounds + 1> buckets{};
        std::uint64_t ns = 0;

        void add(const DurationHistogram& other) {
            for (std::size_t i = 0; i <= kBounds; ++i) buckets[i] += other.buckets_[i].value();
            ns += other.sum_ns_.value();
        }
    };

private:
    // The first bound that a number of so many bits may not exceed. Neighbouring bounds are at
    // least a factor of 2 apart, so one comparison with it decides.
    static constexpr std::array<std::uint8_t, 65> kFirst = [] {
        std::array<std::uint8_t, 65> first{};
        for (unsigned bits = 1; bits <= 64; ++bits) {
            std::size_t i = 0;
            while (i < kBounds && kUpperBounds[i] < (1ULL << (bits - 1))) ++i;
            first[bits] = static_cast<std::uint8_t>(i);
        }
        return first;
    }();

    std::array<Counter, kBounds + 1> buckets_;
    Counter sum_ns_;
};

}  // namespace sluice::obs
