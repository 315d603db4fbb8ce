// SPDX-License-Identifier: Apache-2.0
// Engine's inside: its life (engine.cpp), its HTTP front (front.cpp) and the endpoints that
// generate nothing (endpoints.cpp, metrics.cpp). Private to these files.
//
//   Down      no listener: not started, restarting, refusing, or starting slowly
//   Serving   the API listens
//   Dying     the engine core is lost: /health says 503, generating requests fail
//   Dead      no listener, for good
//   Stopped   stop() was called
#pragma once

#include <list>
#include <unordered_map>

#include "engine/core.h"
#include "engine/engine.h"
#include "engine/generation.h"
#include "http/server.h"

namespace sluice::engine {

class Engine::Impl final : public http::RequestHandler, public GenerationOwner {
public:
    Impl(io::Loop& loop, EngineOptions options);
    ~Impl();

    Result<void> start();
    void stop();
    bool finished() const;
    void add_fault(const Fault& fault);
    void clear_faults();
    EngineState state() const;

    enum class Phase : std::uint8_t { Down, Serving, Dying, Dead, Stopped };
    Phase phase() const { return phase_; }
    const io::Address& address() const { return address_; }
    const io::Address& bootstrap_address() const;
    std::string engine_id(std::size_t rank) const {
        return core_ ? core_->engine_id(rank) : std::string();
    }
    const EngineOptions& options() const { return options_; }

private:
    using Connection = http::ServerConnection;
    struct Endpoint;

    // -- life (engine.cpp)
    Result<void> start_core();
    Result<void> open_listener();
    void close_listener(bool at_once);
    void on_timer();
    void strike_whole_engine(const Fault& fault);
    void restart(Duration down);
    void die(std::string_view reason);
    void on_death();
    void on_gone();
    void clean_up();

    // -- front (front.cpp)
    void on_head(Connection& connection) override;
    void on_request(Connection& connection) override;
    void on_client_gone(Connection& connection) override;
    void on_drained(Connection& connection) override;
    void on_generation_over(Generation& generation) override;
    static const Endpoint* find_endpoint(std::string_view path);
    bool authorized(const Connection& connection) const;
    bool is_json(const Connection& connection) const;
    bool answer_fault(Connection& connection, const Fault& fault);
    void generate(Connection& connection, Api api, const Fault& fault);
    void start_generation(Connection& connection, GenerateRequest request, const Fault& fault);
    void redirect_or_not_found(Connection& connection);
    void refuse_generation(Connection& connection, const Format& format, const Refusal& refusal);
    std::string request_id(const Connection& connection, const std::string& of_body);

    // -- endpoints (endpoints.cpp, metrics.cpp)
    void answer_chat(Connection& connection);
    void answer_completions(Connection& connection);
    void answer_responses(Connection& connection);
    void answer_messages(Connection& connection);
    void answer_models(Connection& connection);
    void answer_health(Connection& connection);
    void answer_version(Connection& connection);
    void answer_load(Connection& connection);
    void answer_tokenize(Connection& connection);
    void answer_detokenize(Connection& connection);
    void answer_embeddings(Connection& connection);
    void answer_count_tokens(Connection& connection);
    void answer_metrics(Connection& connection);
    void answer_scale_out(Connection& connection);
    void answer_sim_state(Connection& connection);
    void answer_sim_fault(Connection& connection);
    void respond_error(Connection& connection, const ApiError& error);
    std::int64_t unix_time() const;

    io::Loop& loop_;
    const EngineOptions options_;
    Rng rng_;
    EngineCounters counters_;
    FaultList faults_;
    Context context_;

    Phase phase_ = Phase::Down;
    Instant began_;
    io::Address address_;           // as bound
    std::uint16_t bootstrap_port_;  // as bound
    std::unique_ptr<Core> core_;
    std::unique_ptr<http::Server> server_;
    std::unordered_map<Generation*, std::unique_ptr<Generation>> generations_;
    // On their way out: they end in their own time.
    std::vector<std::unique_ptr<Core>> old_cores_;
    std::vector<std::unique_ptr<http::Server>> old_servers_;
    std::vector<std::unique_ptr<Generation>> old_generations_;
    Timer timer_;  // to open the listener, or to be gone
    io::Deferred death_;
    io::Deferred clean_up_;
    Timer sweep_;
    Fault fault_;  // of the request whose handler runs
    bool core_wanted_ = false;
    std::uint32_t restarts_ = 0;
};

}  // namespace sluice::engine
