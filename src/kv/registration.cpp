// SPDX-License-Identifier: Apache-2.0
#include "kv/registration.h"

#include <algorithm>

namespace sluice::kv {

std::expected<std::uint16_t, std::string> worker_port(std::uint16_t base, std::uint32_t dp_rank,
                                                      std::uint32_t tp_size,
                                                      std::uint32_t tp_rank) {
    if (tp_rank >= tp_size)
        return std::unexpected("there is no tp rank " + std::to_string(tp_rank) + " among " +
                               std::to_string(tp_size));
    const std::uint64_t port = base + std::uint64_t{dp_rank} * tp_size + tp_rank;
    if (port > UINT16_MAX)
        return std::unexpected("the port of dp rank " + std::to_string(dp_rank) + ", tp rank " +
                               std::to_string(tp_rank) + " would be " + std::to_string(port) +
                               ", beyond 65535: choose a lower base port than " +
                               std::to_string(base));
    return static_cast<std::uint16_t>(port);
}

Registrar::Registrar(io::Loop& loop, http::Calls& calls, const RegistrationOptions& options)
    : loop_(loop),
      calls_(calls),
      options_(options),
      timer_(Delegate<void()>::to<&Registrar::ask>(*this)) {}

void Registrar::start(const io::Address& server, std::string host,
                      std::vector<WorkerRegistration> workers, OnEnd on_end) {
    cancel();
    server_ = server;
    host_ = std::move(host);
    workers_ = std::move(workers);
    on_end_ = std::move(on_end);
    registered_ = 0;
    attempt_ = 0;
    pause_ = options_.pause;
    loop_.arm(timer_, Duration::zero());
}

void Registrar::cancel() {
    timer_.cancel();
    if (call_ != 0) calls_.cancel(std::exchange(call_, 0));
    on_end_ = nullptr;
}

void Registrar::ask() {
    if (registered_ == workers_.size()) return end({});
    ++attempt_;
    http::CallQuestion question;
    question.address = server_;
    question.host = host_;
    question.method = "POST";
    question.path = "/register";
    question.body = write_registration(workers_[registered_]);
    question.timeout = options_.timeout;
    call_ = calls_.start(question, [this](std::optional<http::CallAnswer> answer) {
        call_ = 0;
        on_answer(std::move(answer));
    });
}

void Registrar::on_answer(std::optional<http::CallAnswer> answer) {
    if (answer && answer->status == 200) {
        ++registered_;
        attempt_ = 0;
        pause_ = options_.pause;
        return ask();
    }
    const std::string who = "the bootstrap server at " + server_.text();
    if (answer)
        return end(std::unexpected(who + " refused to register the worker: status " +
                                   std::to_string(answer->status) + ", " +
                                   answer->body.substr(0, 512)));
    if (attempt_ >= options_.attempts_max)
        return end(std::unexpected(who + " did not answer " + std::to_string(attempt_) +
                                   " attempts to register; is it up, and is this its port?"));
    loop_.arm(timer_, pause_);
    pause_ = std::min(pause_ * 2, options_.pause_max);
}

void Registrar::end(std::expected<void, std::string> result) {
    const OnEnd on_end = std::exchange(on_end_, nullptr);
    if (on_end) on_end(std::move(result));
}

}  // namespace sluice::kv
