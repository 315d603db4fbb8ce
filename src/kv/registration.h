// SPDX-License-Identifier: Apache-2.0
// Says to a bootstrap server who this instance's workers are, as vLLM's workers do: one POST
// /register each, in order, with a time-out, three attempts, and a pause between them that doubles.
//
// What a server refuses is final, since asking again would not change it; only a call without an
// answer is repeated. Registering the same worker at the same address again is 200, so starting
// over is harmless. Threads: one. Owns: nothing but its timer; the calls are the caller's.
// Errors: a sentence, at the end.
#pragma once

#include <expected>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "http/calls.h"
#include "kv/bootstrap.h"

namespace sluice::kv {

struct RegistrationOptions {
    Duration timeout = std::chrono::seconds(30);  // VLLM_MOONCAKE_CONNECTOR_TIMEOUT, an attempt
    int attempts_max = 3;
    Duration pause = std::chrono::seconds(1);  // after the first attempt; doubles
    Duration pause_max = std::chrono::seconds(10);
};

// vLLM's default port of a bootstrap server.
inline constexpr std::uint16_t kBootstrapPort = 8998;

// Where each worker has a port of its own (the guide's rule): base + dp_rank * tp_size + tp_rank.
// Where an instance has one server, that is `base`. The sentence says what to lower.
std::expected<std::uint16_t, std::string> worker_port(std::uint16_t base, std::uint32_t dp_rank,
                                                      std::uint32_t tp_size, std::uint32_t tp_rank);

class Registrar {
public:
    using OnEnd = std::function<void(std::expected<void, std::string>)>;

    Registrar(io::Loop& loop, http::Calls& calls, const RegistrationOptions& options);
    Registrar(const Registrar&) = delete;
    Registrar& operator=(const Registrar&) = delete;
    ~Registrar() { cancel(); }

    // `host`: the Host field. `on_end` comes once, never from within this call, unless cancel()
    // comes first; it may start() again.
    void start(const io::Address& server, std::string host, std::vector<WorkerRegistration> workers,
               OnEnd on_end);
    void cancel();

    std::size_t registered() const { return registered_; }
    int attempts() const { return attempt_; }  // of the worker that is being registered

private:
    void ask();
    void on_answer(std::optional<http::CallAnswer> answer);
    void end(std::expected<void, std::string> result);

    io::Loop& loop_;
    http::Calls& calls_;
    RegistrationOptions options_;
    io::Address server_;
    std::string host_;
    std::vector<WorkerRegistration> workers_;
    OnEnd on_end_;
    std::size_t registered_ = 0;
    int attempt_ = 0;
    Duration pause_{0};
    std::uint64_t call_ = 0;
    Timer timer_;
};

}  // namespace sluice::kv
