// SPDX-License-Identifier: Apache-2.0
#include "support/raw_http_peer.h"

#include "http/head_parser.h"

namespace sluice::test {

RawConnection::RawConnection(io::Loop& loop, RawHttpPeer& peer)
    : loop_(loop),
      peer_(peer),
      stream_(loop, *this),
      texts_(loop.buffers()),
      timer_(Delegate<void()>::to<&RawConnection::run_timer>(*this)) {}

void RawConnection::open(io::Socket socket) {
    stream_.open(socket);
    stream_.set_reading(true);
}

void RawConnection::send(std::string_view bytes) {
    while (!bytes.empty()) {
        const std::string_view part = bytes.substr(0, 8000);
        TextWriter writer(texts_);
        writer.append(part);
        stream_.send(writer.finish());
        bytes.remove_prefix(part.size());
    }
}

void RawConnection::after(Duration wait, std::function<void()> what) {
    timed_ = std::move(what);
    loop_.arm(timer_, wait);
}

void RawConnection::run_timer() {
    auto what = std::move(timed_);
    timed_ = nullptr;
    what();
}

void RawConnection::on_bytes(Slice bytes) {
    ahead_.push(std::move(bytes));
    if (!answering_) next_request();
}

void RawConnection::next_request() {
    answering_ = false;
    while (!answering_ && !ahead_.empty() && stream_.is_open()) {
        Slice bytes = ahead_[0];
        ahead_.pop_bytes(bytes.size);
        take(std::move(bytes));
    }
}

void RawConnection::take(Slice bytes) {
    if (!in_body_) {
        switch (collector_.feed(std::move(bytes), loop_.buffers())) {
            case http::HeadCollector::State::NeedMore:
                return;
            case http::HeadCollector::State::Bad:
                stream_.close();
                return;
            case http::HeadCollector::State::Complete:
                break;
        }
        Slice head = collector_.take_head();
        bytes = collector_.take_rest();
        if (http::parse_request_head(std::move(head), head_)) {
            stream_.close();
            return;
        }
        request_ = {};
        request_.method = head_.method;
        request_.path = head_.path;
        request_.request_id = head_.fields.find(http::FieldId::XRequestId).value_or("");
        request_.rank = head_.fields.find(http::FieldId::XDataParallelRank).value_or("");
        for (std::size_t i = 0; i < head_.fields.size(); ++i)
            request_.fields.push_back(std::string(head_.fields[i].name) + ": " +
                                      std::string(head_.fields[i].value));
        reader_.start(head_.framing, head_.content_length);
        in_body_ = true;
    }
    auto state = http::BodyReader::State::Complete;
    const bool no_body = head_.framing == http::Framing::None ||
                         (head_.framing == http::Framing::Length && head_.content_length == 0);
    if (no_body) {
        ahead_.push_front(std::move(bytes));
    } else {
        state = reader_.feed(std::move(bytes),
                             Delegate<void(Slice)>::to<&RawConnection::append_body>(*this));
        if (state == http::BodyReader::State::NeedMore) return;
        if (state == http::BodyReader::State::Bad) return stream_.close();
        ahead_.push_front(reader_.take_rest());
    }
    in_body_ = false;
    answering_ = true;
    head_.bytes = Slice();
    ++peer_.requests_;
    peer_.script_(*this, request_);
}

void RawConnection::on_end() {
    ended_ = true;
    if (answering_ && peer_.on_abandoned) peer_.on_abandoned(request_);
    stream_.close();
}

void RawConnection::on_closed() { peer_.closed(*this); }

void RawHttpPeer::listen(const io::Address& address) {
    auto socket = loop_.io().listen(address, false);
    ASSERT(socket.has_value());
    listener_ = *socket;
    accept_ = loop_.io().accept(listener_, *this);
}

void RawHttpPeer::stop() {
    stopping_ = true;
    if (accept_.valid()) loop_.io().cancel(accept_);
    for (auto& connection : connections_) connection->close();
}

void RawHttpPeer::on_completion(io::Completion& completion) {
    if (!completion.more) accept_ = {};
    if (completion.result >= 0) {
        if (stopping_) {
            loop_.io().close(completion.result, true);
        } else {
            connections_.push_back(std::make_unique<RawConnection>(loop_, *this));
            connections_.back()->open(completion.result);
        }
    }
    if (accept_.valid()) return;
    if (stopping_) {
        loop_.io().close(listener_, false);
    } else {
        accept_ = loop_.io().accept(listener_, *this);
    }
}

void RawHttpPeer::closed(RawConnection& connection) {
    std::erase_if(connections_, [&](const auto& owned) { return owned.get() == &connection; });
}

}  // namespace sluice::test
