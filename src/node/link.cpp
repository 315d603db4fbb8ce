// SPDX-License-Identifier: Apache-2.0
#include "node/link.h"

#include <cstring>
#include <string>

namespace sluice::node {

using kv::Code;
using kv::Status;

Link::Link(io::Loop& loop, LinkEvents& events, const LinkOptions& options)
    : loop_(loop),
      events_(events),
      options_(options),
      stream_(loop, *this),
      tick_(Delegate<void()>::to<&Link::on_tick>(*this)) {}

// Who is connected to speaks second: the token is not for everybody who connects.
void Link::open(io::Socket accepted) {
    stream_.open(accepted);
    greet();
}

void Link::connect(const io::Address& peer) {
    address_ = peer;
    began_ = heard_ = loop_.now();
    loop_.arm(tick_, options_.heartbeat);
    if (const auto started = stream_.connect(peer); !started) {
        lose_later({Code::PeerLost,
                    "cannot connect to " + peer.text() + ": " + describe(started.error())});
    }
}

void Link::on_connected() { greet(); }

void Link::greet() {
    state_ = State::Greeting;
    began_ = heard_ = loop_.now();
    if (address_.valid()) push(kv::write_message(events_.own_hello()));
    stream_.set_reading(true);
    loop_.arm(tick_, options_.heartbeat);
}

// -- sending

void Link::push(std::string bytes) {
    // In pieces of a page: a message is copied once, into memory that the kernel may keep.
    for (std::size_t at = 0; at < bytes.size();) {
        const std::size_t size = std::min(bytes.size() - at, BufferPool::kPageCapacity);
        BufferRef page = loop_.buffers().allocate_page();
        if (!page) return lose_later({Code::LimitReached, "no buffer is left for a message"});
        std::memcpy(page.data(), bytes.data() + at, size);
        stream_.send(Slice(std::move(page), 0, static_cast<std::uint32_t>(size)));
        at += size;
    }
}

bool Link::send(const kv::Message& message) {
    if (state_ != State::Up) return false;
    if (stream_.unsent() > kv::limits::kUnsentBytesMax) {
        lose_later({Code::PeerLost, "the peer does not read its control connection: " +
                                        std::to_string(stream_.unsent()) + " bytes wait"});
        return false;
    }
    push(kv::write_message(message));
    return true;
}

// Senders are not re-entered: they are told from the timer.
void Link::lose_later(Status status) {
    if (later_) return;
    later_ = std::move(status);
    loop_.arm(tick_, Duration::zero());
}

void Link::refuse(const Status& status) {
    if (state_ == State::Lost || state_ == State::Opening) return close(status);
    push(kv::write_message(kv::Refusal{status}));
    lose(status, true);
}

void Link::close(const Status& status) { lose(status); }

void Link::lose(const Status& status, bool after_sending) {
    if (state_ == State::Lost) return;
    state_ = State::Lost;
    tick_.cancel();
    if (after_sending) {
        stream_.set_reading(false);
        stream_.close_when_sent();
        // A peer that does not read does not keep us.
        loop_.arm(tick_, options_.hello_timeout);
    } else if (!stream_.idle()) {
        stream_.close();
    }
    events_.on_link_lost(*this, status);
    if (stream_.idle()) events_.on_link_closed(*this);
}

// -- receiving

void Link::on_bytes(Slice bytes) {
    if (state_ == State::Lost) return;
    heard_ = loop_.now();
    if (!reader_.feed(bytes.view()))
        return lose({Code::PeerFailed, "the peer's bytes are no KV protocol"});
    while (const auto message = state_ != State::Lost ? reader_.next() : std::nullopt)
        take(*message);
}

void Link::take(std::string_view bytes) {
    auto message = kv::read_message(bytes);
    if (!message) return lose({Code::PeerFailed, "the peer sent a message that is none"});
    if (auto* refusal = std::get_if<kv::Refusal>(&*message)) {
        if (refusal->status.ok()) refusal->status.code = Code::PeerFailed;
        return lose({refusal->status.code, "the peer refused: " + refusal->status.sentence});
    }
    if (auto* hello = std::get_if<kv::Hello>(&*message)) return on_hello(*hello);
    if (state_ != State::Up)
        return lose({Code::PeerFailed, "the peer sent a message before its hello"});
    if (!std::holds_alternative<kv::Ping>(*message)) events_.on_link_message(*this, *message);
}

void Link::on_hello(kv::Hello& hello) {
    if (state_ != State::Greeting) return lose({Code::PeerFailed, "the peer said hello twice"});
    Status status = kv::check_version(hello);
    if (status.ok() && !kv::same_token(hello.token, events_.own_hello().token))
        status = {Code::WrongToken,
                  "the peer does not have this pool's token: give both sides the "
                  "same one"};
    if (!status.ok()) {
        (void)events_.judge(*this, hello);  // for its counters
        return refuse(status);
    }
    peer_ = std::move(hello);
    status = events_.judge(*this, peer_);
    if (!status.ok()) return refuse(status);
    if (!address_.valid()) push(kv::write_message(events_.own_hello()));
    state_ = State::Up;
    events_.on_link_up(*this);
}

void Link::on_end() { lose({Code::PeerLost, "the peer closed its control connection"}); }

void Link::on_broken(Error error) {
    lose({Code::PeerLost, "the control connection to " +
                              (address_.valid() ? address_.text() : std::string("a peer")) +
                              " broke: " + describe(error)});
}

void Link::on_tick() {
    if (state_ == State::Lost) return stream_.close();
    if (later_) return lose(*later_);
    const Instant now = loop_.now();
    if (state_ != State::Up && now - began_ >= options_.hello_timeout)
        return lose({Code::PeerLost, "the node at " +
                                         (address_.valid() ? address_.text() : std::string("?")) +
                                         " did not answer in time"});
    if (state_ == State::Up && now - heard_ > options_.silence_max)
        return lose({Code::PeerLost, "the peer was silent for " +
                                         std::to_string(static_cast<long>(to_ms(now - heard_))) +
                                         " ms"});
    loop_.arm(tick_, options_.heartbeat);
    if (state_ == State::Up) (void)send(kv::Ping{});
}

}  // namespace sluice::node
