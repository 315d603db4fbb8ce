// SPDX-License-Identifier: Apache-2.0
// A request's kv_transfer_params, as far as the connectors read them. What has the wrong type
// counts as absent. Threads: a value.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace sluice::engine {

struct KvParams {
    bool do_remote_decode = false;
    bool do_remote_prefill = false;
    // -- mooncake
    std::optional<std::string> transfer_id;
    std::optional<std::string> remote_bootstrap_addr;
    // -- both
    std::optional<std::string> remote_engine_id;
    // -- nixl, and mooncake up to 0.15
    std::optional<std::string> remote_request_id;
    std::optional<std::string> remote_host;
    std::optional<std::uint16_t> remote_port;
    std::vector<std::uint32_t> remote_block_ids;
    std::optional<std::uint32_t> remote_prefill_cached_tokens;
    // Token ids of the prompt, from P (0.32 and later); chat only.
    std::optional<std::vector<std::uint32_t>> prompt_token_ids;
};

}  // namespace sluice::engine
