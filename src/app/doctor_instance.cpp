// SPDX-License-Identifier: Apache-2.0
#include "app/doctor_instance.h"

#include <simdjson.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <semaphore>

#include "app/doctor_http.h"
#include "fleet/bootstrap.h"
#include "fleet/resolver.h"
#include "fleet/url.h"
#include "fleet/version.h"

namespace sluice::app {

namespace {

using namespace std::chrono_literals;
namespace dom = simdjson::dom;

constexpr Duration kResolveLimit = 5s;
constexpr Duration kAskLimit = 2s;

std::string joined(const std::vector<std::string>& words) {
    std::string out;
    for (const std::string& word : words) out += (out.empty() ? "" : ", ") + word;
    return out;
}

bool is_refusal(const HttpFailure& failure) {
    return failure.error.os == ECONNREFUSED || failure.error.os == ENOENT;
}

class Examination {
public:
    Examination(const pd::ProxyOptions& options, const fleet::InstanceSpec& spec, fleet::Role role)
        : options_(options),
          spec_(spec),
          is_prefill_(role == fleet::Role::Prefill),
          subject_(std::string(is_prefill_ ? "prefill " : "decode ") + spec.url) {}

    InstanceReport run() {
        const auto endpoint = fleet::parse_url(spec_.url);
        if (!endpoint) {
            add(Verdict::Fail, endpoint.error());
            return std::move(report_);
        }
        endpoint_ = *endpoint;
        if (resolve() && ask_health()) {
            ask_version();
            ask_models();
            const bool has_bootstrap = ask_bootstrap();
            if (!has_bootstrap) look_for_connector();
        }
        return std::move(report_);
    }

private:
    void add(Verdict verdict, std::string text, std::string advice = {},
             std::optional<Duration> took = {}) {
        report_.findings.push_back({verdict, subject_, std::move(text), std::move(advice), took});
    }

    std::expected<HttpAnswer, HttpFailure> ask(std::string_view path,
                                               std::string_view api_key = {}) const {
        const std::string host = endpoint_.authority();
        return http_get(
            {address_, host, path, api_key, std::max(kAskLimit, options_.connect_timeout)});
    }

    // Through the proxy's own resolver, which is also the way to give up on a name server that does
    // not answer.
    bool resolve() {
        addresses_ = {endpoint_.address};
        if (!endpoint_.is_name()) return true;
        const Instant began = MonotonicClock::now();
        const auto answered =
            std::make_shared<std::binary_semaphore>(0);  // the resolver's thread may outlive this
        fleet::ThreadResolver resolver([answered] { answered->release(); });
        resolver.ask(endpoint_.host, endpoint_.port);
        const bool in_time = answered->try_acquire_for(kResolveLimit);
        const Duration took = MonotonicClock::now() - began;
        for (const auto& answer : resolver.take_answers()) {
            if (answer.addresses.empty()) {
                add(Verdict::Fail,
                    "the name " + endpoint_.host + " does not resolve: " + describe(answer.error),
                    "Correct the name, or see /etc/hosts and /etc/resolv.conf", took);
                return false;
            }
            addresses_ = answer.addresses;
            std::vector<std::string> shown;
            for (const io::Address& address : answer.addresses) shown.push_back(address.text());
            add(Verdict::Ok, endpoint_.host + " is " + joined(shown), {}, took);
            return true;
        }
        add(Verdict::Fail,
            "the name " + endpoint_.host + " does not resolve: no answer from the name server",
            in_time ? "" : "See /etc/resolv.conf; the proxy asks again for as long as it runs",
            took);
        return false;
    }

    void add_failure(const std::string& path, const HttpFailure& failure) {
        std::string advice;
        switch (failure.stage) {
            case HttpFailure::Stage::Connect:
                if (is_refusal(failure)) {
                    advice = "Nothing listens there: start the engine, or correct the address";
                } else if (failure.error.code == Errc::Timeout) {
                    advice = "The host is down or a firewall drops packets";
                } else {
                    advice = "See whether this machine has a route there";
                }
                add(Verdict::Fail, "cannot connect: " + failure.what, std::move(advice),
                    failure.total_time);
                return;
            case HttpFailure::Stage::Exchange:
                advice = failure.error.code == Errc::Timeout
                             ? "It accepts connections but does not answer: still starting, "
                               "overloaded or hung"
                             : "It closes connections: see its log";
                break;
            case HttpFailure::Stage::Answer:
                advice = "What answers there is no HTTP/1.1 server that the proxy could use";
                break;
        }
        add(Verdict::Fail, "GET " + path + ": " + failure.what, std::move(advice),
            failure.total_time);
    }

    bool ask_health() {
        // As the proxy: a name's further addresses serve when the first cannot be reached.
        std::expected<HttpAnswer, HttpFailure> answer;
        for (const io::Address& address : addresses_) {
            address_ = address;
            answer = ask("/health");
            if (answer || answer.error().stage != HttpFailure::Stage::Connect) break;
        }
        if (!answer) {
            add_failure("/health", answer.error());
            return false;
        }
        char connect[48];
        std::snprintf(connect, sizeof connect, "connected in %.1f ms", to_ms(answer->connect_time));
        const std::string text =
            std::string(connect) + ", GET /health says " + std::to_string(answer->status);
        if (answer->status >= 500) {
            add(Verdict::Fail, text, "The engine is up but cannot serve: see its log, restart it",
                answer->total_time);
        } else if (answer->status != 200) {
            add(Verdict::Warn, text, "vLLM says 200; is this an engine's API server?",
                answer->total_time);
        } else {
            add(Verdict::Ok, text, {}, answer->total_time);
        }
        return true;
    }

    void ask_version() {
        const auto answer = ask("/version");
        if (!answer) return add_failure("/version", answer.error());
        dom::parser parser;
        dom::object object;
        std::string_view version;
        std::string_view server;
        if (answer->status != 200 || parser.parse(answer->body).get(object) != simdjson::SUCCESS ||
            object["version"].get(version) != simdjson::SUCCESS)
            return add(Verdict::Warn,
                       "GET /version says " + std::to_string(answer->status) + " and no version",
                       "Not vLLM? The newest contract is assumed", answer->total_time);
        if (object["server"].get(server) == simdjson::SUCCESS && server == "sluice")
            return add(Verdict::Fail, "this is a Sluice proxy, no engine",
                       "Name the engines; requests would go in circles", answer->total_time);
        report_.version = version;
        const auto parsed = fleet::parse_version(version);
        sequential_mooncake_ = parsed && fleet::speaks_sequential_mooncake(*parsed);
        add(Verdict::Ok, "version " + report_.version, {}, answer->total_time);
    }

    void ask_models() {
        const auto answer = ask("/v1/models", options_.upstream_api_key);
        if (!answer) return add_failure("/v1/models", answer.error());
        if (answer->status == 401 || answer->status == 403) {
            if (options_.upstream_api_key.empty())
                return add(Verdict::Warn, "wants an API key",
                           "Clients must send it, or the proxy must know it: --upstream-api-key",
                           answer->total_time);
            return add(
                Verdict::Fail,
                "refuses the key of --upstream-api-key (" + std::to_string(answer->status) + ")",
                "It is the one of the engine's --api-key", answer->total_time);
        }
        dom::parser parser;
        dom::array data;
        if (answer->status != 200 ||
            parser.parse(answer->body)["data"].get(data) != simdjson::SUCCESS)
            return add(Verdict::Warn,
                       "GET /v1/models says " + std::to_string(answer->status) + " and no models",
                       "Is this an engine's API server?", answer->total_time);
        std::vector<std::string> shown;
        for (const dom::element model : data) {
            std::string_view id;
            std::int64_t length = 0;
            if (model["id"].get(id) != simdjson::SUCCESS) continue;
            report_.models.emplace_back(id);
            shown.emplace_back(id);
            if (model["max_model_len"].get(length) == simdjson::SUCCESS)
                shown.back() += " (up to " + std::to_string(length) + " tokens)";
        }
        if (shown.empty())
            return add(Verdict::Fail, "serves no model", "See its log", answer->total_time);
        add(Verdict::Ok, "serves " + joined(shown), {}, answer->total_time);
    }

    // False if nothing shows yet which connector this is.
    bool ask_bootstrap() {
        const auto connector = options_.keeper.connector;
        if (!is_prefill_ || connector == fleet::KvConnector::Nixl) return false;
        if (spec_.bootstrap_port == 0 || endpoint_.is_unix()) {
            if (connector != fleet::KvConnector::Mooncake || sequential_mooncake_) return false;
            add(Verdict::Fail, "has no bootstrap port, and --kv-connector is mooncake",
                "Name it: --prefill " + spec_.url + " 8998");
            return true;
        }
        report_.bootstrap = endpoint_.authority_at(spec_.bootstrap_port);
        const std::string where = "bootstrap server at " + report_.bootstrap;
        const auto answer = http_get(
            {address_.with_port(spec_.bootstrap_port), report_.bootstrap, "/query", {}, kAskLimit});
        if (!answer) {
            const std::string port = std::to_string(spec_.bootstrap_port);
            const std::string text = "no " + where + ": " + answer.error().what;
            const Duration took = answer.error().total_time;
            if (sequential_mooncake_) {
                add(Verdict::Ok, text + "; this release needs none (P and D share the request id)",
                    {}, took);
                return true;
            }
            if (connector == fleet::KvConnector::Auto) {
                add(Verdict::Warn, text + "; it will be served as nixl",
                    "If that is right, --kv-connector nixl says so; a MooncakeConnector needs "
                    "kv_role kv_producer and "
                    "VLLM_MOONCAKE_BOOTSTRAP_PORT=" +
                        port,
                    took);
                return false;
            }
            add(Verdict::Fail, text,
                "Start the engine with kv_role kv_producer and VLLM_MOONCAKE_BOOTSTRAP_PORT=" +
                    port + ", or name its port: --prefill " + spec_.url + " PORT",
                took);
            return true;
        }
        judge_bootstrap(where, *answer);
        return true;
    }

    void judge_bootstrap(const std::string& where, const HttpAnswer& answer) {
        if (answer.status != 200)
            return add(Verdict::Fail, where + ": GET /query says " + std::to_string(answer.status),
                       "Something else listens there: correct the bootstrap port",
                       answer.total_time);
        auto reply = fleet::parse_bootstrap_reply(answer.body);
        if (!reply)
            return add(Verdict::Fail, where + ": " + reply.error(),
                       "Something else listens there: correct the bootstrap port",
                       answer.total_time);
        if (reply->ranks.empty())
            return add(Verdict::Fail, where + ": no worker has registered",
                       "If the engine is still starting, wait; else see its log",
                       answer.total_time);
        std::vector<std::string> shown;
        for (const auto& rank : reply->ranks)
            shown.push_back(std::to_string(rank.rank) + " = " + rank.engine_id);
        const bool gap = reply->ranks.back().rank + 1 != reply->ranks.size();
        report_.ranks = std::move(reply->ranks);
        add(gap ? Verdict::Warn : Verdict::Ok,
            "mooncake, " + where + ": " + std::to_string(shown.size()) + " dp rank(s), " +
                "engine ids " + joined(shown),
            gap ? "Ranks are missing: still starting?" : "", answer.total_time);
    }

    // vLLM tells its connector in no reply; its metrics have series of it (nixl always, mooncake
    // from 0.33).
    void look_for_connector() {
        const auto answer = ask("/metrics");
        if (!answer || answer->status != 200) return;
        const bool nixl = answer->body.find("vllm:nixl_") != std::string::npos;
        const bool mooncake = answer->body.find("vllm:mooncake_") != std::string::npos;
        if (nixl || mooncake)
            return add(Verdict::Ok,
                       std::string("has a ") + (nixl ? "NixlConnector" : "MooncakeConnector") +
                           ", its metrics say",
                       {}, answer->total_time);
        if (is_prefill_)
            add(Verdict::Warn, "shows no sign of a KV connector",
                "If it was started without --kv-transfer-config, it cannot hand KV over",
                answer->total_time);
    }

    const pd::ProxyOptions& options_;
    const fleet::InstanceSpec& spec_;
    bool is_prefill_;
    std::string subject_;
    fleet::Endpoint endpoint_;
    std::vector<io::Address> addresses_;
    io::Address address_;  // of these, the one that answers
    bool sequential_mooncake_ = false;
    InstanceReport report_;
};

}  // namespace

InstanceReport examine_instance(const pd::ProxyOptions& options, const fleet::InstanceSpec& spec,
                                fleet::Role role) {
    return Examination(options, spec, role).run();
}

}  // namespace sluice::app
