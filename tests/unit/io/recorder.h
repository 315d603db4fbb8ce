// SPDX-License-Identifier: Apache-2.0
// A stream's user for tests: it notes every event, and says which promise of stream.h was broken.
#pragma once

#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "io/stream.h"

namespace sluice::io::test {

inline Slice slice_of(BufferPool& pool, std::string_view text) {
    BufferRef buffer = pool.allocate(text.size());
    ASSERT(buffer);
    std::memcpy(buffer.data(), text.data(), text.size());
    return {std::move(buffer), 0, static_cast<std::uint32_t>(text.size())};
}

// Text in which every position can be told from its neighbours.
inline std::string pattern(std::size_t bytes, unsigned start = 0) {
    std::string text(bytes, 0);
    for (std::size_t i = 0; i < bytes; ++i)
        text[i] = static_cast<char>((i * 31 + (i >> 8) * 7 + start) & 0xff);
    return text;
}

class Recorder final : public StreamEvents {
public:
    explicit Recorder(Loop& loop) : stream(loop, *this) {}

    Stream stream;

    // -- what happened
    std::string received;
    std::vector<std::size_t> pieces;
    int connected = 0;
    int ends = 0;
    int breaks = 0;
    int drains = 0;
    int sents = 0;
    int closes = 0;
    Error error{};
    // The first promise that was not kept; empty if all were.
    std::string violation;

    // -- what to do then
    std::function<void()> when_connected;
    std::function<void(Slice&)> when_bytes;
    std::function<void()> when_end;
    std::function<void()> when_broken;
    std::function<void()> when_drained;
    std::function<void()> when_sent;
    std::function<void()> when_closed;

    void send(std::string_view text) { stream.send(slice_of(stream.loop().buffers(), text)); }
    void close(bool reset = false) {
        const bool was_open = !stream.idle() && !stream.closing();
        const int before = events_;
        in_call_ = true;
        stream.close(reset);
        in_call_ = false;
        if (was_open && events_ != before) violated("an event from within close()");
        close_called_ = true;
    }
    // Before the stream is opened again.
    void reuse() { close_called_ = false; }

private:
    void on_connected() override {
        event("connected");
        ++connected;
        if (when_connected) when_connected();
    }
    void on_bytes(Slice bytes) override {
        event("bytes");
        if (ends > 0) violated("bytes after the end");
        received += bytes.view();
        pieces.push_back(bytes.size);
        if (when_bytes) when_bytes(bytes);
    }
    void on_end() override {
        event("end");
        if (++ends > 1) violated("a second end");
        if (when_end) when_end();
    }
    void on_broken(Error why) override {
        event("broken");
        error = why;
        if (++breaks > 1) violated("broken twice");
        if (when_broken) when_broken();
    }
    void on_drained() override {
        event("drained");
        ++drains;
        if (stream.congested()) violated("drained and congested");
        if (when_drained) when_drained();
    }
    void on_sent() override {
        event("sent");
        ++sents;
        if (when_sent) when_sent();
    }
    void on_closed() override {
        ++events_;
        if (!stream.idle()) violated("closed and not idle");
        if (in_call_) violated("closed from within a call");
        ++closes;
        if (when_closed) when_closed();
    }

    void event(const char* name) {
        ++events_;
        if (in_call_) violated(std::string(name) + " from within a call");
        if (close_called_) violated(std::string(name) + " after close");
        // Nothing is told of a stream after it broke, but that it is closed.
        if (breaks > 0) violated(std::string(name) + " after broken");
    }
    void violated(std::string what) {
        if (violation.empty()) violation = std::move(what);
    }

    int events_ = 0;
    bool in_call_ = false;
    bool close_called_ = false;
};

// Accepts on one listener until stopped.
class Acceptor final : private OpTarget {
public:
    Acceptor(Loop& loop, const Address& address, bool shared_port = false) : loop_(loop) {
        auto made = loop.io().listen(address, shared_port);
        if (!made) {
            error = made.error();
            return;
        }
        listener_ = *made;
        operation_ = loop_.io().accept(listener_, *this);
    }
    ~Acceptor() { ASSERT(listener_ == kNoSocket); }

    Error error{};
    std::function<void(Recorder&)> when_accepted;
    std::deque<std::unique_ptr<Recorder>> accepted;
    int failures = 0;  // completions with an error, the cancelled one not counted
    int ends = 0;      // completions without more

    bool listening() const { return listener_ != kNoSocket; }
    Address address() const { return *loop_.io().local_address(listener_); }
    void stop() {
        stopping_ = true;
        if (operation_.valid())
            loop_.io().cancel(operation_);
        else if (listening())
            close();
    }

private:
    void on_completion(Completion& completion) override {
        if (!completion.more) {
            operation_ = {};
            ++ends;
        }
        if (completion.result >= 0) {
            accepted.push_back(std::make_unique<Recorder>(loop_));
            accepted.back()->stream.open(completion.result);
            if (when_accepted) when_accepted(*accepted.back());
        } else if (!stopping_) {
            ++failures;
        }
        if (completion.more) return;
        if (stopping_)
            close();
        else
            operation_ = loop_.io().accept(listener_, *this);
    }
    void close() {
        loop_.io().close(listener_, false);
        listener_ = kNoSocket;
    }

    Loop& loop_;
    Socket listener_ = kNoSocket;
    OpId operation_;
    bool stopping_ = false;
};

}  // namespace sluice::io::test
