// SPDX-License-Identifier: Apache-2.0
// The decode side of the Mooncake hand-over: which worker to ask, one pull message a scheduler step
// and peer, and how long to wait.
//
// The bootstrap server of an engine id is asked once, three times at most, and its answer is kept
// for ever. Each D worker asks every P worker it is paired with. A pull ends when all of its peers
// have answered, or when nothing was heard of one of them for the abort time-out and a minute more;
// nothing ends it sooner, since the peer may still write. Threads: one. Owns: the pulls.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "engine/context.h"
#include "http/calls.h"
#include "kv/bootstrap.h"
#include "engine/kv/side_channel.h"

namespace sluice::engine {

struct PullRequest {
    std::string request;
    std::string transfer;
    std::uint32_t blocks = 0;
    std::string engine_id;
    std::string bootstrap;    // URL
    std::string direct_peer;  // "tcp://ip:port": up to 0.15, no bootstrap server
    // How it ended: the content, or nothing. May be empty: nobody waits.
    std::function<void(std::optional<std::uint64_t> content)> on_end;
};

class MooncakeReceiver final : public PullEvents {
public:
    MooncakeReceiver(const Context& context, http::Calls& calls, SideChannel& channel);
    ~MooncakeReceiver();

    // Leaves at the end of the turn, with the others for the same engine.
    void pull(PullRequest request);
    std::uint32_t waiting() const { return waiting_; }
    void stop();

private:
    struct Item;
    struct Message;
    using Batch = std::vector<std::shared_ptr<Item>>;
    // By tp rank.
    using Workers = std::vector<io::Address>;

    void flush();
    void look_up(std::string engine_id, Batch batch, int attempt);
    void looked_up(const std::string& engine_id, Batch batch, int attempt,
                   std::optional<http::CallAnswer> answer);
    void send(const Workers& workers, const Batch& batch);
    void send_one(const io::Address& worker, std::uint32_t d_rank, const Batch& batch);
    void on_pull_response(std::uint64_t pull, const PullResponse& response) override;
    void message_over(Message& message);
    void settle(Item& item, std::optional<std::uint64_t> content);
    void fail(const Batch& batch, const std::string& why);
    void retry(std::string engine_id, Batch batch, int attempt);
    void purge();

    struct Retry;

    Context context_;
    http::Calls& calls_;
    SideChannel& channel_;
    std::vector<std::shared_ptr<Item>> pending_;
    io::Deferred flush_;
    std::unordered_map<std::string, Workers> known_;
    std::unordered_map<std::uint64_t, std::unique_ptr<Message>>
        messages_;  // by the channel's number
    std::vector<std::unique_ptr<Message>> over_;
    std::vector<std::unique_ptr<Retry>> retries_;
    io::Deferred purge_;
    std::uint32_t waiting_ = 0;
};

}  // namespace sluice::engine
