// SPDX-License-Identifier: Apache-2.0
// A simulated world with one host that serves and one that asks, for tests of http::Server and
// http::UpstreamPool.
//
//   ServerBench   a Server with a scripted handler; clients are raw streams that send what the test
//   says ClientBench   an UpstreamPool; the server is raw streams that answer what the test says
//
// When a bench is destroyed everything is closed, and then nothing may be left on either host: no
// operation, socket or buffer. Threads: one.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "http/client.h"
#include "http/server.h"
#include "io/sim/sim_world.h"
#include "unit/io/recorder.h"

namespace sluice::test {

using io::test::Acceptor;
using io::test::pattern;
using io::test::Recorder;
using io::test::slice_of;

// An answer as a client reads it; not parsed by the code under test.
struct Answer {
    int status = 0;
    std::string head;  // with its empty line
    std::string body;
    bool chunked = false;
    bool whole = false;

    std::string field(std::string_view name) const;  // empty if it is not there
};

// What a client makes of `bytes`. `heads`: which of the final answers are to HEAD. An answer that
// ends with the connection is whole if `ended`.
std::vector<Answer> parse_answers(std::string_view bytes, bool ended = false,
                                  const std::vector<bool>& heads = {});

// Two hosts, and the loops on them.
class Bench {
public:
    explicit Bench(const io::sim::Faults& faults = {}, std::uint64_t seed = 1,
                   std::size_t pool_bytes = 64 << 20);
    ~Bench();

    io::sim::SimWorld world;
    io::sim::SimHost& server_host;
    io::sim::SimHost& client_host;
    io::Loop server_loop;
    io::Loop client_loop;
    const io::Address address;

    // Runs until `done`; false, with the last events printed, if that does not happen within a
    // virtual hour.
    [[nodiscard]] bool run(const std::function<bool()>& done) { return world.run_until(done); }
    void run_for(Duration time) { world.run_for(time); }
    // Lets what is on its way arrive.
    void settle() { world.run_for(std::chrono::milliseconds(20)); }
};

// Notes what it is told, and answers as the test says; with an echo if it says nothing.
class ScriptedHandler final : public http::RequestHandler {
public:
    struct Request {
        std::string method;
        std::string path;
        std::string body;
    };

    std::function<void(http::ServerConnection&)> when_head;
    std::function<void(http::ServerConnection&)> when_request;
    std::function<void(http::ServerConnection&)> when_gone;
    std::function<void(http::ServerConnection&)> when_drained;

    std::vector<std::string> heads;  // paths
    std::vector<Request> requests;
    std::vector<int> refused;
    int gone = 0;
    int drains = 0;
    http::ServerConnection* last = nullptr;

    static std::string echo_of(std::string_view method, std::string_view path,
                               std::string_view body);

private:
    void on_head(http::ServerConnection& connection) override;
    void on_request(http::ServerConnection& connection) override;
    void on_client_gone(http::ServerConnection& connection) override;
    void on_drained(http::ServerConnection& connection) override;
    void on_refused(std::uint16_t status) override { refused.push_back(status); }
};

class ServerBench : public Bench {
public:
    explicit ServerBench(const http::ServerOptions& options = {},
                         const io::sim::Faults& faults = {}, std::uint64_t seed = 1,
                         std::uint32_t connections_max = 1000, std::size_t pool_bytes = 64 << 20);
    ~ServerBench();

    ScriptedHandler handler;
    std::unique_ptr<http::Server> server;
    std::deque<std::unique_ptr<Recorder>> clients;

    // A connection, made and reading.
    Recorder& connect();
    // Sends, and runs until that many more final answers are whole; not to HEAD. Empty if they do
    // not come.
    std::vector<Answer> ask(Recorder& client, std::string_view bytes, std::size_t answers = 1);
    bool run_until_closed(Recorder& client);

private:
    std::map<Recorder*, std::size_t> taken_;  // by ask(), of what was received
};

// A request of the pool's user, with what came back.
class Asker final : public http::ResponseEvents {
public:
    explicit Asker(io::Loop& loop) : loop_(loop), request(*this) {}

    io::Loop& loop_;
    http::ClientRequest request;
    int heads = 0;
    int ends = 0;
    std::optional<http::ClientFailure> failure;
    int status = 0;
    std::string body;
    std::string fields;           // of the head, as "Name: value\n"
    std::size_t idle_at_end = 0;  // the pool's idle connections when the answer ended
    std::string violation;        // the first promise that was not kept
    std::function<void()> when_head;
    std::function<void()> when_body;
    std::function<void()> when_end;
    std::function<void()> when_failed;

    void start(http::UpstreamPool& pool, std::string_view message, bool is_head = false);
    void cancel();
    bool over() const { return ends > 0 || failure.has_value(); }

private:
    void on_response_head(const http::ResponseHead& head) override;
    void on_response_body(Slice bytes) override;
    void on_response_end() override;
    void on_response_failed(const http::ClientFailure& failed) override;
    void event(const char* name);

    http::UpstreamPool* pool_ = nullptr;
    bool in_start_ = false;
    bool started_ = false;
};

class ClientBench : public Bench {
public:
    explicit ClientBench(const http::UpstreamOptions& options = {},
                         const io::sim::Faults& faults = {}, std::uint64_t seed = 1,
                         bool unix_socket = false);
    ~ClientBench();

    std::unique_ptr<http::UpstreamPool> pool;
    std::unique_ptr<Acceptor> upstream;
    std::deque<std::unique_ptr<Asker>> askers;

    Asker& asker();
    Asker& start(std::string_view message, bool is_head = false);
    // The upstream's end of its connection number `index`.
    Recorder& upstream_end(std::size_t index = 0);
    std::size_t upstream_ends() const { return upstream->accepted.size(); }
    [[nodiscard]] bool run_until_received(std::size_t index, std::size_t bytes);
    [[nodiscard]] bool run_until_over(Asker& asker);
    // Nobody listens any more; what is connected stays so.
    void stop_listening();
};

inline constexpr std::string_view kGet = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
inline constexpr std::string_view kOk = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

}  // namespace sluice::test
