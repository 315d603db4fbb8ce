// SPDX-License-Identifier: Apache-2.0
#include "fleet_fixture.h"

#include <signal.h>

#include <chrono>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <thread>

namespace sluice::test {

using namespace std::chrono_literals;

namespace {

// Sanitizers make everything slower; what waits for a process to start must not care.
constexpr double kStartSeconds = 60;

std::string log_folder() {
    const std::string folder = testing::TempDir() + "/sluice-e2e-" + std::to_string(::getpid());
    std::filesystem::create_directories(folder);
    return folder;
}

}  // namespace

void EngineProcess::start() { process = std::make_unique<Process>(command, log, environment); }

void EngineProcess::kill_hard() {
    process->signal(SIGKILL);
    process->wait(5);
    // The kernel takes a dead process's rings down a little later, and their listeners with them.
    for (const int each : {port, bootstrap_port})
        for (int tries = 0; !is_port_free(each) && tries < 5000; ++tries)
            std::this_thread::sleep_for(1ms);
}

void EngineProcess::fault(const std::string& json) const {
    const HttpAnswer answer =
        http_call(port, "POST", "/sim/fault", json.empty() ? R"({"kind":"clear"})" : json);
    ASSERT_EQ(answer.status, 200) << answer.body;
}

EngineProcess FleetTest::make_engine(const FleetPlan& plan, bool prefill, int number) {
    EngineProcess engine;
    engine.port = free_port();
    engine.bootstrap_port = free_port();
    const std::string connector = plan.nixl ? "NixlConnector" : "MooncakeConnector";
    const std::string role = plan.nixl ? "kv_both" : prefill ? "kv_producer" : "kv_consumer";
    engine.command = {SLUICE_BINARY,
                      "engine",
                      "test-model",
                      "--host",
                      "127.0.0.1",
                      "--port",
                      std::to_string(engine.port),
                      "--kv-transfer-config",
                      R"({"kv_connector":")" + connector + R"(","kv_role":")" + role + "\"}"};
    engine.command.insert(engine.command.end(), plan.engine_flags.begin(), plan.engine_flags.end());
    engine.environment = {{"VLLM_MOONCAKE_BOOTSTRAP_PORT", std::to_string(engine.bootstrap_port)},
                          {"VLLM_MOONCAKE_ABORT_REQUEST_TIMEOUT", plan.abort_timeout_seconds},
                          {"VLLM_NIXL_SIDE_CHANNEL_PORT", std::to_string(engine.bootstrap_port)},
                          {"VLLM_NIXL_SIDE_CHANNEL_HOST", "127.0.0.1"}};
    engine.log =
        log_folder() + (prefill ? "/prefill" : "/decode") + std::to_string(number) + ".log";
    engine.start();
    return engine;
}

void FleetTest::start(const FleetPlan& plan) {
    for (int i = 0; i < plan.prefills; ++i) prefills_.push_back(make_engine(plan, true, i));
    for (int i = 0; i < plan.decodes; ++i) decodes_.push_back(make_engine(plan, false, i));
    proxy_port_ = free_port();
    std::vector<std::string> command{
        SLUICE_BINARY, "proxy", "--port", std::to_string(proxy_port_), "--health-interval", "0.3"};
    for (const EngineProcess& engine : prefills_) {
        command.insert(command.end(), {"--prefill", engine.url()});
        command.push_back(plan.nixl ? "none" : std::to_string(engine.bootstrap_port));
    }
    for (const EngineProcess& engine : decodes_)
        command.insert(command.end(), {"--decode", engine.url()});
    for (const std::string& url : plan.more_prefills)
        command.insert(command.end(), {"--prefill", url, "none"});
    for (const std::string& url : plan.more_decodes)
        command.insert(command.end(), {"--decode", url});
    command.insert(command.end(), plan.proxy_flags.begin(), plan.proxy_flags.end());
    proxy_ = std::make_unique<Process>(command, log_folder() + "/proxy.log");
    for (const EngineProcess& engine : prefills_)
        ASSERT_TRUE(wait_until_ok(engine.port, "/health", kStartSeconds));
    for (const EngineProcess& engine : decodes_)
        ASSERT_TRUE(wait_until_ok(engine.port, "/health", kStartSeconds));
    ASSERT_TRUE(wait_until_ok(proxy_port_, "/ready", kStartSeconds)) << proxy_->log();
    const std::string all =
        "\"prefill\":" +
        std::to_string(static_cast<std::size_t>(plan.prefills) + plan.more_prefills.size()) +
        ",\"decode\":" +
        std::to_string(static_cast<std::size_t>(plan.decodes) + plan.more_decodes.size());
    for (int tries = 0; tries < 1000; ++tries) {
        if (http_call(proxy_port_, "GET", "/ready").body.find(all) != std::string::npos) return;
        std::this_thread::sleep_for(10ms);
    }
    FAIL() << "not every instance became usable\n" << proxy_->log();
}

void FleetTest::stop() {
    if (proxy_ != nullptr) {
        proxy_->signal(SIGTERM);
        EXPECT_EQ(proxy_->wait(40), 0) << proxy_->log();
        if (HasFailure()) std::printf("%s\n", proxy_->log().c_str());
    }
    proxy_.reset();
    prefills_.clear();
    decodes_.clear();
}

HttpAnswer FleetTest::chat(const std::string& prompt, bool stream, const std::string& more,
                           double seconds) {
    return http_call(proxy_port_, "POST", "/v1/chat/completions",
                     R"({"model":"test-model","stream":)" + std::string(stream ? "true" : "false") +
                         R"(,"messages":[{"role":"user","content":")" + prompt + "\"}]" + more +
                         "}",
                     {}, seconds);
}

std::string FleetTest::text_of(const std::string& body) {
    const auto content_of = [](const nlohmann::json& json) {
        std::string text;
        if (!json.is_object() || !json.contains("choices")) return text;
        for (const auto& choice : json["choices"]) {
            const auto& holder = choice.contains("message") ? choice["message"]
                                 : choice.contains("delta") ? choice["delta"]
                                                            : choice;
            const char* key = holder.contains("content") ? "content" : "text";
            if (holder.contains(key) && holder[key].is_string())
                text += holder[key].get<std::string>();
        }
        return text;
    };
    if (!body.starts_with("data:")) return content_of(nlohmann::json::parse(body, nullptr, false));
    std::string text;
    for (std::size_t at = 0; (at = body.find("data: {", at)) != std::string::npos;) {
        const std::size_t end = body.find("\n\n", at);
        text +=
            content_of(nlohmann::json::parse(body.substr(at + 6, end - at - 6), nullptr, false));
        at = end;
    }
    return text;
}

double FleetTest::metric(const std::string& name) {
    const std::string text = "\n" + http_call(proxy_port_, "GET", "/metrics").body;
    const auto at = text.find("\n" + name + " ");
    return at == std::string::npos ? -1 : std::atof(text.c_str() + at + name.size() + 2);
}

void FleetTest::expect_at_rest() {
    const auto settled = [&] {
        return metric("sluice_requests_in_flight") == 0 && metric("sluice_legs") == 0 &&
               metric("sluice_client_connections") <= 2;
    };
    for (int tries = 0; !settled() && tries < 400; ++tries) std::this_thread::sleep_for(50ms);
    EXPECT_EQ(metric("sluice_requests_in_flight"), 0);
    EXPECT_EQ(metric("sluice_requests_queued"), 0);
    EXPECT_EQ(metric("sluice_exchanges"), 0);
    EXPECT_EQ(metric("sluice_legs"), 0);
    EXPECT_LE(metric("sluice_client_connections"), 2);
    const std::string all = http_call(proxy_port_, "GET", "/metrics").body;
    for (std::size_t at = 0; (at = all.find("\nsluice_in_flight{", at)) != std::string::npos;
         ++at) {
        const std::string line = all.substr(at + 1, all.find('\n', at + 1) - at - 1);
        EXPECT_TRUE(line.ends_with(" 0")) << line;
    }
}

}  // namespace sluice::test
