// SPDX-License-Identifier: Apache-2.0
#include "node/data_plane.h"

#include <unistd.h>

#include <algorithm>
#include <array>

namespace sluice::node {

using kv::Code;

namespace {

constexpr std::size_t kCompletionsPerPoll = 64;

}  // namespace

DataPlane::DataPlane(io::Loop& loop)
    : loop_(loop), waker_(Delegate<void()>::to<&DataPlane::kick>(*this)) {}

DataPlane::~DataPlane() {
    for (Made& made : slots_) made.transport.reset();  // before the threads that serve them
    for (const std::string& path : sockets_) ::unlink(path.c_str());
}

kv::Outcome<std::unique_ptr<DataPlane>> DataPlane::start(io::Loop& loop,
                                                         const DataPlaneOptions& options) {
    for (const std::string& name : options.transports)
        if (transport::find_transport(name) == nullptr) {
            std::string known;
            for (const auto& kind : transport::transports())
                known += (known.empty() ? "" : ", ") + std::string(kind.capabilities.name);
            return kv::refuse(Code::BadOptions,
                              "there is no transport \"" + name + "\"; allowed: " + known);
        }
    std::unique_ptr<DataPlane> plane(new DataPlane(loop));
    auto senders = transport::Senders::start(options.senders, plane->waker_);
    if (!senders)
        return kv::refuse(Code::System,
                          "cannot start the sender threads: " + describe(senders.error()));
    plane->senders_ = std::move(*senders);
    transport::TransportOptions transport_options;
    transport_options.token = options.token;
    transport_options.node = options.node;
    transport_options.checksum = options.checksum;
    for (const auto& kind : transport::transports()) {
        const std::string name(kind.capabilities.name);
        const bool wanted =
            options.transports.empty()
                ? !kind.capabilities.foreign
                : std::ranges::find(options.transports, name) != options.transports.end();
        Made made;
        made.slot.name = name;
        made.transport = kind.make(*plane->senders_, transport_options);
        made.slot.transport = made.transport.get();
        std::string where = options.listen_host + ":0";
        if (kind.capabilities.same_host_only) {
            where =
                options.socket_folder + "/sluice-kv-" + std::to_string(options.node) + "-" + name;
            plane->sockets_.push_back(where);
        }
        if (!wanted) {
            made.slot.missing = "it was not asked for";
        } else if (const auto endpoint = made.transport->listen(where); endpoint) {
            made.slot.endpoint = *endpoint;
        } else {
            made.slot.missing = "it cannot listen on " + where + ": " + describe(endpoint.error());
        }
        plane->slots_.push_back(std::move(made));
    }
    loop.add(*plane);
    return plane;
}

void DataPlane::attach(Node& node) {
    node_ = &node;
    for (const Made& made : slots_) node.add_transport(made.slot);
}

bool DataPlane::poll() {
    bool busy = senders_->poll() > 0;
    std::array<transport::Completion, kCompletionsPerPoll> completions;
    for (std::size_t i = 0; i < slots_.size(); ++i) {
        const std::size_t count = slots_[i].transport->poll(loop_.now(), completions);
        for (std::size_t k = 0; k < count; ++k)
            if (node_ != nullptr) node_->on_completion(i, completions[k]);
        busy |= count > 0;
    }
    return busy;
}

Instant DataPlane::next_deadline() const {
    Instant next = kNever;
    for (const Made& made : slots_) next = std::min(next, made.transport->next_deadline());
    return next;
}

}  // namespace sluice::node
