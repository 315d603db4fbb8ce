// SPDX-License-Identifier: Apache-2.0
// Engines and a client on one simulated host: hours of timeouts pass in no time, and every test is
// the same each time.
#pragma once

#include <gtest/gtest.h>

#include <list>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "http/client.h"
#include "io/sim/sim_world.h"
#include "mem/text_arena.h"

namespace sluice::engine::test {

using Json = nlohmann::json;
using namespace std::chrono_literals;

// A request and what came of it.
class Ask final : public http::ResponseEvents {
public:
    Ask(io::Loop& loop, http::UpstreamPool& pool)
        : loop_(loop), pool_(pool), texts_(loop.buffers()), request_(*this) {}

    void start(std::string_view method, std::string_view path, std::string_view content,
               std::string_view headers = {}) {
        began = loop_.now();
        TextWriter writer(texts_);
        writer.append(method);
        writer.append(" ");
        writer.append(path);
        writer.append(" HTTP/1.1\r\nHost: engine\r\n");
        if (!headers.contains("Content-Type:") && !content.empty())
            writer.append("Content-Type: application/json\r\n");
        writer.append(headers);
        if (method != "GET") {
            writer.append("Content-Length: ");
            writer.append_number(content.size());
            writer.append("\r\n");
        }
        writer.append("\r\n");
        writer.append(content);
        SliceQueue message;
        message.push(writer.finish());
        request_.start(pool_, std::move(message));
    }
    void leave() {
        request_.cancel();
        done = true;
    }

    // -- what came
    int status = 0;
    std::map<std::string, std::string> fields;
    std::string body;
    bool done = false;
    bool failed = false;
    Instant began{};
    Instant head_at{};
    Instant ended{};
    Duration took() const { return ended - began; }

    Json json() const { return Json::parse(body, nullptr, false); }
    // The data of each event, names left out.
    std::vector<std::string> events() const {
        std::vector<std::string> found;
        for (std::size_t at = 0; (at = body.find("data: ", at)) != std::string::npos;) {
            const auto end = body.find("\n\n", at);
            found.push_back(body.substr(at + 6, end - at - 6));
            at = end;
        }
        return found;
    }
    std::string text() const {
        std::string all;
        for (const std::string& event : events()) {
            const Json chunk = Json::parse(event, nullptr, false);
            if (!chunk.is_object() || !chunk.contains("choices") || chunk["choices"].empty())
                continue;
            const Json& choice = chunk["choices"][0];
            if (choice.contains("delta")) all += choice["delta"].value("content", "");
            if (choice.contains("text")) all += choice["text"].get<std::string>();
        }
        if (!all.empty()) return all;
        const Json whole = json();
        if (!whole.is_object() || !whole.contains("choices")) return {};
        const Json& choice = whole["choices"][0];
        return choice.contains("message") ? choice["message"]["content"].get<std::string>()
                                          : choice["text"].get<std::string>();
    }

private:
    void on_response_head(const http::ResponseHead& head) override {
        status = head.status;
        head_at = loop_.now();
        for (std::size_t i = 0; i < head.fields.size(); ++i)
            fields[std::string(head.fields[i].name)] = std::string(head.fields[i].value);
    }
    void on_response_body(Slice bytes) override { body += bytes.view(); }
    void on_response_end() override {
        done = true;
        ended = loop_.now();
    }
    void on_response_failed(const http::ClientFailure&) override {
        done = failed = true;
        ended = loop_.now();
    }

    io::Loop& loop_;
    http::UpstreamPool& pool_;
    TextArena texts_;
    http::ClientRequest request_;
};

class Bench : public ::testing::Test {
protected:
    Bench() : world_({.seed = 1}), host_(world_.add_host("all")), loop_(host_.io()) {
        host_.attach(loop_);
    }

    ~Bench() override {
        asks_.clear();
        for (auto& [engine, pool] : pools_) pool->drain();
        for (auto& engine : engines_) engine->stop();
        EXPECT_TRUE(world_.run_until([&] {
            for (auto& engine : engines_)
                if (!engine->finished()) return false;
            for (auto& [engine, pool] : pools_)
                if (pool->open() != 0) return false;
            return true;
        }));
        pools_.clear();
        engines_.clear();
        host_.detach();
        EXPECT_EQ(host_.io().operations_in_flight(), 0U);
    }

    static EngineOptions plain() {
        EngineOptions options;
        options.listen = *io::Address::from_ip("10.0.0.1", 0);
        options.kv.bootstrap_port = 0;
        options.kv.nixl_port = 0;
        options.timing.output_tokens = 20;
        return options;
    }
    static EngineOptions mooncake(KvRole role, Duration abort = 480s) {
        EngineOptions options = plain();
        options.kv.connector = ConnectorKind::Mooncake;
        options.kv.role = role;
        options.kv.abort_request_timeout = abort;
        options.seed = role == KvRole::Producer ? 7 : 8;
        return options;
    }
    static EngineOptions nixl() {
        EngineOptions options = plain();
        options.kv.connector = ConnectorKind::Nixl;
        return options;
    }

    Engine& add(const EngineOptions& options) {
        engines_.push_back(std::make_unique<Engine>(loop_, options));
        EXPECT_TRUE(engines_.back()->start().has_value());
        return *engines_.back();
    }

    http::UpstreamPool& pool_of(const Engine& engine) {
        auto& pool = pools_[&engine];
        if (!pool)
            pool = std::make_unique<http::UpstreamPool>(loop_, engine.address(),
                                                        http::UpstreamOptions{});
        return *pool;
    }

    Ask& post(const Engine& engine, std::string_view path, std::string_view body,
              std::string_view headers = {}) {
        asks_.push_back(std::make_unique<Ask>(loop_, pool_of(engine)));
        asks_.back()->start("POST", path, body, headers);
        return *asks_.back();
    }
    Ask& get(const Engine& engine, std::string_view path, std::string_view method = "GET") {
        asks_.push_back(std::make_unique<Ask>(loop_, pool_of(engine)));
        asks_.back()->start(method, path, "");
        return wait(*asks_.back());
    }
    // Any address, e.g. a bootstrap server's.
    Ask& send(const io::Address& address, std::string_view method, std::string_view path,
              std::string_view body = {}) {
        auto& pool = others_[address.text()];
        if (!pool)
            pool = std::make_unique<http::UpstreamPool>(loop_, address, http::UpstreamOptions{});
        asks_.push_back(std::make_unique<Ask>(loop_, *pool));
        asks_.back()->start(method, path, body);
        return wait(*asks_.back());
    }
    Ask& wait(Ask& ask) {
        EXPECT_TRUE(world_.run_until([&] { return ask.done; }));
        return ask;
    }
    void run_for(Duration time) { world_.run_for(time); }
    void TearDown() override {
        for (auto& [address, pool] : others_) pool->drain();
        EXPECT_TRUE(world_.run_until([&] {
            for (auto& [address, pool] : others_)
                if (pool->open() != 0) return false;
            return true;
        }));
        others_.clear();
    }

    // -- bodies
    static Json chat(std::string_view prompt, int max_tokens = 8) {
        Json body;
        body["messages"] = Json::array({{{"role", "user"}, {"content", prompt}}});
        body["max_tokens"] = max_tokens;
        return body;
    }
    static Json prefill_params(std::string_view transfer) {
        return {
            {"do_remote_decode", true}, {"do_remote_prefill", false}, {"transfer_id", transfer}};
    }
    static Json decode_params(const Engine& p, std::string_view transfer, std::size_t rank = 0) {
        return {{"do_remote_decode", false},
                {"do_remote_prefill", true},
                {"transfer_id", transfer},
                {"remote_engine_id", p.engine_id(rank)},
                {"remote_bootstrap_addr", "http://" + p.bootstrap_address().text()}};
    }
    static std::string with(Json body, const Json& params) {
        body["kv_transfer_params"] = params;
        return body.dump();
    }
    static std::string prefill(Json body, std::string_view transfer) {
        body["max_tokens"] = 1;
        body["min_tokens"] = 1;
        body.erase("stream");
        return with(std::move(body), prefill_params(transfer));
    }

    static constexpr const char* kChat = "/v1/chat/completions";
    static constexpr const char* kCompletions = "/v1/completions";

    io::sim::SimWorld world_;
    io::sim::SimHost& host_;
    io::Loop loop_;
    std::list<std::unique_ptr<Engine>> engines_;
    std::map<const Engine*, std::unique_ptr<http::UpstreamPool>> pools_;
    std::map<std::string, std::unique_ptr<http::UpstreamPool>> others_;
    std::list<std::unique_ptr<Ask>> asks_;
};

}  // namespace sluice::engine::test
