// SPDX-License-Identifier: Apache-2.0
// The channel between workers over which D asks for blocks and P says what came of it.
//
// As with vLLM's ZMQ sockets, nobody is told that a peer is unreachable or has died: a pull without
// an answer just has none, and who asked has a timer. One pull gets any number of Continue
// responses and then one Finish or Error. kv/zmq_side_channel.h is the only implementation.
// Threads: one.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "io/address.h"

namespace sluice::engine {

struct PullItem {
    std::string request;                       // D's name for it
    std::string transfer;                      // mooncake: the transfer id; nixl: P's request id
    std::uint32_t blocks = 0;                  // D's; 0: P may free its own, D wants none
    std::vector<std::uint32_t> remote_blocks;  // nixl: which blocks of P
};

struct PullMessage {
    std::string engine_id;  // nixl: whom D believes to ask
    std::uint32_t tp_rank = 0;
    std::uint32_t tp_size = 1;
    bool has_layout = true;  // as received: D's addresses and lengths are there
    std::vector<PullItem> items;
};

enum class PullStatus : std::uint8_t { Finish, Continue, Error };

struct PullResponse {
    struct Ok {
        std::string request;
        std::uint64_t content = 0;  // the hash of the prompt whose KV the blocks hold
    };
    PullStatus status = PullStatus::Finish;
    std::vector<Ok> ok;
    std::vector<std::string> failed;
    std::string message;
};

// P's way back to one pull. It works, without effect, when the peer has gone.
class PullReplier {
public:
    virtual ~PullReplier() = default;
    virtual void respond(const PullResponse& response) = 0;
};

class PullHandler {
public:
    virtual void on_pull(PullMessage message, std::unique_ptr<PullReplier> replier) = 0;

protected:
    ~PullHandler() = default;
};

class PullEvents {
public:
    // Not after Finish, Error or forget().
    virtual void on_pull_response(std::uint64_t pull, const PullResponse& response) = 0;

protected:
    ~PullEvents() = default;
};

class SideChannel {
public:
    virtual ~SideChannel() = default;

    // The address it listens on; a port of 0 in `address` is an ephemeral one.
    virtual Result<io::Address> listen(const io::Address& address, PullHandler& handler) = 0;
    virtual std::uint64_t pull(const io::Address& peer, const PullMessage& message,
                               PullEvents& events) = 0;
    virtual void forget(std::uint64_t pull) = 0;

    // Run the loop until finished(). Repliers that are still around have no effect.
    virtual void stop() = 0;
    virtual bool finished() const = 0;
};

}  // namespace sluice::engine
