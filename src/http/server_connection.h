// SPDX-License-Identifier: Apache-2.0
// One client connection: requests in order, each gathered whole, each answered once.
//
// Life of a request: on_head() when the head is there (a handler may answer at once, e.g. 404 or
// 413, and the body is not read), on_request() when the body is complete and contiguous. The
// handler then answers through respond() or start_response() / write() / end_response(). Pipelined
// requests wait in the connection, bounded. If the client leaves meanwhile, on_client_gone() is the
// last word: the handler must not use the connection again. A client that half-closes counts as
// gone (as in nginx and uvicorn, since that is what a vanished client looks like), unless
// options.allow_half_close.
//
// Slow clients are bounded: head_timeout from the first byte, body_timeout plus a minimum rate,
// stall_timeout without progress while an answer waits to be read, idle_timeout between requests.
// Threads: one. Owns: the stream and the request's bytes.
#pragma once

#include <optional>

#include "base/timer_wheel.h"
#include "http/body_reader.h"
#include "http/head_collector.h"
#include "io/stream.h"
#include "mem/text_arena.h"

namespace sluice::http {

class ServerConnection;

class RequestHandler {
public:
    virtual void on_head(ServerConnection&) {}
    virtual void on_request(ServerConnection&) = 0;
    virtual void on_client_gone(ServerConnection&) = 0;
    virtual void on_drained(ServerConnection&) {}  // answer bytes were congested and are no longer
    // A head or body that was refused before any handler saw it (for counting).
    virtual void on_refused(std::uint16_t) {}

protected:
    ~RequestHandler() = default;
};

class ServerConnectionOwner {
public:
    // The connection is closed and idle: now, and only now, it may be destroyed.
    virtual void on_connection_closed(ServerConnection&) = 0;

protected:
    ~ServerConnectionOwner() = default;
};

struct ServerOptions {
    Duration head_timeout = std::chrono::seconds(10);
    Duration body_timeout = std::chrono::seconds(30);
    std::uint64_t body_rate_min = 16 * 1024;  // bytes a second, averaged from the start of the body
    Duration idle_timeout = std::chrono::seconds(75);
    Duration stall_timeout = std::chrono::seconds(60);
    std::uint64_t body_bytes_max = 64ULL << 20;
    bool allow_half_close = false;
    std::string_view field_lines;  // of every answer: complete lines, of static storage
};

class ServerConnection final : private io::StreamEvents {
public:
    ServerConnection(io::Loop& loop, TextArena& texts, RequestHandler& handler,
                     ServerConnectionOwner& owner, const ServerOptions& options);

    void open(io::Socket accepted);

    // -- the request being served
    const RequestHead& request() const { return head_; }
    const Slice& body() const { return body_; }
    bool is_head_method() const { return is_head_method_; }
    // Lets go of the request's bytes (head and body); request() and body() are void afterwards.
    void release_request();
    // The handler's own object for this request; cleared when the request ends.
    void set_context(void* context) { context_ = context; }
    void* context() const { return context_; }
    Instant request_began() const { return request_began_; }

    // -- the answer. `field_lines`: complete lines, each with CRLF.
    void respond(std::uint16_t status, std::string_view content_type, std::string_view body,
                 std::string_view field_lines = {});
    void respond_error(std::uint16_t status, std::string_view message,
                       std::string_view field_lines = {}, std::string_view param = {});
    void start_response(std::uint16_t status, std::string_view field_lines,
                        std::optional<std::uint64_t> content_length);
    void write(Slice bytes);
    void end_response();
    // Ends the connection so that nobody can take the answer for complete. What was written still
    // goes out.
    void cut_response();
    bool response_started() const { return response_started_; }
    bool congested() const { return stream_.congested(); }
    std::uint64_t response_bytes() const { return response_bytes_; }

    // After the current answer the connection closes; at once if there is none.
    void drain();
    bool serving() const { return state_ == State::Serving; }
    // Ends it whatever it does; the handler hears on_client_gone() if a request was being served.
    void shut_down();

    TextArena& texts() { return texts_; }
    io::Loop& loop() { return loop_; }

private:
    enum class State : std::uint8_t { Idle, Head, Body, Serving, Lingering, Closing };

    void on_bytes(Slice bytes) override;
    void on_end() override;
    void on_broken(Error error) override;
    void on_drained() override;
    void on_sent() override;
    void on_closed() override;

    bool held_up() const;
    void work_off_input();
    void take_head_bytes(Slice bytes);
    void forget_request();
    void begin_request(Slice head, Slice rest);
    void take_body_bytes(Slice bytes);
    void start_sized_body(Slice rest);
    void append_to_body(Slice bytes);
    void request_complete();
    void request_ended();
    void become_idle();
    void refuse(std::uint16_t status, std::string_view message);
    void begin_linger();
    void client_gone();
    void close_now();
    void close_when_sent();
    void write_head(std::uint16_t status, std::string_view field_lines,
                    std::optional<std::uint64_t> length);
    void answer_failed();
    void flush_chunk();
    void send_chunk();
    void on_deadline();
    void arm_body_deadline();
    void watch_for_stall();

    io::Loop& loop_;
    TextArena& texts_;
    RequestHandler& handler_;
    ServerConnectionOwner& owner_;
    const ServerOptions& options_;
    io::Stream stream_;
    Timer deadline_;
    io::Deferred flush_;
    HeadCollector collector_;
    BodyReader reader_;
    RequestHead head_;
    Slice body_;
    BufferRef body_buffer_;
    SliceQueue ahead_;    // input behind the request being served
    SliceQueue pending_;  // answer body of this turn
    void* context_ = nullptr;
    Instant request_began_{};
    Instant body_began_{};
    std::uint64_t response_bytes_ = 0;
    std::optional<std::uint64_t>
        promised_bytes_;  // the answer's Content-Length, if a body follows it
    std::uint64_t linger_bytes_ = 0;
    std::uint64_t stalled_at_ = 0;
    State state_ = State::Idle;
    bool working_ = false;  // work_off_input() is on the stack
    bool draining_ = false;
    bool ended_ = false;  // the client sends no more
    bool keep_alive_ = true;
    bool is_head_method_ = false;
    bool is_http_1_0_ = false;
    bool body_read_ = false;
    bool body_overflow_ = false;
    bool response_started_ = false;
    bool answer_failed_ = false;    // out of memory: to be cut
    bool has_answer_body_ = true;   // not HEAD, 204 or 304
    bool chunked_ = false;          // and the body goes in chunks
    bool reset_when_sent_ = false;  // close with a break, not an end
};

}  // namespace sluice::http
