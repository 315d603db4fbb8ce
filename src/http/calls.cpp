// SPDX-License-Identifier: Apache-2.0
#include "http/calls.h"

#include "http/head_writer.h"

namespace sluice::http {

class Calls::Call final : public ResponseEvents {
public:
    Call(Calls& calls, std::uint64_t number, OnEnd on_end)
        : calls_(calls),
          number_(number),
          on_end_(std::move(on_end)),
          request_(*this),
          timer_(Delegate<void()>::to<&Call::fail>(*this)) {}

    void start(UpstreamPool* pool, SliceQueue message, Duration timeout) {
        // An address too many, or no memory for the message: told later, as every failure.
        const bool impossible = pool == nullptr || message.empty();
        calls_.loop_.arm(timer_, impossible ? Duration::zero() : timeout);
        if (!impossible) request_.start(*pool, std::move(message));
    }

    void on_response_head(const ResponseHead& head) override { answer_.status = head.status; }

    void on_response_body(Slice bytes) override {
        answer_.body.append(bytes.view());
        if (answer_.body.size() > kAnswerMax) return fail();
    }

    void on_response_end() override { end(std::move(answer_)); }
    void on_response_failed(const ClientFailure&) override { end(std::nullopt); }

    void cancel() {
        over_ = true;
        timer_.cancel();
        request_.cancel();
    }

    std::uint64_t number() const { return number_; }
    OnEnd take_on_end() { return std::move(on_end_); }

private:
    void fail() { end(std::nullopt); }
    void end(std::optional<CallAnswer> answer) {
        if (over_) return;
        cancel();
        calls_.ended(*this, std::move(answer));
    }

    Calls& calls_;
    std::uint64_t number_;
    OnEnd on_end_;
    ClientRequest request_;
    Timer timer_;
    CallAnswer answer_;
    bool over_ = false;
};

Calls::Calls(io::Loop& loop)
    : loop_(loop), texts_(loop.buffers()), purge_(Delegate<void()>::to<&Calls::purge>(*this)) {}

Calls::~Calls() { purge_.cancel(); }

void Calls::purge() { ended_.clear(); }

UpstreamPool* Calls::pool_of(const io::Address& address) {
    const std::string name = address.text();
    if (const auto found = pools_.find(name); found != pools_.end()) return found->second.get();
    if (pools_.size() >= kAddressesMax) return nullptr;
    UpstreamOptions options;
    options.connect_timeout = std::chrono::seconds(10);
    return pools_.emplace(name, std::make_unique<UpstreamPool>(loop_, address, options))
        .first->second.get();
}

std::uint64_t Calls::start(const CallQuestion& question, OnEnd on_end) {
    const std::uint64_t number = next_++;
    auto call = std::make_unique<Call>(*this, number, std::move(on_end));
    Call& started = *call;
    calls_.emplace(number, std::move(call));

    TextWriter writer(texts_);
    writer.append(question.method);
    writer.append(' ');
    writer.append(question.path);
    writer.append(" HTTP/1.1\r\n");
    write_field(writer, "Host", question.host);
    if (question.method != "GET") {
        write_field(writer, "Content-Type", "application/json");
        write_field(writer, "Content-Length", std::uint64_t{question.body.size()});
    }
    writer.append("\r\n");
    writer.append(question.body);
    SliceQueue message;
    message.push(writer.finish());
    started.start(pool_of(question.address), std::move(message), question.timeout);
    return number;
}

void Calls::ended(Call& call, std::optional<CallAnswer> answer) {
    const auto found = calls_.find(call.number());
    ASSERT(found != calls_.end());
    ended_.push_back(std::move(found->second));  // it is still on the stack
    calls_.erase(found);
    loop_.defer(purge_);
    if (const OnEnd on_end = call.take_on_end()) on_end(std::move(answer));
}

void Calls::cancel(std::uint64_t number) {
    const auto found = calls_.find(number);
    if (found == calls_.end()) return;
    found->second->cancel();
    ended_.push_back(std::move(found->second));
    calls_.erase(found);
    loop_.defer(purge_);
}

void Calls::stop() {
    while (!calls_.empty()) cancel(calls_.begin()->first);
    for (auto& [name, pool] : pools_) pool->drain();
}

bool Calls::finished() const {
    if (!calls_.empty()) return false;
    for (const auto& [name, pool] : pools_)
        if (pool->open() != 0) return false;
    return true;
}

}  // namespace sluice::http
