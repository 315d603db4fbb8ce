// SPDX-License-Identifier: Apache-2.0
// The side channel as vLLM's workers speak it: a ROUTER for each P worker, a DEALER for each pull,
// MessagePack maps of the members that vLLM 0.33 sends.
//
// So it can stand opposite a real worker's messages, and opposite a relay. The bytes of the KV are
// bookkeeping here: P's response names the content's hash in a member of its own, sluice_content,
// which vLLM would ignore; the layout is made up, but it must be there, as for vLLM. As with
// ZeroMQ, a connection that cannot be made is tried again until the pull is forgotten, and one that
// breaks after the message has left says nothing to anybody. Threads: one. Owns: listeners and
// connections.
#pragma once

#include <memory>
#include <unordered_map>

#include "engine/context.h"
#include "engine/kv/side_channel.h"
#include "mooncake/router.h"

namespace sluice::engine {

class ZmqSideChannel final : public SideChannel, private mooncake::RouterEvents {
public:
    explicit ZmqSideChannel(const Context& context);
    ~ZmqSideChannel() override;

    Result<io::Address> listen(const io::Address& address, PullHandler& handler) override;
    std::uint64_t pull(const io::Address& peer, const PullMessage& message,
                       PullEvents& events) override;
    void forget(std::uint64_t pull) override;
    void stop() override;
    bool finished() const override;

private:
    class Asking;
    class Replier;
    // Outlives the channel as long as repliers do.
    struct Line {
        ZmqSideChannel* channel;
    };

    void on_message(Handle peer, std::uint32_t listener, std::string_view message) override;
    void closed(Asking& asking);
    void purge();
    std::string write_message(const PullMessage& message) const;

    Context context_;
    mooncake::Router router_;
    std::vector<PullHandler*> handlers_;  // by listener
    std::unordered_map<std::uint64_t, std::unique_ptr<Asking>> asking_;
    std::vector<std::unique_ptr<Asking>> closing_;
    std::vector<std::unique_ptr<Asking>> over_;
    io::Deferred purge_;
    std::shared_ptr<Line> line_;
    std::uint32_t transfer_port_;  // what a Mooncake transfer engine would listen on
    std::uint64_t next_ = 1;
};

}  // namespace sluice::engine
