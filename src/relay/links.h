// SPDX-License-Identifier: Apache-2.0
// Connections to prefill workers' side channels: one pull at a time on each, kept warm between.
//
// A pull that was handed on ends by its last response, or when the connection breaks, which is how
// a prefill that died is noticed at once. Threads: one. Owns: the connections. Bounds: kIdleMax
// kept for each address and kIdleTime; kAnswerMax to wait for a worker's answer, which is longer
// than any of vLLM's own limits, since a pull must not be given up while its blocks may be written.
#pragma once

#include <list>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "mooncake/peer.h"

namespace sluice::relay {

class LinkEvents {
public:
    // `more`: another one follows.
    virtual void on_link_response(const mooncake::Response& response, bool more) = 0;
    // No (further) response will come. `delivered`: the worker may have read the pull.
    virtual void on_link_broken(bool delivered) = 0;

protected:
    ~LinkEvents() = default;
};

class Links {
public:
    static constexpr std::size_t kIdleMax = 16;
    static constexpr std::size_t kLinksMax = 16384;
    static constexpr Duration kIdleTime = std::chrono::milliseconds(2500);
    static constexpr Duration kAnswerMax = std::chrono::seconds(900);

    explicit Links(io::Loop& loop);
    ~Links();

    // `events` hears of it until on_link_broken, a response without `more`, or drop(); never from
    // within this call.
    void pull(const io::Address& address, std::string message, LinkEvents& events,
              Duration answer_max = kAnswerMax);
    // Has a connection ready for the next pull.
    void warm(const io::Address& address);
    // Nobody listens any more; the connection is closed.
    void drop(LinkEvents& events);

    void stop();
    bool finished() const { return links_.empty(); }
    std::size_t size() const { return links_.size(); }

private:
    class Link;
    Link* open(const io::Address& address);
    Link* idle(const io::Address& address);
    void keep(Link& link);
    void closed(Link& link);
    void purge();

    io::Loop& loop_;
    std::list<std::unique_ptr<Link>> links_;
    std::map<std::string, std::vector<Link*>> idle_;
    std::vector<std::unique_ptr<Link>> over_;
    io::Deferred purge_;
    bool stopped_ = false;
};

}  // namespace sluice::relay
