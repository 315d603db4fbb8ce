// SPDX-License-Identifier: Apache-2.0
// Many requests at once from one thread, on the product's own loop and HTTP client, with every
// answer judged.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "io/address.h"

namespace sluice::test {

struct LoadAnswer {
    bool failed = false;  // the connection, before a complete answer
    int status = 0;
    std::string body;
    std::string failure;
};

struct LoadRequest {
    std::string path;
    std::string body;
    double leave_after_ms = -1;  // the client goes away then; no answer is judged
};

struct LoadPlan {
    io::Address target;
    std::uint64_t requests = 1000;
    int concurrency = 50;
    std::function<LoadRequest(std::uint64_t number)> make;
    std::function<void(std::uint64_t number, const LoadAnswer& answer)> judge;
    double seconds_max = 120;
};

// The number of requests that ended (answered, failed, or left).
std::uint64_t run_load(const LoadPlan& plan);

}  // namespace sluice::test
