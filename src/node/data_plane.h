// SPDX-License-Identifier: Apache-2.0
// The transports of a node on its loop: sender threads, one transport of each kind in the table,
// and the poller that hands their completions to the node.
//
// Threads: one, the loop's; the sender threads are its own. Owns: the threads and the transports;
// destroy it after the node has finished. Errors: start() says what the system refused.
#pragma once

#include <memory>
#include <vector>

#include "node/node.h"
#include "transport/senders.h"
#include "transport/table.h"

namespace sluice::node {

struct DataPlaneOptions {
    transport::SenderOptions senders;
    kv::Token token{};
    std::uint64_t node = 0;
    bool checksum = false;
    std::vector<std::string> transports;  // names; empty: all there are
    std::string listen_host = "127.0.0.1";
    std::string socket_folder = "/tmp";  // of transports within a host
};

class DataPlane final : private io::Poller {
public:
    static kv::Outcome<std::unique_ptr<DataPlane>> start(io::Loop& loop,
                                                         const DataPlaneOptions& options);
    ~DataPlane() override;

    // Before node.start(). Completions go there from now on.
    void attach(Node& node);
    void detach() { node_ = nullptr; }

    const transport::Senders& senders() const { return *senders_; }
    std::size_t size() const { return slots_.size(); }
    const TransportSlot& slot(std::size_t index) const { return slots_[index].slot; }

private:
    struct Made {
        TransportSlot slot;
        std::unique_ptr<transport::Transport> transport;
    };

    DataPlane(io::Loop& loop);
    bool poll() override;
    void before_sleep() override { waker_.prepare_to_sleep(); }
    void after_sleep() override { waker_.awake(); }
    Instant next_deadline() const override;
    void kick() { loop_.io().wake(); }

    io::Loop& loop_;
    Waker waker_;
    std::unique_ptr<transport::Senders> senders_;
    std::vector<Made> slots_;
    std::vector<std::string> sockets_;  // files to remove
    Node* node_ = nullptr;
};

}  // namespace sluice::node
