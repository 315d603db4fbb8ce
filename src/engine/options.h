// SPDX-License-Identifier: Apache-2.0
// What one stand-in engine is told when it is made: the flags of `vllm serve` that mean something
// here, and how long its imaginary model takes. `sluice engine` fills it from the command line;
// tests and simulations fill it by hand.
//
// Threads: a value. Owns: nothing.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/time.h"
#include "engine/faults.h"
#include "io/address.h"

namespace sluice::engine {

enum class ConnectorKind : std::uint8_t { None, Mooncake, Nixl };
enum class KvRole : std::uint8_t { Producer, Consumer, Both };
enum class LoadFailurePolicy : std::uint8_t { Fail, Recompute };

// --kv-transfer-config and the environment variables that go with it.
struct KvOptions {
    ConnectorKind connector = ConnectorKind::None;
    KvRole role = KvRole::Both;
    std::string engine_id;  // empty: a new one at every start, as vLLM does
    LoadFailurePolicy failure_policy = LoadFailurePolicy::Fail;

    // -- mooncake
    std::uint32_t num_workers = 10;       // twice as many sender seats
    std::string protocol = "rdma";        // accepted, without meaning here
    std::string external_bootstrap;       // bootstrap_server_address, "host:port"
    std::uint16_t bootstrap_port = 8998;  // 0: an ephemeral one (tests)
    Duration abort_request_timeout = std::chrono::seconds(480);
    Duration dead_peer_extra = std::chrono::seconds(60);    // D waits this much longer than P
    Duration connector_timeout = std::chrono::seconds(30);  // of an HTTP call of the connector
    // 0.13 to 0.15: no bootstrap server; P returns its address, the request id links the legs.
    bool sequential = false;

    // -- nixl
    std::string nixl_host;           // told to D; empty: `host_ip`
    std::uint16_t nixl_port = 5600;  // + data parallel rank; 0: ephemeral ones (tests)
    Duration nixl_lease = std::chrono::seconds(30);
    Duration nixl_handshake_timeout = std::chrono::seconds(5);

    Duration transfer_time{0};  // of one batch of blocks
    Duration registration_interval{
        0};  // between two workers' registrations: an incomplete /query meanwhile
};

// How the imaginary model behaves.
struct ModelOptions {
    std::uint32_t max_model_len = 32768;
    std::uint32_t block_size = 16;
    std::uint32_t blocks = 16384;  // --num-gpu-blocks-override
    std::uint32_t max_num_seqs = 256;
    std::uint32_t max_queued = 0;      // --max-num-queued-reqs; 0: no limit
    std::uint32_t output_tokens = 64;  // where the end-of-sequence token comes
    Duration first_token = std::chrono::milliseconds(10);
    Duration first_token_per_prompt_token = std::chrono::microseconds(20);
    Duration between_tokens = std::chrono::milliseconds(5);
};

struct EngineOptions {
    std::string model = "Qwen/Qwen2.5-7B-Instruct";
    std::vector<std::string> served_model_names;  // empty: `model`
    io::Address listen;                           // the API; port 0: an ephemeral one
    std::string host_ip;  // how others reach this host; empty: the host of `listen`, or 127.0.0.1
    std::uint32_t tensor_parallel = 1;
    std::uint32_t data_parallel = 1;
    std::vector<std::string> api_keys;
    std::string version = "0.33.0";
    bool tool_parser = false;  // --enable-auto-tool-choice and --tool-call-parser
    bool enable_request_id_headers = false;
    bool prompt_tokens_details = false;             // --enable-prompt-tokens-details
    Duration sse_keep_alive{0};                     // --sse-keep-alive-interval
    Duration keep_alive = std::chrono::seconds(5);  // of an idle connection, as uvicorn
    std::uint32_t connections_max = 65536;
    std::uint64_t body_bytes_max = 64ULL << 20;

    ModelOptions timing;
    KvOptions kv;
    std::vector<Fault> faults;
    Duration death_time =
        std::chrono::seconds(1);  // /health says 503 for so long before a dead engine is gone

    std::uint64_t seed = 1;
    std::int64_t unix_time =
        1'700'000'000;  // when the engine was made: `created` counts on from here
    // Turns a name into an address at once; empty: only numeric hosts and "localhost" are known.
    std::function<Result<io::Address>(std::string_view host, std::uint16_t port)> resolve;
    std::function<void(std::string_view line)> log;  // may be empty

    const std::string& model_name() const {
        return served_model_names.empty() ? model : served_model_names.front();
    }
};

}  // namespace sluice::engine
