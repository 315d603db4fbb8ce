// SPDX-License-Identifier: Apache-2.0
// What an operator may turn, with the defaults that `sluice proxy --help` states.
#pragma once

#include <string>
#include <vector>

#include "fleet/health.h"
#include "fleet/keeper.h"
#include "fleet/policy.h"
#include "http/server_connection.h"
#include "relay/board.h"

namespace sluice::pd {

struct ProxyOptions {
    // -- fleet
    std::vector<fleet::InstanceSpec> prefill;
    std::vector<fleet::InstanceSpec> decode;
    fleet::KeeperOptions keeper;
    fleet::HealthOptions health;
    fleet::PolicyKind prefill_policy = fleet::PolicyKind::LeastLoaded;
    fleet::PolicyKind decode_policy = fleet::PolicyKind::LeastLoaded;
    bool decode_fallback = false;  // a D prefills by itself when no P can

    // -- clients
    std::vector<std::string> api_keys;  // empty: no key is asked for
    std::string upstream_api_key;       // empty: the client's Authorization is passed on
    http::ServerOptions server;
    std::uint32_t connections_max = 65536;  // per worker
    std::size_t buffer_bytes = 1UL << 30;   // per worker: bodies and pages

    // -- admission, over all workers
    std::uint32_t in_flight_max = 16384;
    std::uint32_t queue_max = 1024;
    Duration queue_timeout = std::chrono::seconds(10);

    // -- deadlines
    Duration connect_timeout = std::chrono::seconds(2);
    Duration prefill_timeout = std::chrono::seconds(120);
    Duration first_token_timeout = std::chrono::seconds(60);
    Duration idle_timeout = std::chrono::seconds(60);
    Duration request_timeout = std::chrono::seconds(3600);
    Duration drain_timeout = std::chrono::seconds(30);
    Duration upstream_keep_alive = std::chrono::milliseconds(2500);

    // -- retries
    std::uint32_t retries = 2;
    Duration retry_backoff = std::chrono::milliseconds(10);  // doubles, with jitter
    double retry_budget = 0.2;                               // retries per request, on average
    Duration decode_delay_max =
        std::chrono::milliseconds(50);  // how long D's leg may wait for P's refusal

    relay::RelayOptions relay;

    bool expose_instances = false;
};

}  // namespace sluice::pd
