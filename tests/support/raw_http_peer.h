// SPDX-License-Identifier: Apache-2.0
// An HTTP/1.1 server for tests that may answer wrongly: it reads requests properly, and what it
// sends back is whatever the test says, byte by byte.
//
// Threads: the loop's. Owns: its listener and connections; destroy it when finished().
#pragma once

#include <functional>
#include <list>
#include <memory>
#include <string>
#include <vector>

#include "http/body_reader.h"
#include "http/head_collector.h"
#include "io/stream.h"
#include "mem/text_arena.h"

namespace sluice::test {

struct RawRequest {
    std::string method;
    std::string path;
    std::string request_id;
    std::string rank;                 // X-data-parallel-rank
    std::vector<std::string> fields;  // "Name: value"
    std::string body;
};

class RawHttpPeer;

// One connection; lives until both sides are done with it. Timers of a script are kept here so that
// they die with it.
class RawConnection final : private io::StreamEvents {
public:
    RawConnection(io::Loop& loop, RawHttpPeer& peer);
    void open(io::Socket socket);

    void send(std::string_view bytes);
    void close(bool reset = false) { stream_.close(reset); }
    void close_when_sent() { stream_.close_when_sent(); }
    // Runs `what` later, unless the connection has gone by then.
    void after(Duration wait, std::function<void()> what);
    bool open_for_sending() const { return stream_.is_open() && !ended_; }
    // The script has answered; the next request may be read.
    void next_request();

private:
    friend class RawHttpPeer;
    void on_bytes(Slice bytes) override;
    void on_end() override;
    void on_broken(Error) override { stream_.close(); }
    void on_closed() override;
    void take(Slice bytes);
    void append_body(Slice bytes) { request_.body.append(bytes.view()); }
    void run_timer();

    io::Loop& loop_;
    RawHttpPeer& peer_;
    io::Stream stream_;
    TextArena texts_;
    http::HeadCollector collector_;
    http::BodyReader reader_;
    http::RequestHead head_;
    RawRequest request_;
    SliceQueue ahead_;
    Timer timer_;
    std::function<void()> timed_;
    bool in_body_ = false;
    bool answering_ = false;
    bool ended_ = false;
};

class RawHttpPeer final : private io::OpTarget {
public:
    using Script = std::function<void(RawConnection&, const RawRequest&)>;

    RawHttpPeer(io::Loop& loop, Script script) : loop_(loop), script_(std::move(script)) {}

    void listen(const io::Address& address);
    // Closes everything. Run the loop until finished().
    void stop();
    bool finished() const { return !accept_.valid() && connections_.empty(); }
    std::uint64_t requests() const { return requests_; }
    // The client went away while this was being answered.
    std::function<void(const RawRequest&)> on_abandoned;

private:
    friend class RawConnection;
    void on_completion(io::Completion& completion) override;
    void closed(RawConnection& connection);

    io::Loop& loop_;
    Script script_;
    io::Socket listener_ = io::kNoSocket;
    io::OpId accept_;
    bool stopping_ = false;
    std::uint64_t requests_ = 0;
    std::list<std::unique_ptr<RawConnection>> connections_;
};

}  // namespace sluice::test
