// SPDX-License-Identifier: Apache-2.0
#include "load/size_distribution.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <numbers>

namespace sluice::load {

namespace {

constexpr std::size_t kListMax = 64;
constexpr double kSigmaMax = 10;

template <class T>
std::optional<T> number(std::string_view text) {
    T value{};
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
    return value;
}

std::vector<std::string_view> split(std::string_view text) {
    std::vector<std::string_view> parts;
    for (std::size_t at = 0; at <= text.size();) {
        const auto colon = std::min(text.find(':', at), text.size());
        parts.push_back(text.substr(at, colon - at));
        at = colon + 1;
    }
    return parts;
}

std::optional<std::vector<std::uint64_t>> numbers(const std::vector<std::string_view>& texts) {
    std::vector<std::uint64_t> found;
    for (const std::string_view text : texts) {
        const auto value = number<std::uint64_t>(text);
        if (!value) return std::nullopt;
        found.push_back(*value);
    }
    return found;
}

}  // namespace

SizeDistribution SizeDistribution::constant(std::uint64_t size) {
    SizeDistribution made;
    made.sizes_ = {size};
    return made;
}

std::optional<SizeDistribution> SizeDistribution::parse(std::string_view text) {
    std::vector<std::string_view> parts = split(text);
    SizeDistribution made;
    if (parts.size() == 1) {
        const auto size = number<std::uint64_t>(text);
        if (!size) return std::nullopt;
        return constant(*size);
    }
    const std::string_view name = parts.front();
    parts.erase(parts.begin());
    if (name == "lognormal") {
        if (parts.size() != 3) return std::nullopt;
        const auto sigma = number<double>(parts[1]);
        if (!sigma || !(*sigma >= 0 && *sigma <= kSigmaMax)) return std::nullopt;
        made.kind_ = Kind::LogNormal;
        made.sigma_ = *sigma;
        parts.erase(parts.begin() + 1);
    } else if (name == "uniform") {
        if (parts.size() != 2) return std::nullopt;
        made.kind_ = Kind::Uniform;
    } else if (name != "list" || parts.size() > kListMax) {
        return std::nullopt;
    }
    const auto sizes = numbers(parts);
    if (!sizes) return std::nullopt;
    made.sizes_ = *sizes;
    if (made.kind_ != Kind::List && made.sizes_[0] > made.sizes_[1]) return std::nullopt;
    return made;
}

std::uint64_t SizeDistribution::draw(Rng& rng) const {
    switch (kind_) {
        case Kind::Uniform:
            return rng.between(sizes_[0], sizes_[1]);
        case Kind::LogNormal: {
            // Box and Muller's way to a normal one.
            const double radius = std::sqrt(-2 * std::log(1 - rng.unit()));
            const double normal = radius * std::cos(2 * std::numbers::pi * rng.unit());
            const double size = static_cast<double>(sizes_[0]) * std::exp(sigma_ * normal);
            return static_cast<std::uint64_t>(std::min(size, static_cast<double>(sizes_[1])));
        }
        case Kind::List:
            return sizes_.size() == 1 ? sizes_[0] : sizes_[rng.below(sizes_.size())];
    }
    return 0;
}

std::uint64_t SizeDistribution::smallest() const {
    return kind_ == Kind::LogNormal ? 0 : *std::ranges::min_element(sizes_);
}

std::uint64_t SizeDistribution::largest() const { return *std::ranges::max_element(sizes_); }

}  // namespace sluice::load
