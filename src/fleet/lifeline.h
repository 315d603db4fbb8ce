// SPDX-License-Identifier: Apache-2.0
// A connection on which nothing is ever said: its end tells at once that the other side has died.
//
// A process that dies closes its sockets, and that arrives long before a new one can listen in its
// place, while the next probe may be seconds away. It is no proof of life: a host without power
// closes nothing, and a server may end a silent connection whenever it likes. So it only ever says
// "look again".
// Threads: one, the loop's. Owns: the connection.
#pragma once

#include "base/timer_wheel.h"
#include "io/stream.h"

namespace sluice::fleet {

class Lifeline final : private io::StreamEvents {
public:
    // `broke`: the connection has ended, or could not be made.
    Lifeline(io::Loop& loop, Delegate<void()> broke);

    // Connects if it is not connected, but not more often than every kRest unless the other side
    // has `a_new_life`. A connection to another address is given up for it.
    void hold(const io::Address& peer, bool a_new_life);
    // No event follows.
    void let_go();
    bool finished() const { return stream_.idle(); }

private:
    // Some servers do not like silent connections.
    static constexpr Duration kRest = std::chrono::seconds(1);

    void on_bytes(Slice) override {}
    void on_end() override { over(); }
    void on_broken(Error) override { over(); }
    void on_closed() override {}
    void connect();
    void over();

    io::Loop& loop_;
    Delegate<void()> broke_;
    io::Stream stream_;
    io::Address peer_;
    Instant tried_at_{};
    Timer rest_;
    bool tried_ = false;
};

}  // namespace sluice::fleet
