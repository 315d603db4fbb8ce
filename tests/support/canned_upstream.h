// SPDX-License-Identifier: Apache-2.0
// An upstream server over plain sockets that says what a test tells it to, rightly or wrongly, and
// when. GET (the proxy's probes) is always answered well.
//
// Threads: one that accepts and one a connection, all its own; the script runs on them. Owns: its
// sockets, which the destructor closes, whatever the scripts are waiting for.
#pragma once

#include <atomic>
#include <functional>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace sluice::test {

class CannedUpstream {
public:
    // A connection on which a POST's head has come.
    class Visit {
    public:
        const std::string& path() const { return path_; }
        const std::string& head() const { return head_; }  // with its empty line
        // The whole body, as Content-Length says; "" if the peer left before.
        std::string read_body();
        // At most that many bytes of it, so that the rest stays unread.
        void read_some(std::size_t bytes);
        void send(std::string_view bytes);
        // Until the peer closes.
        void wait_for_end();

    private:
        friend class CannedUpstream;
        Visit(int fd, int stop) : fd_(fd), stop_(stop) {}
        bool receive();
        bool read_head();
        bool take_head();

        int fd_;
        int stop_;
        std::string ahead_;
        std::string head_;
        std::string path_;
        std::size_t body_bytes_ = 0;
    };
    // True: the connection stays for the next request. False: it is closed.
    using Script = std::function<bool(Visit&)>;

    explicit CannedUpstream(Script script = {});
    ~CannedUpstream();
    CannedUpstream(const CannedUpstream&) = delete;
    CannedUpstream& operator=(const CannedUpstream&) = delete;

    // Of the requests from now on.
    void set(Script script);
    int port() const { return port_; }
    std::string url() const { return "http://127.0.0.1:" + std::to_string(port_); }
    int posts() const { return posts_; }

    static std::string ok(std::string_view body, std::string_view type = "application/json");

private:
    void accept_all();
    void serve(int fd);

    std::mutex mutex_;
    Script script_;
    int listener_ = -1;
    int stop_ = -1;  // readable from the destructor on
    int port_ = 0;
    std::atomic<int> posts_{0};
    std::vector<std::jthread> visits_;
    std::jthread accepting_;
};

}  // namespace sluice::test
