// SPDX-License-Identifier: Apache-2.0
// What goes wrong in a simulated world, and how often.
//
// A plain value: a world has one, a host and a link may have their own (SimWorld), and all may be
// changed while the world runs. Probabilities are per occasion, which each line names. The default
// is a perfect network. Threads: a value.
#pragma once

#include <chrono>
#include <cstdint>

#include "base/time.h"

namespace sluice::io::sim {

struct Faults {
    // -- of a host: what its kernel does with operations
    double split_read = 0;       // a receive gets fewer bytes than there are, down to one
    double short_send = 0;       // a send ends after a part, down to one byte
    double late_completion = 0;  // a completion comes up to `late_max` after the operation ended
    double reorder = 0;          // two completions of one turn change places
    double late_cancel = 0;  // a cancel takes effect up to `late_max` later, and may come too late
    double no_buffers = 0;   // a receive finds no page (ENOBUFS) and waits
    double accept_emfile = 0;  // an accept ends with -EMFILE, the connection stays in the backlog
    double accept_ends = 0;    // an accept ends with the connection it delivers (more = false)
    double freeze = 0;         // before a turn: the host gets no turns for up to `freeze_max`
    Duration late_max = std::chrono::milliseconds(5);
    Duration freeze_max = std::chrono::milliseconds(500);

    // -- of a link: what the network does
    double reset = 0;     // a segment is followed by a reset seen by both ends
    double lose_syn = 0;  // a connect's first packet is lost and sent again a second later
    double refuse = 0;    // a connect is refused although somebody listens
    Duration latency_min = std::chrono::microseconds(20);
    Duration latency_max = std::chrono::microseconds(200);
    // A peer whose kernel does not answer at all (cut link, no power) is given up after this, as
    // keep-alive and TCP_USER_TIMEOUT do it (io/uring/listener.cpp sets them).
    Duration silence_max = std::chrono::seconds(60);
    std::uint32_t window_bytes = 256 * 1024;  // sent and not yet read by the peer; then sends wait

    // -- of the world
    double clock_jump = 0;  // the clock goes up to `jump_max` further than the next event
    Duration jump_max = std::chrono::seconds(5);

    // Everything at once, at rates under which most connections still live for a while.
    static Faults stormy() {
        Faults f;
        f.split_read = 0.3;
        f.short_send = 0.2;
        f.late_completion = 0.3;
        f.reorder = 0.3;
        f.late_cancel = 0.5;
        f.no_buffers = 0.05;
        f.accept_emfile = 0.02;
        f.accept_ends = 0.1;
        f.freeze = 0.001;
        f.reset = 0.002;
        f.lose_syn = 0.02;
        f.refuse = 0.02;
        f.clock_jump = 0.0005;
        return f;
    }
};

}  // namespace sluice::io::sim
