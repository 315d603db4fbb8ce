// SPDX-License-Identifier: Apache-2.0
// Programs that a test starts, and always stops.
#pragma once

#include <sys/types.h>

#include <map>
#include <string>
#include <vector>

namespace sluice::test {

class Process {
public:
    // Standard output and error go to `log_path`. `environment` is added to our own.
    Process(std::vector<std::string> command, std::string log_path,
            std::map<std::string, std::string> environment = {});
    ~Process();  // kills it if it still runs
    Process(const Process&) = delete;
    Process& operator=(const Process&) = delete;

    pid_t pid() const { return pid_; }
    void signal(int number);
    // The exit status (128 + signal if it was killed), or -1 if it still runs after `seconds`.
    int wait(double seconds);
    bool running();
    std::string log() const;
    int open_descriptors() const;

private:
    pid_t pid_ = -1;
    int status_ = -1;
    std::string log_path_;
};

// A port that nobody listens on now, and that no connection is given.
int free_port();
bool is_port_free(int port);

// A blocking connection to a port of this host; -1: nobody listens. A receive ends after `seconds`.
// `receive_buffer`: of the socket, in bytes; 0: the system's.
int connect_to(int port, int seconds = 20, int receive_buffer = 0);

struct HttpAnswer {
    int status = 0;  // 0: no answer
    std::string head;
    std::string body;       // chunks joined
    bool complete = false;  // as its framing says
};

// One blocking request over a new connection; at most `seconds`.
HttpAnswer http_call(int port, const std::string& method, const std::string& path,
                     const std::string& body = {}, const std::string& fields = {},
                     double seconds = 10);
// Sends exactly `bytes` and reads until the peer closes or `seconds` are over.
std::string raw_call(int port, const std::string& bytes, double seconds, bool half_close = false);
bool wait_until_ok(int port, const std::string& path, double seconds);

}  // namespace sluice::test
