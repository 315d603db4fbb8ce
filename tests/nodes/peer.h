// SPDX-License-Identifier: Apache-2.0
// A Side in a process of its own, which a test drives, stops, kills and starts again.
//
// The test binary starts itself with --peer; commands and answers are one line each, a packet over
// a socket pair. Everything waits with a limit.
#pragma once

#include <sys/types.h>

#include <string>

#include "nodes/side.h"

namespace sluice::kv::test {

class Peer {
public:
    Peer(Role role, const std::string& transport, std::uint16_t port = 0);
    ~Peer();
    Peer(const Peer&) = delete;
    Peer& operator=(const Peer&) = delete;

    const std::string& address() const { return address_; }

    // address | fill PATTERN | publish ID FIRST COUNT | release ID | pull ID ADDRESS FIRST COUNT
    // | begin ID FIRST COUNT: publishes the first layer; finish ID: the others
    // | end FIRST COUNT PATTERN: waits for that pull; "CODE LANDED WRONG" (bytes, of what landed)
    // Empty: it is dead, or gave no answer in time.
    std::string ask(const std::string& command);

    void stop();
    void resume();
    void kill();

private:
    pid_t pid_ = -1;
    int socket_ = -1;
    std::string address_;
};

int run_peer(int argc, char** argv);

}  // namespace sluice::kv::test
