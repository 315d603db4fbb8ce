// SPDX-License-Identifier: Apache-2.0
#include "relay/links.h"

#include <algorithm>

namespace sluice::relay {

class Links::Link final : public mooncake::PeerEvents {
public:
    Link(Links& links, const io::Address& address)
        : links_(links),
          address_(address),
          peer_(links.loop_, mooncake::SocketType::Dealer, *this),
          timer_(Delegate<void()>::to<&Link::on_timer>(*this)) {}

    bool connect() { return peer_.connect(address_).has_value(); }
    const io::Address& address() const { return address_; }
    bool usable() const { return !peer_.over(); }

    void pull(std::string_view message, LinkEvents& events, Duration answer_max) {
        events_ = &events;
        peer_.send(message);
        links_.loop_.arm(timer_, answer_max);
    }
    // A pull whose connection cannot even be opened.
    void fail_soon(LinkEvents& events) {
        events_ = &events;
        unopened_ = true;
        links_.loop_.arm(timer_, Duration::zero());
    }
    void rest() {
        events_ = nullptr;
        links_.loop_.arm(timer_, kIdleTime);
    }
    LinkEvents* events() const { return events_; }
    void close() {
        events_ = nullptr;
        timer_.cancel();
        if (unopened_) return links_.closed(*this);
        peer_.close_now();
    }

private:
    void on_peer_message(mooncake::Peer&, std::string_view message) override {
        if (events_ == nullptr) return close();  // nothing was asked
        const auto response = mooncake::read_response(message);
        if (!response) return broken();
        const bool more = response->status == mooncake::Status::Continue;
        LinkEvents& events = *events_;
        if (!more) links_.keep(*this);
        events.on_link_response(*response, more);
    }
    void on_peer_gone(mooncake::Peer&) override { broken(); }
    void on_peer_closed(mooncake::Peer&) override { links_.closed(*this); }
    void on_timer() { broken(); }
    void broken() {
        LinkEvents* events = std::exchange(events_, nullptr);
        const bool delivered = peer_.ready() || was_ready_;
        close();
        if (events != nullptr) events->on_link_broken(delivered);
    }
    void on_peer_ready(mooncake::Peer&) override { was_ready_ = true; }

    Links& links_;
    const io::Address address_;
    LinkEvents* events_ = nullptr;
    bool was_ready_ = false;
    bool unopened_ = false;
    mooncake::Peer peer_;
    Timer timer_;
};

Links::Links(io::Loop& loop) : loop_(loop), purge_(Delegate<void()>::to<&Links::purge>(*this)) {}

Links::~Links() { ASSERT(finished()); }

Links::Link* Links::open(const io::Address& address) {
    links_.push_back(std::make_unique<Link>(*this, address));
    return links_.back().get();
}

Links::Link* Links::idle(const io::Address& address) {
    const auto found = idle_.find(address.text());
    if (found == idle_.end()) return nullptr;
    while (!found->second.empty()) {
        Link* link = found->second.back();
        found->second.pop_back();
        if (link->usable()) return link;
    }
    return nullptr;
}

void Links::pull(const io::Address& address, std::string message, LinkEvents& events,
                 Duration answer_max) {
    Link* link = idle(address);
    if (link == nullptr) {
        link = open(address);
        if (stopped_ || links_.size() > kLinksMax || !link->connect())
            return link->fail_soon(events);
    }
    link->pull(message, events, answer_max);
}

void Links::warm(const io::Address& address) {
    auto& kept = idle_[address.text()];
    if (stopped_ || !kept.empty() || links_.size() >= kLinksMax) return;
    Link* link = open(address);
    if (!link->connect()) {
        links_.pop_back();
        return;
    }
    link->rest();
    kept.push_back(link);
}

void Links::keep(Link& link) {
    auto& kept = idle_[link.address().text()];
    if (stopped_ || kept.size() >= kIdleMax) return link.close();
    link.rest();
    kept.push_back(&link);
}

void Links::drop(LinkEvents& events) {
    for (auto& link : links_)
        if (link->events() == &events) return link->close();
}

void Links::closed(Link& link) {
    const auto kept = idle_.find(link.address().text());
    if (kept != idle_.end()) {
        std::erase(kept->second, &link);
        if (kept->second.empty()) idle_.erase(kept);
    }
    const auto found =
        std::ranges::find_if(links_, [&](const auto& each) { return each.get() == &link; });
    if (found == links_.end()) return;
    over_.push_back(std::move(*found));  // it may be on the stack
    links_.erase(found);
    loop_.defer(purge_);
}

void Links::purge() { over_.clear(); }

void Links::stop() {
    stopped_ = true;
    std::vector<Link*> all;
    for (auto& link : links_) all.push_back(link.get());
    for (Link* link : all) link->close();
}

}  // namespace sluice::relay
