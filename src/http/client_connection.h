// SPDX-License-Identifier: Apache-2.0
// One connection to an endpoint: sends a request, reads its answer, goes back to the pool. Private
// to client.cpp.
#pragma once

#include "http/client.h"

namespace sluice::http {

class ClientConnection final : private io::StreamEvents, public ListNode<ClientConnection> {
public:
    explicit ClientConnection(UpstreamPool& pool);

    void connect();
    void begin(ClientRequest& request, bool reused);
    void set_reading(bool wanted) { stream_.set_reading(wanted); }
    // The request has lost interest.
    void abandon();
    void retire() { close(); }
    void go_idle();
    const io::Address& address() const { return address_; }

private:
    enum class State : std::uint8_t { Connecting, Waiting, Body, Idle, Closing };

    void on_connected() override;
    void on_bytes(Slice bytes) override;
    void on_end() override;
    void on_broken(Error error) override;
    void on_sent() override;
    void on_closed() override;

    void take_head_bytes(Slice bytes);
    void head_complete(Slice rest);
    void take_body_bytes(Slice bytes);
    void pass_body(Slice bytes);
    void answer_complete(bool reusable);
    void fail(ClientFailure::Kind kind, Error error);
    bool may_have_been_read(Error error);
    void replace_stale();
    void report_unconnected();
    void on_deadline();
    void close();

    UpstreamPool& pool_;
    io::Address address_;
    io::Stream stream_;
    Timer deadline_;  // connecting, or idle
    HeadCollector collector_;
    BodyReader reader_;
    ResponseHead head_;
    ClientRequest* request_ = nullptr;
    ClientFailure failed_{ClientFailure::Kind::Connect};
    io::Deferred report_;
    State state_ = State::Connecting;
    std::uint64_t sent_before_ = 0;  // of earlier requests
    int interim_ = 0;
    bool reused_ = false;
    bool answered_ = false;
    bool ended_ = false;  // the peer sends no more, and a send is still under way
};

}  // namespace sluice::http
