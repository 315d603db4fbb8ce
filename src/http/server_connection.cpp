// SPDX-License-Identifier: Apache-2.0
#include "http/server_connection.h"

#include <algorithm>
#include <cstring>

#include "http/error_answer.h"
#include "http/head_writer.h"

namespace sluice::http {

namespace {

// Input behind the request being served may lie in this many pages, however few bytes each holds.
constexpr std::size_t kPipelinedSlicesMax = 64;

}  // namespace

ServerConnection::ServerConnection(io::Loop& loop, TextArena& texts, RequestHandler& handler,
                                   ServerConnectionOwner& owner, const ServerOptions& options)
    : loop_(loop),
      texts_(texts),
      handler_(handler),
      owner_(owner),
      options_(options),
      stream_(loop, *this),
      deadline_(Delegate<void()>::to<&ServerConnection::on_deadline>(*this)),
      flush_(Delegate<void()>::to<&ServerConnection::flush_chunk>(*this)) {}

void ServerConnection::open(io::Socket accepted) {
    state_ = State::Idle;
    stream_.open(accepted);
    stream_.set_reading(true);
    loop_.arm(deadline_, options_.idle_timeout);
}

// -- input

void ServerConnection::on_bytes(Slice bytes) {
    switch (state_) {
        case State::Closing:
            return;
        case State::Lingering:
            linger_bytes_ += bytes.size;
            if (linger_bytes_ > limits::kLingerBytesMax) close_now();
            return;
        case State::Body:
            take_body_bytes(std::move(bytes));
            break;
        case State::Serving:
        case State::Idle:
        case State::Head:
            ahead_.push(std::move(bytes));
            break;
    }
    work_off_input();
}

// A request is not begun while earlier answers wait for a client that does not read them.
bool ServerConnection::held_up() const {
    return state_ == State::Serving || (state_ == State::Idle && stream_.congested());
}

// Requests are taken from the input one after another; an answer given at once comes back here for
// the next.
void ServerConnection::work_off_input() {
    if (working_) return;
    working_ = true;
    while (!ahead_.empty() && !held_up() && state_ != State::Lingering &&
           state_ != State::Closing) {
        Slice bytes = ahead_[0];
        ahead_.pop_bytes(bytes.size);
        if (state_ == State::Body) {
            take_body_bytes(std::move(bytes));
        } else {
            take_head_bytes(std::move(bytes));
        }
    }
    working_ = false;
    if (state_ == State::Closing || state_ == State::Lingering) return;
    if (ended_ && ahead_.empty() && state_ != State::Serving) return close_when_sent();
    const bool too_far_ahead = held_up() && (ahead_.bytes() > limits::kPipelinedBytesMax ||
                                             ahead_.count() >= kPipelinedSlicesMax);
    if (stream_.reading() == too_far_ahead) stream_.set_reading(!too_far_ahead);
}

void ServerConnection::take_head_bytes(Slice bytes) {
    if (state_ == State::Idle) {
        state_ = State::Head;
        forget_request();
        request_began_ = loop_.now();
        loop_.arm(deadline_, options_.head_timeout);
    }
    switch (collector_.feed(std::move(bytes), loop_.buffers())) {
        case HeadCollector::State::NeedMore:
            if (!collector_.started()) become_idle();  // only empty lines so far
            return;
        case HeadCollector::State::Bad:
            return refuse(collector_.error().status, collector_.error().message);
        case HeadCollector::State::Complete:
            break;
    }
    Slice head = collector_.take_head();
    begin_request(std::move(head), collector_.take_rest());
}

// Of the one before: what a refusal of the next, at whatever point, must not meet.
void ServerConnection::forget_request() {
    context_ = nullptr;
    response_bytes_ = 0;
    promised_bytes_.reset();
    keep_alive_ = false;
    is_head_method_ = is_http_1_0_ = false;
    body_read_ = body_overflow_ = false;
    response_started_ = answer_failed_ = false;
    has_answer_body_ = true;
    chunked_ = false;
}

void ServerConnection::begin_request(Slice head, Slice rest) {
    const auto error = parse_request_head(std::move(head), head_);
    is_head_method_ = head_.method == "HEAD";
    is_http_1_0_ = head_.minor_version == 0;
    if (error) return refuse(error->status, error->message);
    keep_alive_ = head_.keep_alive;
    if (head_.framing == Framing::Length && head_.content_length > options_.body_bytes_max)
        return refuse(413, "the request body is larger than --max-body-bytes allows");

    const bool no_body = head_.framing == Framing::None ||
                         (head_.framing == Framing::Length && head_.content_length == 0);
    body_read_ = no_body;
    state_ = State::Body;
    reader_.start(head_.framing, head_.content_length);
    handler_.on_head(*this);
    if (state_ != State::Body) {
        // Answered already, without its body.
        if (state_ == State::Lingering || state_ == State::Closing) return;
        ahead_.push_front(std::move(rest));
        return;
    }
    if (no_body) {
        ahead_.push_front(std::move(rest));
        return request_complete();
    }
    body_began_ = loop_.now();
    arm_body_deadline();
    if (head_.expects_continue && rest.empty() && ahead_.empty()) {
        TextWriter writer(texts_);
        writer.append("HTTP/1.1 100 Continue\r\n\r\n");
        stream_.send(writer.finish());
    }
    if (head_.framing == Framing::Length) {
        start_sized_body(std::move(rest));
    } else if (!rest.empty()) {
        take_body_bytes(std::move(rest));
    }
}

// The body's bytes end up contiguous with the least copying: in the page they came in, behind the
// head in its page, or received straight into a buffer of the announced size.
void ServerConnection::start_sized_body(Slice rest) {
    const auto size = static_cast<std::size_t>(head_.content_length);
    if (rest.size >= size) {
        body_ = rest.part(0, size);
        ahead_.push_front(rest.from(size));
        return request_complete();
    }
    if (rest.buffer && rest.offset + size <= rest.buffer.capacity()) {
        body_buffer_ = rest.buffer;
        body_ = rest;
    } else {
        body_buffer_ = loop_.buffers().allocate(size);
        if (!body_buffer_) return refuse(503, "out of buffer memory");
        if (!rest.empty()) std::memcpy(body_buffer_.data(), rest.data(), rest.size);
        body_ = Slice{body_buffer_, 0, rest.size};
    }
    stream_.receive_next_into(body_buffer_, body_.offset + body_.size,
                              static_cast<std::uint32_t>(size - body_.size));
}

void ServerConnection::take_body_bytes(Slice bytes) {
    if (head_.framing == Framing::Length) {
        const auto size = static_cast<std::size_t>(head_.content_length);
        const std::size_t mine = std::min<std::size_t>(bytes.size, size - body_.size);
        char* place = body_buffer_.data() + body_.offset + body_.size;
        if (bytes.data() != place) std::memcpy(place, bytes.data(), mine);
        body_.size += static_cast<std::uint32_t>(mine);
        if (body_.size < size) {
            stream_.receive_next_into(body_buffer_, body_.offset + body_.size,
                                      static_cast<std::uint32_t>(size - body_.size));
            return arm_body_deadline();
        }
        if (mine < bytes.size) ahead_.push_front(bytes.from(mine));
        return request_complete();
    }
    const auto sink = Delegate<void(Slice)>::to<&ServerConnection::append_to_body>(*this);
    const auto state = reader_.feed(std::move(bytes), sink);
    if (body_overflow_) {
        const bool too_large = body_.size >= options_.body_bytes_max / 2;
        return refuse(too_large ? 413 : 503,
                      too_large ? "the request body is larger than --max-body-bytes allows"
                                : "out of buffer memory");
    }
    switch (state) {
        case BodyReader::State::NeedMore:
            return arm_body_deadline();
        case BodyReader::State::Bad:
            return refuse(400, reader_.fault());
        case BodyReader::State::Complete:
            break;
    }
    ahead_.push_front(reader_.take_rest());
    request_complete();
}

void ServerConnection::append_to_body(Slice bytes) {
    if (body_overflow_) return;
    const std::size_t size = body_.size + bytes.size;
    if (size > options_.body_bytes_max) {
        body_.size = static_cast<std::uint32_t>(options_.body_bytes_max);
        body_overflow_ = true;
        return;
    }
    if (!body_buffer_ || size > body_buffer_.capacity()) {
        const std::size_t wanted = std::min<std::size_t>(size * 2, options_.body_bytes_max);
        BufferRef larger = loop_.buffers().allocate(std::max(wanted, BufferPool::kPageCapacity));
        if (!larger) {
            body_.size = 0;
            body_overflow_ = true;
            return;
        }
        if (body_.size > 0) std::memcpy(larger.data(), body_.data(), body_.size);
        body_ = Slice{larger, 0, body_.size};
        body_buffer_ = std::move(larger);
    }
    std::memcpy(body_buffer_.data() + body_.size, bytes.data(), bytes.size);
    body_.size += bytes.size;
}

void ServerConnection::request_complete() {
    body_read_ = true;
    body_buffer_ = BufferRef();
    stream_.receive_next_into(BufferRef(), 0,
                              0);  // the body's buffer is not for what comes behind it
    state_ = State::Serving;
    deadline_.cancel();
    handler_.on_request(*this);
}

void ServerConnection::release_request() {
    body_ = Slice();
    head_.bytes = Slice();
    head_.fields.reset(nullptr);
}

// -- ends and faults

void ServerConnection::refuse(std::uint16_t status, std::string_view message) {
    handler_.on_refused(status);
    keep_alive_ = false;
    body_read_ = false;
    body_buffer_ = BufferRef();
    stream_.receive_next_into(BufferRef(), 0, 0);
    state_ = State::Serving;
    respond_error(status, message);
}

void ServerConnection::on_end() {
    ended_ = true;
    switch (state_) {
        case State::Closing:
            return;
        case State::Lingering:
            return stream_.close_when_sent();
        case State::Serving:
            if (!options_.allow_half_close) client_gone();
            return;
        case State::Idle:
        case State::Head:
        case State::Body:
            // Whole requests may still wait behind answers that the client has not read.
            if (ahead_.empty() || !options_.allow_half_close) close_when_sent();
            return;
    }
}

void ServerConnection::on_broken(Error) {
    if (state_ == State::Serving) {
        client_gone();
    } else {
        close_now();
    }
}

void ServerConnection::client_gone() {
    state_ = State::Closing;
    release_request();
    handler_.on_client_gone(*this);
    close_now();
}

void ServerConnection::shut_down() {
    if (state_ == State::Serving) {
        client_gone();
    } else {
        close_now();
    }
}

void ServerConnection::close_now() {
    state_ = State::Closing;
    deadline_.cancel();
    flush_.cancel();
    pending_.clear();
    ahead_.clear();
    collector_.reset();
    body_buffer_ = BufferRef();
    release_request();
    stream_.close(reset_when_sent_);
}

// Takes no more input; what was answered still goes out, to a client that reads it.
void ServerConnection::close_when_sent() {
    state_ = State::Closing;
    ahead_.clear();
    collector_.reset();
    body_buffer_ = BufferRef();
    release_request();
    watch_for_stall();
    if (!reset_when_sent_) return stream_.close_when_sent();
    if (stream_.unsent() == 0) stream_.close(true);
}

void ServerConnection::on_sent() {
    if (state_ == State::Lingering) loop_.arm(deadline_, limits::kLingerTimeout);
    if (state_ == State::Closing && reset_when_sent_) stream_.close(true);
}

void ServerConnection::on_closed() {
    state_ = State::Closing;
    deadline_.cancel();
    flush_.cancel();
    pending_.clear();
    ahead_.clear();
    owner_.on_connection_closed(*this);
}

void ServerConnection::drain() {
    draining_ = true;
    keep_alive_ = false;
    if (state_ == State::Idle) close_when_sent();
}

void ServerConnection::on_deadline() {
    const bool is_reading = stream_.unsent() > 0 && stream_.sent() != stalled_at_;
    switch (state_) {
        case State::Head:
            return refuse(408, "the request head took too long");
        case State::Body:
            return refuse(408, "the request body took too long");
        case State::Idle:
        case State::Lingering:
        case State::Closing:
            return is_reading ? watch_for_stall() : close_now();
        case State::Serving:
            if (stream_.unsent() == 0) return;
            return is_reading ? watch_for_stall() : client_gone();
    }
}

void ServerConnection::arm_body_deadline() {
    const auto rate = static_cast<double>(std::max<std::uint64_t>(options_.body_rate_min, 1));
    const Duration at_rate = from_seconds(static_cast<double>(body_.size) / rate);
    loop_.arm(deadline_, body_began_ + options_.body_timeout + at_rate - loop_.now());
}

// A client that reads nothing while bytes wait for it is given up after stall_timeout.
void ServerConnection::watch_for_stall() {
    stalled_at_ = stream_.sent();
    loop_.arm(deadline_, options_.stall_timeout);
}

void ServerConnection::on_drained() {
    if (state_ == State::Serving && response_started_) {
        if (deadline_.armed()) watch_for_stall();
        handler_.on_drained(*this);
    } else {
        work_off_input();
    }
}

// -- the answer

void ServerConnection::write_head(std::uint16_t status, std::string_view field_lines,
                                  std::optional<std::uint64_t> length) {
    const bool bodiless = status == 204 || status == 304;
    has_answer_body_ = !bodiless && !is_head_method_;
    if (has_answer_body_) promised_bytes_ = length;
    if (!length && !bodiless && is_http_1_0_) keep_alive_ = false;
    if (draining_ || !body_read_ || (ended_ && ahead_.empty())) keep_alive_ = false;
    TextWriter writer(texts_);
    write_status_line(writer, status);
    writer.append(options_.field_lines);
    writer.append(field_lines);
    if (length && !bodiless) {
        write_field(writer, "Content-Length", *length);
    } else if (!bodiless && !is_http_1_0_) {
        writer.append("Transfer-Encoding: chunked\r\n");
        chunked_ = has_answer_body_;
    }
    if (!keep_alive_) {
        writer.append("Connection: close\r\n");
    } else if (is_http_1_0_) {
        writer.append("Connection: keep-alive\r\n");
    }
    writer.append("\r\n");
    response_started_ = true;
    if (!writer.ok()) return answer_failed();
    // Ahead of the stream's own flush, so that the first chunk leaves with the head.
    if (chunked_) loop_.defer(flush_);
    stream_.send(writer.finish());
}

// No memory even for a head or a chunk line. The client sees a broken connection; the handler,
// which may be in the middle of a call, hears of it at the end of the turn, if it does not end the
// answer before.
void ServerConnection::answer_failed() {
    answer_failed_ = true;
    pending_.clear();
    loop_.defer(flush_);
}

void ServerConnection::respond(std::uint16_t status, std::string_view content_type,
                               std::string_view body, std::string_view field_lines) {
    TextWriter lines(texts_);
    write_date(lines);
    if (!content_type.empty()) write_field(lines, "Content-Type", content_type);
    lines.append(field_lines);
    const Slice kept = lines.finish();
    write_head(status, kept.view(), body.size());
    if (has_answer_body_) {
        TextWriter writer(texts_);
        writer.append(body);
        write(writer.finish());
    }
    end_response();
}

void ServerConnection::respond_error(std::uint16_t status, std::string_view message,
                                     std::string_view field_lines, std::string_view param) {
    TextWriter writer(texts_);
    write_error_json(writer, status, message, param);
    const Slice body = writer.finish();
    respond(status, "application/json", body.view(), field_lines);
}

void ServerConnection::start_response(std::uint16_t status, std::string_view field_lines,
                                      std::optional<std::uint64_t> content_length) {
    write_head(status, field_lines, content_length);
}

void ServerConnection::write(Slice bytes) {
    if (!has_answer_body_ || answer_failed_ || bytes.empty()) return;
    if (state_ == State::Closing || state_ == State::Lingering) return;
    response_bytes_ += bytes.size;
    if (!chunked_) {
        stream_.send(std::move(bytes));
    } else {
        pending_.push(std::move(bytes));
        loop_.defer(flush_);
    }
    if (!deadline_.armed()) watch_for_stall();
}

// What was written in a turn becomes one chunk.
void ServerConnection::flush_chunk() {
    if (!answer_failed_) send_chunk();
    if (answer_failed_) client_gone();
}

void ServerConnection::send_chunk() {
    flush_.cancel();
    if (pending_.empty()) return;
    TextWriter line(texts_);
    line.append_number(pending_.bytes(), 16);
    line.append("\r\n");
    Slice size_line = line.finish();
    TextWriter end(texts_);
    end.append("\r\n");
    Slice end_line = end.finish();
    if (size_line.empty() || end_line.empty()) return answer_failed();
    stream_.send(std::move(size_line));
    stream_.send_all(pending_);
    stream_.send(std::move(end_line));
}

void ServerConnection::end_response() {
    if (state_ == State::Closing || state_ == State::Lingering) return;
    if (chunked_) {
        send_chunk();
        TextWriter last(texts_);
        last.append("0\r\n\r\n");
        Slice line = last.finish();
        if (line.empty() || answer_failed_) return cut_response();
        stream_.send(std::move(line));
    }
    // Fewer or more bytes than the head said: the client would wait, or take them for the next
    // answer.
    if (answer_failed_ || (promised_bytes_ && *promised_bytes_ != response_bytes_))
        return cut_response();
    request_ended();
}

void ServerConnection::cut_response() {
    if (state_ == State::Closing) return;
    if (chunked_ && !answer_failed_) send_chunk();
    flush_.cancel();
    pending_.clear();
    context_ = nullptr;
    // An answer that ends with the connection looks whole unless the connection breaks.
    reset_when_sent_ = response_started_ && has_answer_body_ && !chunked_ && !promised_bytes_;
    stream_.set_reading(false);
    close_when_sent();
}

void ServerConnection::request_ended() {
    context_ = nullptr;
    release_request();
    body_buffer_ = BufferRef();
    if (!body_read_ || (!keep_alive_ && !ahead_.empty())) return begin_linger();
    if (!keep_alive_) return close_when_sent();
    become_idle();
    work_off_input();
}

void ServerConnection::become_idle() {
    state_ = State::Idle;
    stalled_at_ = stream_.sent();
    loop_.arm(deadline_, options_.idle_timeout);
}

// Closing with unread input would break the connection and take the answer with it, so the rest is
// read and dropped for a while (RFC 9112, 9.6).
void ServerConnection::begin_linger() {
    state_ = State::Lingering;
    linger_bytes_ = ahead_.bytes();
    ahead_.clear();
    collector_.reset();
    stream_.finish_sending();
    stream_.set_reading(true);
    watch_for_stall();  // once everything is sent, on_sent() sets a shorter deadline
    if (ended_) stream_.close_when_sent();
}

}  // namespace sluice::http
