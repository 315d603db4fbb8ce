// SPDX-License-Identifier: Apache-2.0
#include "engine/kv/mooncake_receiver.h"

#include <algorithm>

#include "engine/kv/peer_address.h"

namespace sluice::engine {

namespace {

constexpr int kQueryAttempts = 3;
constexpr Duration kQueryPause = std::chrono::milliseconds(100);
constexpr std::size_t kEnginesMax = 1 << 16;

}  // namespace

// One request's load, over all the messages that carry it.
struct MooncakeReceiver::Item {
    PullRequest request;
    std::uint32_t outstanding = 0;  // messages that have not settled it
    bool failed = false;
    std::optional<std::uint64_t> content;
};

struct MooncakeReceiver::Message {
    Message(MooncakeReceiver& of, Batch items)
        : receiver(of),
          left(std::move(items)),
          silence(Delegate<void()>::to<&Message::on_silence>(*this)) {}
    void on_silence() { receiver.message_over(*this); }

    MooncakeReceiver& receiver;
    std::uint64_t pull = 0;
    Batch left;
    Timer silence;
};

struct MooncakeReceiver::Retry {
    Retry(MooncakeReceiver& of, std::string id, Batch items, int its_attempt)
        : receiver(of),
          engine_id(std::move(id)),
          batch(std::move(items)),
          attempt(its_attempt),
          timer(Delegate<void()>::to<&Retry::on_timer>(*this)) {}
    void on_timer() {
        done = true;
        receiver.context_.loop.defer(receiver.purge_);
        receiver.look_up(engine_id, std::move(batch), attempt);
    }

    MooncakeReceiver& receiver;
    std::string engine_id;
    Batch batch;
    int attempt;
    bool done = false;
    Timer timer;
};

MooncakeReceiver::MooncakeReceiver(const Context& context, http::Calls& calls, SideChannel& channel)
    : context_(context),
      calls_(calls),
      channel_(channel),
      flush_(Delegate<void()>::to<&MooncakeReceiver::flush>(*this)),
      purge_(Delegate<void()>::to<&MooncakeReceiver::purge>(*this)) {}

MooncakeReceiver::~MooncakeReceiver() { stop(); }

void MooncakeReceiver::stop() {
    flush_.cancel();
    purge_.cancel();
    for (auto& [pull, message] : messages_) channel_.forget(pull);
    messages_.clear();
    pending_.clear();
    over_.clear();
    retries_.clear();
}

void MooncakeReceiver::purge() {
    over_.clear();
    std::erase_if(retries_, [](const auto& retry) { return retry->done; });
}

void MooncakeReceiver::pull(PullRequest request) {
    auto item = std::make_shared<Item>();
    item->request = std::move(request);
    ++waiting_;
    pending_.push_back(std::move(item));
    context_.loop.defer(flush_);
}

void MooncakeReceiver::flush() {
    std::map<std::string, Batch> by_engine;
    for (auto& item : std::exchange(pending_, {})) {
        const PullRequest& request = item->request;
        by_engine[request.direct_peer.empty() ? request.engine_id : request.direct_peer].push_back(
            std::move(item));
    }
    for (auto& [engine_id, batch] : by_engine) {
        if (!batch.front()->request.direct_peer.empty()) {
            const auto peer = peer_address(engine_id, "tcp://", context_.options);
            if (peer) {
                send({*peer}, batch);
            } else {
                fail(batch, "cannot read the address " + engine_id);
            }
        } else if (const auto known = known_.find(engine_id); known != known_.end()) {
            send(known->second, batch);
        } else {
            look_up(engine_id, std::move(batch), 1);
        }
    }
}

// -- whom to ask

void MooncakeReceiver::look_up(std::string engine_id, Batch batch, int attempt) {
    const std::string& url = batch.front()->request.bootstrap;
    const auto address = peer_address(url, "http://", context_.options);
    if (!address) {
        context_.log("cannot ask the bootstrap server " + url + ": " + describe(address.error()));
        return retry(std::move(engine_id), std::move(batch), attempt);
    }
    http::CallQuestion question;
    question.address = *address;
    question.host = address->text();
    // The URL may have a path of its own; vLLM appends to it.
    const std::size_t path = url.find('/', std::string_view("http://").size());
    question.path = (path == std::string::npos ? std::string() : url.substr(path)) + "/query";
    question.timeout = context_.options.kv.connector_timeout;
    calls_.start(question, [this, engine_id, batch = std::move(batch),
                            attempt](std::optional<http::CallAnswer> answer) {
        looked_up(engine_id, batch, attempt, std::move(answer));
    });
}

void MooncakeReceiver::looked_up(const std::string& engine_id, Batch batch, int attempt,
                                 std::optional<http::CallAnswer> answer) {
    if (!answer || answer->status != 200) return retry(engine_id, std::move(batch), attempt);
    const auto entries = kv::read_bootstrap_entries(answer->body);
    if (!entries) return retry(engine_id, std::move(batch), attempt);
    for (const auto& [dp, engine] : *entries) {
        // What is known stays, also when it is incomplete.
        if (known_.contains(engine.engine_id) || known_.size() >= kEnginesMax) continue;
        Workers workers;
        for (const auto& [tp, by_pp] : engine.workers)
            for (const auto& [pp, address] : by_pp)
                if (const auto worker = peer_address(address, "tcp://", context_.options))
                    workers.push_back(*worker);
        known_.emplace(engine.engine_id, std::move(workers));
    }
    const auto found = known_.find(engine_id);
    if (found == known_.end())
        return fail(batch, "remote engine_id " + engine_id + " not found from bootstrap server");
    send(found->second, batch);
}

void MooncakeReceiver::retry(std::string engine_id, Batch batch, int attempt) {
    if (attempt >= kQueryAttempts) return fail(batch, "the bootstrap server does not answer");
    retries_.push_back(
        std::make_unique<Retry>(*this, std::move(engine_id), std::move(batch), attempt + 1));
    context_.loop.arm(retries_.back()->timer, kQueryPause);
}

// -- asking

void MooncakeReceiver::send(const Workers& workers, const Batch& batch) {
    const auto theirs = static_cast<std::uint32_t>(workers.size());
    const std::uint32_t own = context_.options.tensor_parallel;
    if (theirs == 0 || (own % theirs != 0 && theirs % own != 0))
        return fail(batch, "tensor parallel sizes do not divide each other");
    const std::uint32_t messages = std::max(own, theirs);
    for (const auto& item : batch) item->outstanding = messages;
    for (std::uint32_t i = 0; i < messages; ++i) {
        const std::uint32_t d_rank = own >= theirs ? i : i / (theirs / own);
        const std::uint32_t p_rank = own >= theirs ? i / (own / theirs) : i;
        send_one(workers[p_rank], d_rank, batch);
    }
}

void MooncakeReceiver::send_one(const io::Address& worker, std::uint32_t d_rank,
                                const Batch& batch) {
    PullMessage asked;
    asked.tp_rank = d_rank;
    asked.tp_size = context_.options.tensor_parallel;
    for (const auto& item : batch)
        asked.items.push_back(
            {item->request.request, item->request.transfer, item->request.blocks, {}});
    auto message = std::make_unique<Message>(*this, batch);
    message->pull = channel_.pull(worker, asked, *this);
    ++context_.counters.pulls_sent;
    context_.loop.arm(message->silence, context_.options.kv.abort_request_timeout +
                                            context_.options.kv.dead_peer_extra);
    const std::uint64_t pull = message->pull;
    messages_.emplace(pull, std::move(message));
}

// -- what comes back

void MooncakeReceiver::on_pull_response(std::uint64_t pull, const PullResponse& response) {
    const auto found = messages_.find(pull);
    if (found == messages_.end()) return;
    Message& message = *found->second;
    if (!response.message.empty()) context_.log("pull: " + response.message);
    const auto take = [&](const std::string& request) -> std::shared_ptr<Item> {
        const auto at = std::ranges::find_if(
            message.left, [&](const auto& item) { return item->request.request == request; });
        if (at == message.left.end()) return nullptr;
        std::shared_ptr<Item> item = std::move(*at);
        message.left.erase(at);
        return item;
    };
    for (const auto& ok : response.ok)
        if (const auto item = take(ok.request)) settle(*item, ok.content);
    for (const std::string& request : response.failed)
        if (const auto item = take(request)) settle(*item, std::nullopt);
    if (response.status != PullStatus::Continue) return message_over(message);
    context_.loop.arm(message.silence, context_.options.kv.abort_request_timeout +
                                           context_.options.kv.dead_peer_extra);
}

// Nothing more will come: whoever was not named has failed.
void MooncakeReceiver::message_over(Message& message) {
    const auto found = messages_.find(message.pull);
    ASSERT(found != messages_.end());
    channel_.forget(message.pull);
    message.silence.cancel();
    over_.push_back(std::move(found->second));  // it may be on the stack
    messages_.erase(found);
    context_.loop.defer(purge_);
    for (const auto& item : std::exchange(message.left, {})) settle(*item, std::nullopt);
}

void MooncakeReceiver::settle(Item& item, std::optional<std::uint64_t> content) {
    if (!content) item.failed = true;
    if (content && !item.content) item.content = content;
    // Different ranks that hold different prompts' KV give neither prompt's text.
    if (content && *item.content != *content) item.content = *item.content ^ *content;
    if (item.outstanding > 1) {
        --item.outstanding;
        return;
    }
    --waiting_;
    if (item.failed) ++context_.counters.failed_receives;
    if (item.request.on_end) item.request.on_end(item.failed ? std::nullopt : item.content);
}

void MooncakeReceiver::fail(const Batch& batch, const std::string& why) {
    context_.log("pull failed: " + why);
    for (const auto& item : batch) {
        item->outstanding = 1;
        settle(*item, std::nullopt);
    }
}

}  // namespace sluice::engine
