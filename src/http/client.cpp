// SPDX-License-Identifier: Apache-2.0
#include "http/client.h"

#include <cerrno>

#include "http/client_connection.h"

namespace sluice::http {

bool ClientFailure::is_local() const {
    if (kind == Kind::Limit) return true;
    if (kind != Kind::Connect) return false;
    switch (error.os) {
        case EMFILE:
        case ENFILE:
        case ENOBUFS:
        case ENOMEM:
        case EADDRNOTAVAIL:
            return true;
        default:
            return false;
    }
}

std::string ClientFailure::describe() const {
    switch (kind) {
        case Kind::Connect:
            return "could not connect: " + sluice::describe(Error{Errc::System, error.os});
        case Kind::ConnectTimeout:
            return "the connection attempt timed out";
        case Kind::Closed:
            return answered ? "closed the connection in the middle of its answer"
                            : "closed the connection without an answer";
        case Kind::Broken:
            return "the connection broke: " + sluice::describe(error);
        case Kind::Protocol:
            return "sent bytes that are not valid HTTP";
        case Kind::Limit:
            return "no further connection may be opened to it";
    }
    return {};
}

// -- request

void ClientRequest::start(UpstreamPool& pool, SliceQueue message, bool is_head_method) {
    ASSERT(connection_ == nullptr);
    message_ = std::move(message);
    is_head_method_ = is_head_method;
    ++pool.counters_.requests;
    if (ClientConnection* idle = pool.take_idle()) {
        ++pool.counters_.reuses;
        idle->begin(*this, true);
        return;
    }
    ClientConnection* fresh = pool.open_new();
    ASSERT(fresh != nullptr);
    fresh->begin(*this, false);
    fresh->connect();
}

void ClientRequest::cancel() {
    message_.clear();
    if (ClientConnection* connection = std::exchange(connection_, nullptr)) connection->abandon();
}

void ClientRequest::set_reading(bool wanted) {
    if (connection_ != nullptr) connection_->set_reading(wanted);
}

// -- pool

UpstreamPool::UpstreamPool(io::Loop& loop, io::Address address, const UpstreamOptions& options)
    // One slot beyond the limit is where a request that may not connect waits to be told so.
    : loop_(loop), address_(address), options_(options), connections_(UINT32_MAX / 2) {}

UpstreamPool::~UpstreamPool() { ASSERT(connections_.size() == 0); }

void UpstreamPool::set_address(const io::Address& address) {
    if (address == address_) return;
    address_ = address;
    while (ClientConnection* connection = idle_.front()) connection->retire();
}

void UpstreamPool::drain() {
    draining_ = true;
    while (ClientConnection* connection = idle_.front()) connection->retire();
}

// The most recently used one: the others are left to grow old and go.
ClientConnection* UpstreamPool::take_idle() {
    ClientConnection* connection = idle_.back();
    if (connection != nullptr) forget_idle(*connection);
    return connection;
}

ClientConnection* UpstreamPool::open_new() { return connections_.emplace(*this); }

void UpstreamPool::keep(ClientConnection& connection) {
    if (draining_ || idle_count_ >= limits::kIdleConnectionsMax ||
        !(connection.address() == address_))
        return connection.retire();
    idle_.push_back(connection);
    ++idle_count_;
    connection.go_idle();
}

void UpstreamPool::forget_idle(ClientConnection& connection) {
    if (!connection.linked()) return;
    connection.unlink();
    --idle_count_;
}

void UpstreamPool::closed(ClientConnection& connection) { connections_.erase(connection); }

// -- connection

ClientConnection::ClientConnection(UpstreamPool& pool)
    : pool_(pool),
      address_(pool.address_),
      stream_(pool.loop_, *this),
      deadline_(Delegate<void()>::to<&ClientConnection::on_deadline>(*this)),
      report_(Delegate<void()>::to<&ClientConnection::report_unconnected>(*this)) {
    // An early refusal of a body must not be lost in the failure to send the rest of it.
    stream_.read_on_when_sending_fails();
}

void ClientConnection::connect() {
    Error error{Errc::LimitReached};
    auto kind = ClientFailure::Kind::Limit;
    if (pool_.connections_.size() <= pool_.options_.connections_max) {
        const auto started = stream_.connect(address_);
        if (started) {
            ++pool_.counters_.connects;
            pool_.loop_.arm(deadline_, pool_.options_.connect_timeout);
            stream_.set_reading(true);
            return;
        }
        error = started.error();
        kind = ClientFailure::Kind::Connect;
    }
    // Told at the end of the turn, so that start() never calls back.
    failed_ = {kind, error, false, false};
    pool_.loop_.defer(report_);
}

void ClientConnection::begin(ClientRequest& request, bool reused) {
    request_ = &request;
    request.connection_ = this;
    reused_ = reused;
    answered_ = ended_ = false;
    interim_ = 0;
    state_ = reused ? State::Waiting : State::Connecting;
    deadline_.cancel();
    stream_.mark_sent_position();
    sent_before_ = stream_.sent();
    if (reused) {
        for (std::size_t i = 0; i < request.message_.count(); ++i)
            stream_.send(request.message_[i]);
        stream_.set_reading(true);
    }
}

void ClientConnection::on_connected() {
    deadline_.cancel();
    state_ = State::Waiting;
    stream_.send_all(request_->message_);
}

void ClientConnection::on_bytes(Slice bytes) {
    switch (state_) {
        case State::Waiting:
            return take_head_bytes(std::move(bytes));
        case State::Body:
            return take_body_bytes(std::move(bytes));
        case State::Idle:
            return close();  // nobody asked: whatever this is, it poisons the connection
        case State::Connecting:
        case State::Closing:
            return;
    }
}

void ClientConnection::take_head_bytes(Slice bytes) {
    if (!answered_) {
        answered_ = true;
        request_->message_.clear();
    }
    while (state_ == State::Waiting) {
        switch (collector_.feed(std::move(bytes), pool_.loop_.buffers())) {
            case HeadCollector::State::NeedMore:
                return;
            case HeadCollector::State::Bad:
                return fail(ClientFailure::Kind::Protocol, {Errc::ProtocolViolation});
            case HeadCollector::State::Complete:
                break;
        }
        Slice head = collector_.take_head();
        Slice rest = collector_.take_rest();
        if (parse_response_head(std::move(head), request_->is_head_method_, head_))
            return fail(ClientFailure::Kind::Protocol, {Errc::ProtocolViolation});
        if (head_.status >= 200) return head_complete(std::move(rest));
        if (head_.status == 101 || ++interim_ > limits::kInterimResponsesMax)
            return fail(ClientFailure::Kind::Protocol, {Errc::ProtocolViolation});
        if (rest.empty()) return;
        bytes = std::move(rest);
    }
}

void ClientConnection::head_complete(Slice rest) {
    state_ = State::Body;
    reader_.start(head_.framing, head_.content_length);
    request_->events_.on_response_head(head_);
    if (request_ == nullptr) return;  // the user cancelled
    const bool bodiless = head_.framing == Framing::None ||
                          (head_.framing == Framing::Length && head_.content_length == 0);
    if (bodiless) return answer_complete(rest.empty());
    if (!rest.empty()) take_body_bytes(std::move(rest));
}

void ClientConnection::pass_body(Slice bytes) {
    if (request_ != nullptr) request_->events_.on_response_body(std::move(bytes));
}

void ClientConnection::take_body_bytes(Slice bytes) {
    const auto state = reader_.feed(std::move(bytes),
                                    Delegate<void(Slice)>::to<&ClientConnection::pass_body>(*this));
    if (request_ == nullptr) return;
    switch (state) {
        case BodyReader::State::NeedMore:
            return;
        case BodyReader::State::Bad:
            return fail(ClientFailure::Kind::Protocol, {Errc::ProtocolViolation});
        case BodyReader::State::Complete:
            return answer_complete(reader_.take_rest().empty());
    }
}

void ClientConnection::answer_complete(bool reusable) {
    ClientRequest* request = std::exchange(request_, nullptr);
    request->connection_ = nullptr;
    // An answer before the request was sent leaves the rest of the request in the way.
    reusable =
        reusable && head_.keep_alive && stream_.unsent() == 0 && !stream_.sending_has_failed();
    head_.bytes = Slice();
    if (reusable) {
        state_ = State::Idle;
        stream_.set_reading(true);
        pool_.keep(*this);
    } else {
        close();
    }
    request->events_.on_response_end();
}

void ClientConnection::go_idle() { pool_.loop_.arm(deadline_, pool_.options_.idle_timeout); }

void ClientConnection::on_end() {
    if (state_ == State::Body && reader_.end_of_stream() == BodyReader::State::Complete)
        return answer_complete(false);
    if (state_ == State::Idle || state_ == State::Closing) return close();
    // Whether a unix socket's peer got the request is known when the send has ended
    // (may_have_been_read).
    ended_ = address_.is_unix() && state_ == State::Waiting && !answered_ && stream_.unsent() > 0;
    if (!ended_) fail(ClientFailure::Kind::Closed, {Errc::ConnectionClosed});
}

void ClientConnection::on_sent() {
    if (ended_) fail(ClientFailure::Kind::Closed, {Errc::ConnectionClosed});
}

void ClientConnection::on_broken(Error error) {
    if (state_ == State::Idle || state_ == State::Closing) return close();
    fail(state_ == State::Connecting ? ClientFailure::Kind::Connect : ClientFailure::Kind::Broken,
         error);
}

void ClientConnection::on_deadline() {
    if (state_ == State::Connecting)
        return fail(ClientFailure::Kind::ConnectTimeout, {Errc::Timeout});
    close();
}

void ClientConnection::fail(ClientFailure::Kind kind, Error error) {
    if (request_ == nullptr) return close();
    if (kind == ClientFailure::Kind::Connect || kind == ClientFailure::Kind::ConnectTimeout)
        ++pool_.counters_.connect_failures;
    const bool closed = kind == ClientFailure::Kind::Closed || kind == ClientFailure::Kind::Broken;
    if (closed && reused_ && !may_have_been_read(error)) return replace_stale();
    const ClientFailure failure{kind, error, may_have_been_read(error), answered_};
    ClientRequest* request = std::exchange(request_, nullptr);
    request->connection_ = nullptr;
    request->message_.clear();
    close();
    request->events_.on_response_failed(failure);
}

bool ClientConnection::may_have_been_read(Error error) {
    if (state_ == State::Connecting) return false;
    if (answered_) return true;
    // Only a send ends with EPIPE, and then it took nothing. A unix socket knows no
    // acknowledgements.
    if (error.os == EPIPE && stream_.sent() == sent_before_) return false;
    return stream_.acknowledged_since_mark();
}

// The server closed the pooled connection while it lay idle; the request was not read by anybody.
void ClientConnection::replace_stale() {
    ClientRequest* request = std::exchange(request_, nullptr);
    request->connection_ = nullptr;
    ++pool_.counters_.stale_replaced;
    close();
    ClientConnection* fresh = pool_.open_new();
    ASSERT(fresh != nullptr);
    fresh->begin(*request, false);
    fresh->connect();
}

void ClientConnection::abandon() {
    request_ = nullptr;
    close();
}

// There was no connection to be had, not even a socket.
void ClientConnection::report_unconnected() {
    ClientRequest* request = std::exchange(request_, nullptr);
    const ClientFailure failure = failed_;
    pool_.closed(*this);  // destroys this
    if (request == nullptr) return;
    request->connection_ = nullptr;
    request->message_.clear();
    request->events_.on_response_failed(failure);
}

void ClientConnection::close() {
    if (state_ == State::Closing || report_.queued()) return;
    state_ = State::Closing;
    pool_.forget_idle(*this);
    deadline_.cancel();
    stream_.close();
}

void ClientConnection::on_closed() { pool_.closed(*this); }

}  // namespace sluice::http
