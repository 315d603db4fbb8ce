// SPDX-License-Identifier: Apache-2.0
#include "engine/kv_config.h"

#include <algorithm>
#include <nlohmann/json.hpp>

namespace sluice::engine {

namespace {

using Json = nlohmann::json;
using Problem = std::expected<void, std::string>;

Problem wrong(std::string_view member, const Json& value, std::string_view allowed) {
    return std::unexpected("--kv-transfer-config: " + std::string(member) + " " +
                           value.dump(-1, ' ', false, Json::error_handler_t::replace) +
                           " is not allowed; it must be " + std::string(allowed));
}

template <class Value>
struct Choice {
    std::string_view name;
    Value value;
};

template <class Value, std::size_t N>
Problem choose(std::string_view member, const Json& value, const Choice<Value> (&choices)[N],
               Value& to) {
    std::string allowed;
    for (const auto& choice : choices) {
        if (value == choice.name) {
            to = choice.value;
            return {};
        }
        allowed.append(allowed.empty() ? "" : " or ").append(choice.name);
    }
    return wrong(member, value, allowed);
}

Problem read_extra(const Json& extra, KvOptions& options) {
    if (!extra.is_object()) return wrong("kv_connector_extra_config", extra, "an object");
    for (const auto& [name, value] : extra.items()) {
        if (name == "num_workers") {
            if (!value.is_number_unsigned() || value == 0 || value > 1024)
                return wrong("num_workers", value, "from 1 to 1024");
            options.num_workers = value.get<std::uint32_t>();
        } else if (name == "mooncake_protocol") {
            if (!value.is_string()) return wrong(name, value, "a string");
            options.protocol = value.get<std::string>();
        } else if (name == "bootstrap_server_address") {
            if (!value.is_string() || !value.get_ref<const std::string&>().contains(':'))
                return wrong(name, value, "\"host:port\"");
            options.external_bootstrap = value.get<std::string>();
        } else if (name == "kv_lease_duration") {
            if (!value.is_number() || value.get<double>() <= 0)
                return wrong(name, value, "seconds, more than 0");
            options.nixl_lease = from_seconds(value.get<double>());
        }
        // Others are the connector's own, and mean nothing to a stand-in; vLLM takes any name here.
    }
    return {};
}

// vLLM has these, and they change nothing that can be seen from outside.
constexpr std::string_view kIgnored[] = {
    "kv_buffer_device", "kv_buffer_size",          "kv_rank", "kv_parallel_size", "kv_ip",
    "kv_port",          "enable_permute_local_kv",
};

}  // namespace

std::expected<void, std::string> read_kv_transfer_config(std::string_view text,
                                                         KvOptions& options) {
    const Json config = Json::parse(text, nullptr, false);
    if (!config.is_object())
        return std::unexpected("--kv-transfer-config: not a JSON object: " + std::string(text));
    for (const auto& [name, value] : config.items()) {
        Problem done;
        if (name == "kv_connector") {
            done = choose<ConnectorKind>(name, value,
                                         {{"MooncakeConnector", ConnectorKind::Mooncake},
                                          {"NixlConnector", ConnectorKind::Nixl}},
                                         options.connector);
        } else if (name == "kv_role") {
            done = choose<KvRole>(name, value,
                                  {{"kv_producer", KvRole::Producer},
                                   {"kv_consumer", KvRole::Consumer},
                                   {"kv_both", KvRole::Both}},
                                  options.role);
        } else if (name == "kv_load_failure_policy") {
            done = choose<LoadFailurePolicy>(
                name, value,
                {{"fail", LoadFailurePolicy::Fail}, {"recompute", LoadFailurePolicy::Recompute}},
                options.failure_policy);
        } else if (name == "engine_id") {
            if (!value.is_string())
                done = wrong(name, value, "a string");
            else
                options.engine_id = value.get<std::string>();
        } else if (name == "kv_connector_extra_config") {
            done = read_extra(value, options);
        } else if (std::ranges::find(kIgnored, name) == std::end(kIgnored)) {
            done = std::unexpected("--kv-transfer-config: unknown member '" + name + "'");
        }
        if (!done) return done;
    }
    if (options.connector == ConnectorKind::None)
        return std::unexpected(
            "--kv-transfer-config: kv_connector is missing; MooncakeConnector or NixlConnector");
    if (!config.contains("kv_role"))
        return std::unexpected(
            "--kv-transfer-config: kv_role is missing; kv_producer, kv_consumer or kv_both");
    return {};
}

}  // namespace sluice::engine
