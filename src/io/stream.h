// SPDX-License-Identifier: Apache-2.0
// One connection's bytes, both ways, with back-pressure and an orderly end.
//
// Reading: one receive is armed while reading is wanted; no bytes are taken from the kernel
// otherwise, so a reader that pauses makes the peer's sends stall. Writing: slices are queued and
// leave at the end of the turn in one vectored send; one send is in flight at a time. When more
// than kSendHighWater bytes are queued congested() is true, and on_drained() tells when it is over.
// Ending: close() cancels what is in flight, waits for it, closes the socket, and then calls
// on_closed(), the only moment at which the stream may be destroyed (or opened again). No other
// event comes after close().
//
// Threads: one. Owns: the socket. Events may be delivered from within turn() or a deferred flush,
// never from within a call of the user's, so a user need not expect to be re-entered.
#pragma once

#include "io/loop.h"

namespace sluice::io {

class StreamEvents {
public:
    virtual void on_connected() {}
    virtual void on_bytes(Slice bytes) = 0;
    virtual void on_end() = 0;                // the peer will send no more
    virtual void on_broken(Error error) = 0;  // the stream is useless; close() it
    virtual void on_drained() {}              // no longer congested
    virtual void on_sent() {}                 // everything queued has been given to the kernel
    virtual void on_closed() = 0;

protected:
    ~StreamEvents() = default;
};

class Stream final : private OpTarget {
public:
    Stream(Loop& loop, StreamEvents& events);
    ~Stream();

    // Starts on a connected socket, or by connecting. Reading is off until set_reading(true).
    void open(Socket connected);
    Result<void> connect(const Address& peer);

    bool is_open() const { return state_ == State::Open; }
    bool idle() const { return state_ == State::Idle; }
    bool closing() const { return state_ == State::Closing; }

    void set_reading(bool wanted);
    bool reading() const { return reading_wanted_; }
    // The next bytes go to `buffer` from `offset` on, at most `size`; once. Bytes already on their
    // way to a page may still come first.
    void receive_next_into(BufferRef buffer, std::uint32_t offset, std::uint32_t size);

    void send(Slice bytes);
    void send_all(SliceQueue& bytes);
    std::size_t unsent() const { return queue_.bytes(); }
    bool congested() const { return congested_; }
    // Given to the kernel since the connection began.
    std::uint64_t sent() const { return sent_total_; }

    // After everything queued: the peer reads the end of the stream.
    void finish_sending();
    // After everything queued has been sent: close().
    void close_when_sent();
    // A send that fails since the peer has gone ends the reading only when what the peer had sent
    // before has been read: it may say why. For who waits for an answer.
    void read_on_when_sending_fails() { reads_on_ = true; }
    bool sending_has_failed() const { return sending_failed_ || broken_; }
    // Now. Unsent bytes are dropped. `reset`: the peer is to see a break, not an orderly end.
    void close(bool reset = false);

    // Whether the peer's kernel acknowledged any byte sent since mark_sent_position(). What was not
    // acknowledged was not read by anybody, so it may be sent again elsewhere.
    void mark_sent_position() { mark_ = sent_total_ + queue_.bytes(); }
    bool acknowledged_since_mark();

    Loop& loop() { return loop_; }

private:
    enum class State : std::uint8_t { Idle, Connecting, Open, Closing };

    void on_completion(Completion& completion) override;
    void on_received(Completion& completion);
    void on_sent_some(Completion& completion);
    void on_connect(Completion& completion);
    void arm_receive();
    void flush();
    void start_send();
    void break_off(Error error);
    void sending_failed(Error error);
    void close_if_drained();

    Loop& loop_;
    StreamEvents& events_;
    Deferred flush_;
    State state_ = State::Idle;
    bool reading_wanted_ = false;
    bool ended_ = false;  // the peer's end was read
    bool broken_ = false;
    bool reads_on_ = false;
    bool sending_failed_ = false;  // with send_error_, and what is left to read is being read
    Error send_error_{};
    bool congested_ = false;
    bool finish_wanted_ = false;
    bool close_when_sent_ = false;
    bool reset_ = false;
    bool closed_pending_ = false;
    Socket socket_ = kNoSocket;
    OpId receive_;
    OpId send_;
    OpId connect_;
    SliceQueue queue_;
    BufferRef next_buffer_;
    std::uint32_t next_offset_ = 0;
    std::uint32_t next_size_ = 0;
    std::uint64_t sent_total_ = 0;
    std::uint64_t mark_ = 0;
};

}  // namespace sluice::io
