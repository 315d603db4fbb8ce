// SPDX-License-Identifier: Apache-2.0
// Writes Prometheus' text format 0.0.4: families of samples. Threads: one.
#pragma once

#include <concepts>
#include <cstdint>
#include <string>
#include <string_view>

#include "obs/duration_histogram.h"

namespace sluice::obs {

// name="value", escaped.
std::string label(std::string_view name, std::string_view value);

class PrometheusText {
public:
    // Begins a family; its samples follow. `type`: counter, gauge or histogram.
    void family(std::string_view name, std::string_view type, std::string_view help);

    // `labels`: label() texts with commas between them, or empty.
    template <std::integral T>
    void sample(std::string_view labels, T value) {
        if constexpr (std::signed_integral<T>) {
            write(labels, static_cast<std::int64_t>(value));
        } else {
            write(labels, static_cast<std::uint64_t>(value));
        }
    }
    // The _bucket, _sum and _count samples of a histogram.
    void histogram(std::string_view labels, const DurationHistogram::Sum& sum);

    std::string take() { return std::move(out_); }

private:
    void write(std::string_view labels, std::int64_t value);
    void write(std::string_view labels, std::uint64_t value);
    void begin_sample(std::string_view suffix, std::string_view labels,
                      std::string_view le = std::string_view());

    std::string out_;
    std::string_view name_;
};

}  // namespace sluice::obs
