// SPDX-License-Identifier: Apache-2.0
// One of a load thread's request slots: a request on its way, and what its answer said when.
//
// Times count from when the request was meant to be sent, not from when it was: a target that is
// slow, and keeps later requests waiting, does not hide that wait (coordinated omission). Threads:
// one. Owns: the request in flight.
#pragma once

#include <optional>

#include "base/timer_wheel.h"
#include "http/client.h"
#include "load/request_maker.h"
#include "load/stream_reader.h"
#include "load/tally.h"

namespace sluice::load {

class Call;

// What the calls of a thread share.
class CallOwner {
public:
    virtual void call_ended(Call& call, bool connected) = 0;

protected:
    ~CallOwner() = default;
};

struct CallShared {
    const LoadOptions& options;
    io::Loop& loop;
    http::UpstreamPool& pool;
    json::Scanner& scanner;
    Tally& tally;
    CallOwner& owner;
};

class Call final : private http::ResponseEvents {
public:
    explicit Call(CallShared& shared);

    // `counts`: the warm-up is over.
    void start(SliceQueue message, Instant meant_at, bool counts);
    // The run is over: it counts as unfinished.
    void cut();
    bool active() const { return active_; }

private:
    void on_response_head(const http::ResponseHead& head) override;
    void on_response_body(Slice bytes) override;
    void on_response_end() override;
    void on_response_failed(const http::ClientFailure& failure) override;
    void on_timeout();
    void note(StreamReader::Seen seen);
    void end(std::optional<Failure> failure);

    CallShared& shared_;
    http::ClientRequest request_;
    Timer timeout_;
    StreamReader stream_;
    Instant meant_at_{};
    Instant last_event_{};
    std::uint16_t status_ = 0;
    bool active_ = false;
    bool counts_ = false;
    bool is_stream_ = false;
    bool error_event_ = false;
};

}  // namespace sluice::load
