// SPDX-License-Identifier: Apache-2.0
// What `sluice load` is asked to do. Its defaults are those that --help states.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/time.h"
#include "io/address.h"
#include "json/stream_event.h"
#include "load/size_distribution.h"

namespace sluice::load {

struct LoadOptions {
    // -- where
    io::Address target;
    std::string authority;    // the Host field
    std::string field_lines;  // further fields of every request, each with CRLF
    std::vector<int> pids;    // whose CPU and memory are measured

    // -- what
    json::Api api = json::Api::Chat;
    std::string path = "/v1/chat/completions";
    std::string model = "sluice";
    std::string extra_members;  // of the body, with a leading comma
    bool stream = false;
    SizeDistribution prompt_bytes = SizeDistribution::constant(1024);
    SizeDistribution output_tokens = SizeDistribution::constant(64);

    // -- how many, and when
    std::uint32_t connections = 16;  // requests at once
    double rate = 0;  // requests a second; 0: each connection sends as soon as it can
    bool poisson = false;
    std::uint64_t requests = 0;  // after the warm-up, in all; 0: until the duration is over
    Duration duration = std::chrono::seconds(10);
    Duration warm_up = Duration::zero();
    Duration ramp = Duration::zero();
    Duration timeout = std::chrono::seconds(60);
    Duration drain = std::chrono::seconds(10);
    Duration progress = std::chrono::seconds(5);
    std::uint32_t threads = 1;
    std::vector<int> cpus;  // where the threads are pinned, in turn; empty: nowhere
    std::uint64_t seed = 1;
};

inline constexpr std::uint64_t kPromptBytesMax = 64ULL << 20;
inline constexpr std::uint64_t kOutputTokensMax = 1'000'000;
inline constexpr std::uint32_t kConnectionsMax = 262'144;

}  // namespace sluice::load
