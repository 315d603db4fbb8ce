// SPDX-License-Identifier: Apache-2.0
#include "io/stream.h"

#include <cerrno>

namespace sluice::io {

namespace {

Error connection_error(int os) {
    switch (os) {
        case EPIPE:
        case ECONNRESET:
            return {Errc::ConnectionReset, os};
        default:
            return {Errc::System, os};
    }
}

}  // namespace

Stream::Stream(Loop& loop, StreamEvents& events)
    : loop_(loop), events_(events), flush_(Delegate<void()>::to<&Stream::flush>(*this)) {}

Stream::~Stream() {
    // A completion for a destroyed stream would write into freed memory.
    ASSERT(state_ == State::Idle);
}

void Stream::open(Socket connected) {
    ASSERT(state_ == State::Idle);
    state_ = State::Open;
    socket_ = connected;
    ended_ = broken_ = congested_ = finish_wanted_ = close_when_sent_ = reset_ = closed_pending_ =
        sending_failed_ = false;
    sent_total_ = mark_ = 0;
}

Result<void> Stream::connect(const Address& peer) {
    auto socket = loop_.io().open(peer);
    if (!socket) return std::unexpected(socket.error());
    open(*socket);
    state_ = State::Connecting;
    connect_ = loop_.io().connect(socket_, peer, *this);
    return {};
}

void Stream::set_reading(bool wanted) {
    reading_wanted_ = wanted;
    // An armed receive is left alone: at most one page arrives more than was wanted.
    if (wanted) arm_receive();
}

void Stream::receive_next_into(BufferRef buffer, std::uint32_t offset, std::uint32_t size) {
    next_buffer_ = std::move(buffer);
    next_offset_ = offset;
    next_size_ = size;
}

void Stream::arm_receive() {
    if (!reading_wanted_ || receive_.valid() || state_ != State::Open || ended_ || broken_) return;
    if (next_buffer_) {
        receive_ = loop_.io().receive_into(socket_, std::move(next_buffer_), next_offset_,
                                           next_size_, *this);
        next_buffer_ = BufferRef();
    } else {
        receive_ = loop_.io().receive(socket_, *this);
    }
}

void Stream::send(Slice bytes) {
    if (broken_ || sending_failed_ || (state_ != State::Open && state_ != State::Connecting))
        return;
    queue_.push(std::move(bytes));
    if (queue_.bytes() > limits::kSendHighWater) congested_ = true;
    loop_.defer(flush_);
}

void Stream::send_all(SliceQueue& bytes) {
    if (broken_ || sending_failed_ || (state_ != State::Open && state_ != State::Connecting)) {
        bytes.clear();
        return;
    }
    queue_.take_all(bytes);
    if (queue_.bytes() > limits::kSendHighWater) congested_ = true;
    loop_.defer(flush_);
}

void Stream::finish_sending() {
    finish_wanted_ = true;
    loop_.defer(flush_);
}

void Stream::close_when_sent() {
    close_when_sent_ = true;
    loop_.defer(flush_);
}

// Runs at the end of a turn: everything queued in it leaves in one send.
void Stream::flush() {
    if (closed_pending_) {
        close_if_drained();
        return;
    }
    if (state_ == State::Open) start_send();
}

void Stream::start_send() {
    if (broken_) {
        if (close_when_sent_) close();  // nothing more can be sent
        return;
    }
    if (send_.valid() || sending_failed_) return;
    if (!queue_.empty()) {
        send_ = loop_.io().send(socket_, queue_, *this);
        return;
    }
    if (finish_wanted_) {
        finish_wanted_ = false;
        loop_.io().shutdown_send(socket_);
    }
    if (close_when_sent_) close();
}

void Stream::on_completion(Completion& completion) {
    switch (completion.kind) {
        case OpKind::Connect:
            return on_connect(completion);
        case OpKind::Receive:
            return on_received(completion);
        case OpKind::Send:
            return on_sent_some(completion);
        case OpKind::Accept:
            UNREACHABLE();
    }
}

void Stream::on_connect(Completion& completion) {
    connect_ = {};
    if (state_ == State::Closing) return close_if_drained();
    if (completion.result < 0) {
        state_ = State::Open;  // close() works as for any other stream
        return break_off({Errc::ConnectFailed, -completion.result});
    }
    state_ = State::Open;
    events_.on_connected();
    if (state_ != State::Open) return;
    arm_receive();
    if (!queue_.empty() || finish_wanted_ || close_when_sent_) loop_.defer(flush_);
}

void Stream::on_received(Completion& completion) {
    receive_ = {};
    if (state_ == State::Closing) return close_if_drained();
    if (broken_) return;  // a send found out first
    if (sending_failed_ && completion.result <= 0) return break_off(send_error_);
    if (completion.result < 0) return break_off(connection_error(-completion.result));
    if (completion.result == 0) {
        ended_ = true;
        return events_.on_end();
    }
    events_.on_bytes(std::move(completion.bytes));
    arm_receive();
}

void Stream::on_sent_some(Completion& completion) {
    send_ = {};
    if (state_ == State::Closing) return close_if_drained();
    if (broken_) return;  // a receive found out first, and the queue is gone
    if (completion.result < 0) return sending_failed(connection_error(-completion.result));
    sent_total_ += static_cast<std::uint64_t>(completion.result);
    queue_.pop_bytes(static_cast<std::size_t>(completion.result));
    if (!queue_.empty()) {
        loop_.defer(flush_);  // not at once: more may come in this turn
    } else {
        events_.on_sent();
        if (state_ == State::Open && (finish_wanted_ || close_when_sent_)) start_send();
    }
    if (state_ == State::Open && congested_ && queue_.bytes() <= limits::kSendLowWater) {
        congested_ = false;
        events_.on_drained();
    }
}

void Stream::sending_failed(Error error) {
    const bool peer_gone = error.code == Errc::ConnectionReset;
    if (!reads_on_ || !peer_gone || !receive_.valid() || close_when_sent_) return break_off(error);
    sending_failed_ = true;
    send_error_ = error;
    queue_.clear();
}

void Stream::break_off(Error error) {
    if (broken_) return;
    broken_ = true;
    queue_.clear();
    events_.on_broken(error);
    if (state_ == State::Open && close_when_sent_) loop_.defer(flush_);
}

void Stream::close(bool reset) {
    if (state_ == State::Idle || state_ == State::Closing) return;
    state_ = State::Closing;
    reset_ = reset;
    reading_wanted_ = false;
    queue_.clear();
    next_buffer_ = BufferRef();
    if (receive_.valid()) loop_.io().cancel(receive_);
    if (send_.valid()) loop_.io().cancel(send_);
    if (connect_.valid()) loop_.io().cancel(connect_);
    // Never call back from within the user's own call.
    closed_pending_ = true;
    loop_.defer(flush_);
}

void Stream::close_if_drained() {
    if (receive_.valid() || send_.valid() || connect_.valid()) return;
    flush_.cancel();
    closed_pending_ = false;
    loop_.io().close(socket_, reset_);
    socket_ = kNoSocket;
    state_ = State::Idle;
    events_.on_closed();
}

bool Stream::acknowledged_since_mark() {
    if (socket_ == kNoSocket) return false;
    return loop_.io().acknowledged_bytes(socket_) > mark_;
}

}  // namespace sluice::io
