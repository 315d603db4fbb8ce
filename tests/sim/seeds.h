// SPDX-License-Identifier: Apache-2.0
// Runs a simulated scenario for many seeds.
//
// SLUICE_SEEDS=n sets how many, SLUICE_SEED=n runs that one alone, SLUICE_FIRST_SEED=n starts
// elsewhere (a night's run); scenarios print their last SLUICE_TRACE=n events. The first failure
// stops the list and prints the command that repeats it.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <cstdlib>
#include <functional>
#include <string>
#include <unistd.h>

namespace sluice::test {

inline std::uint64_t number_from_environment(const char* name, std::uint64_t otherwise) {
    const char* text = std::getenv(name);
    return text == nullptr || *text == '\0' ? otherwise : std::strtoull(text, nullptr, 0);
}

// `scenario` answers what went wrong, or an empty text.
inline void for_each_seed(std::uint64_t count,
                          const std::function<std::string(std::uint64_t)>& scenario) {
    std::uint64_t first = number_from_environment("SLUICE_FIRST_SEED", 1);
    count = number_from_environment("SLUICE_SEEDS", count);
    if (std::getenv("SLUICE_SEED") != nullptr) {
        first = number_from_environment("SLUICE_SEED", 1);
        count = 1;
    }
    for (std::uint64_t seed = first; seed < first + count; ++seed) {
        const std::string problem = scenario(seed);
        if (problem.empty()) continue;
        char program[4096] = {};
        if (readlink("/proc/self/exe", program, sizeof program - 1) < 0) program[0] = '\0';
        const auto* test = ::testing::UnitTest::GetInstance()->current_test_info();
        ADD_FAILURE() << problem << "\nrepeat with: SLUICE_SEED=" << seed << " " << program
                      << " --gtest_filter=" << test->test_suite_name() << "." << test->name();
        return;
    }
}

}  // namespace sluice::test
