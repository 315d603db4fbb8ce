// SPDX-License-Identifier: Apache-2.0
// The side channel as HTTP between stand-in engines: POST /pull with a JSON message, answered with
// one JSON line a response. Only engines of this program speak it. Threads: one. Owns: its
// listeners and their connections.
#pragma once

#include <list>
#include <memory>
#include <unordered_map>

#include "http/calls.h"
#include "engine/context.h"
#include "engine/kv/side_channel.h"
#include "http/server.h"

namespace sluice::engine {

class HttpSideChannel final : public SideChannel {
public:
    HttpSideChannel(const Context& context, http::Calls& calls);
    ~HttpSideChannel() override;

    Result<io::Address> listen(const io::Address& address, PullHandler& handler) override;
    std::uint64_t pull(const io::Address& peer, const PullMessage& message,
                       PullEvents& events) override;
    void forget(std::uint64_t pull) override { calls_.cancel(pull); }
    void stop() override;
    bool finished() const override;

private:
    class Endpoint;
    class Replier;

    Context context_;
    http::Calls& calls_;
    std::list<std::unique_ptr<Endpoint>> endpoints_;
};

}  // namespace sluice::engine
