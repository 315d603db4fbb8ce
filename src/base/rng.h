// SPDX-License-Identifier: Apache-2.0
// A small fast generator (xoshiro256**, seeded through splitmix64), the same on every machine for a
// seed. Not for secrets. Seed product instances with random_seed() (cpu.h), simulations with their
// own seed. Threads: one instance per thread.
#pragma once

#include <bit>
#include <cstdint>

namespace sluice {

inline std::uint64_t splitmix64(std::uint64_t& state) {
    std::uint64_t z = (state += 0x9e3779b97f4a7c15ULL);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
}

class Rng {
public:
    using result_type = std::uint64_t;

    explicit Rng(std::uint64_t seed) {
        for (auto& word : state_) word = splitmix64(seed);
    }

    static constexpr result_type min() { return 0; }
    static constexpr result_type max() { return UINT64_MAX; }

    std::uint64_t operator()() {
        const std::uint64_t result = std::rotl(state_[1] * 5, 7) * 9;
        const std::uint64_t t = state_[1] << 17;
        state_[2] ^= state_[0];
        state_[3] ^= state_[1];
        state_[1] ^= state_[2];
        state_[0] ^= state_[3];
        state_[2] ^= t;
        state_[3] = std::rotl(state_[3], 45);
        return result;
    }

    // Uniform in [0, bound); bound > 0. The bias of the multiply is below 2^-32 for our bounds.
    std::uint64_t below(std::uint64_t bound) {
        __extension__ using Wide = unsigned __int128;
        return static_cast<std::uint64_t>((static_cast<Wide>((*this)()) * bound) >> 64);
    }
    // Uniform in [low, high].
    std::uint64_t between(std::uint64_t low, std::uint64_t high) {
        return low + below(high - low + 1);
    }
    double unit() { return static_cast<double>((*this)() >> 11) * 0x1.0p-53; }
    bool chance(double probability) { return unit() < probability; }

private:
    std::uint64_t state_[4];
};

}  // namespace sluice
