// SPDX-License-Identifier: Apache-2.0
// How large prompts and outputs are: "1024", "uniform:100:2000", "lognormal:800:1.2:32768" (median,
// sigma, largest) or "list:140:32768:1048576" (each as often).
// Threads: values. Errors: parse() answers nothing for a text that is none of these.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "base/rng.h"

namespace sluice::load {

class SizeDistribution {
public:
    static constexpr std::string_view kForms =
        "N, uniform:LOW:HIGH, lognormal:MEDIAN:SIGMA:MAX or list:A:B:...";

    static SizeDistribution constant(std::uint64_t size);
    static std::optional<SizeDistribution> parse(std::string_view text);

    std::uint64_t draw(Rng& rng) const;
    std::uint64_t smallest() const;
    std::uint64_t largest() const;

private:
    enum class Kind : std::uint8_t { Uniform, LogNormal, List };
    Kind kind_ = Kind::List;
    double sigma_ = 0;
    std::vector<std::uint64_t> sizes_;  // low and high; median and largest; or all
};

}  // namespace sluice::load
