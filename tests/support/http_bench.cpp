// SPDX-License-Identifier: Apache-2.0
#include "support/http_bench.h"

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <cstring>
#include <string>

namespace sluice::test {

namespace {

bool same_name(std::string_view a, std::string_view b) {
    return std::ranges::equal(a, b,
                              [](char x, char y) { return std::tolower(x) == std::tolower(y); });
}

// Reads a chunked body from the front of `bytes`, with what there is of it into `body` if that is
// wanted. False if it is not whole.
bool take_chunks(std::string_view& bytes, std::string* body) {
    std::string_view rest = bytes;
    while (true) {
        const auto line_end = rest.find("\r\n");
        if (line_end == std::string_view::npos) return false;
        const std::size_t size = std::stoul(std::string(rest.substr(0, line_end)), nullptr, 16);
        rest.remove_prefix(line_end + 2);
        if (body != nullptr) *body += rest.substr(0, size);
        if (rest.size() < size + 2 || rest.substr(size, 2) != "\r\n") return false;
        rest.remove_prefix(size + 2);
        if (size > 0) continue;
        bytes = rest;
        return true;
    }
}

// How long the answer at the front is, 0 if it is not whole. Reads as little as possible of it: it
// is asked often.
std::size_t whole_answer(std::string_view bytes) {
    const auto head_end = bytes.find("\r\n\r\n");
    if (head_end == std::string_view::npos) return 0;
    Answer answer;
    answer.head = bytes.substr(0, head_end + 4);
    const std::size_t head = answer.head.size();
    const int status = std::atoi(answer.head.c_str() + 9);
    if (status < 200 || status == 204 || status == 304) return head;
    std::string_view rest = bytes.substr(head);
    if (answer.field("Transfer-Encoding") == "chunked")
        return take_chunks(rest, nullptr) ? bytes.size() - rest.size() : 0;
    const std::string length = answer.field("Content-Length");
    if (length.empty()) return 0;
    const std::size_t size = std::stoul(length);
    return rest.size() >= size ? head + size : 0;
}

}  // namespace

std::string Answer::field(std::string_view name) const {
    std::string_view rest = head;
    rest.remove_prefix(std::min(rest.size(), rest.find("\r\n") + 2));
    while (!rest.empty()) {
        const std::string_view line = rest.substr(0, rest.find("\r\n"));
        rest.remove_prefix(line.size() + 2);
        const auto colon = line.find(": ");
        if (colon != std::string_view::npos && same_name(line.substr(0, colon), name))
            return std::string(line.substr(colon + 2));
    }
    return {};
}

std::vector<Answer> parse_answers(std::string_view bytes, bool ended,
                                  const std::vector<bool>& heads) {
    std::vector<Answer> answers;
    std::size_t finals = 0;
    while (!bytes.empty()) {
        Answer answer;
        const auto head_end = bytes.find("\r\n\r\n");
        answer.head = bytes.substr(0, head_end == std::string_view::npos ? head_end : head_end + 4);
        bytes.remove_prefix(answer.head.size());
        if (answer.head.size() > 12) answer.status = std::atoi(answer.head.c_str() + 9);
        answers.push_back(answer);
        Answer& now = answers.back();
        if (head_end == std::string_view::npos || !now.head.starts_with("HTTP/1.1 "))
            return answers;
        const bool to_head = now.status >= 200 && finals < heads.size() && heads[finals];
        finals += now.status >= 200;
        const std::string length = now.field("Content-Length");
        if (to_head || now.status < 200 || now.status == 204 || now.status == 304) {
            now.whole = true;
        } else if (now.field("Transfer-Encoding") == "chunked") {
            now.chunked = true;
            now.whole = take_chunks(bytes, &now.body);
            if (!now.whole) return answers;
        } else if (!length.empty()) {
            const std::size_t size = std::stoul(length);
            now.body = bytes.substr(0, size);
            bytes.remove_prefix(now.body.size());
            now.whole = now.body.size() == size;
        } else {
            now.body = bytes;
            now.whole = ended;
            return answers;
        }
    }
    return answers;
}

// ---- worlds

Bench::Bench(const io::sim::Faults& faults, std::uint64_t seed, std::size_t pool_bytes)
    : world({.seed = seed, .faults = faults, .pool_bytes = pool_bytes}),
      server_host(world.add_host("server")),
      client_host(world.add_host("client")),
      server_loop(server_host.io()),
      client_loop(client_host.io()),
      address(*io::Address::from_ip("127.0.0.1", 8000)) {
    server_host.attach(server_loop);
    client_host.attach(client_loop);
}

Bench::~Bench() {
    server_host.detach();
    client_host.detach();
    world.check_clean();
}

std::string ScriptedHandler::echo_of(std::string_view method, std::string_view path,
                                     std::string_view body) {
    return std::string(method) + " " + std::string(path) + "\n" + std::string(body);
}

void ScriptedHandler::on_head(http::ServerConnection& connection) {
    heads.emplace_back(connection.request().path);
    if (when_head) when_head(connection);
}

void ScriptedHandler::on_request(http::ServerConnection& connection) {
    const http::RequestHead& head = connection.request();
    requests.push_back(
        {std::string(head.method), std::string(head.path), std::string(connection.body().view())});
    last = &connection;
    if (when_request) return when_request(connection);
    const Request& now = requests.back();
    connection.respond(200, "text/plain", echo_of(now.method, now.path, now.body));
}

void ScriptedHandler::on_client_gone(http::ServerConnection& connection) {
    ++gone;
    if (last == &connection) last = nullptr;
    if (when_gone) when_gone(connection);
}

void ScriptedHandler::on_drained(http::ServerConnection& connection) {
    ++drains;
    if (when_drained) when_drained(connection);
}

ServerBench::ServerBench(const http::ServerOptions& options, const io::sim::Faults& faults,
                         std::uint64_t seed, std::uint32_t connections_max, std::size_t pool_bytes)
    : Bench(faults, seed, pool_bytes),
      server(std::make_unique<http::Server>(server_loop, handler, options, connections_max)) {
    server->add_listener(*server_loop.io().listen(address, false));
}

ServerBench::~ServerBench() {
    handler.when_gone = nullptr;
    for (const auto& client : clients) client->stream.close();
    server->shut_down();
    const bool ended = run([this] {
        return server->finished() &&
               std::ranges::all_of(clients, [](const auto& each) { return each->stream.idle(); });
    });
    ASSERT(ended);
    server.reset();
    clients.clear();
}

Recorder& ServerBench::connect() {
    clients.push_back(std::make_unique<Recorder>(client_loop));
    Recorder& client = *clients.back();
    const bool started = client.stream.connect(address).has_value();
    ASSERT(started);
    client.stream.set_reading(true);
    const bool connected = run([&] { return client.connected + client.breaks > 0; });
    ASSERT(connected);
    return client;
}

std::vector<Answer> ServerBench::ask(Recorder& client, std::string_view bytes,
                                     std::size_t answers) {
    if (!bytes.empty()) client.send(bytes);
    std::size_t& taken = taken_[&client];
    const std::size_t before = taken;
    std::size_t found = 0;
    const bool done = run([&] {
        const std::string_view all = client.received;
        while (const std::size_t size = whole_answer(all.substr(taken))) {
            found += all.substr(taken + 9, 3) >= "200";
            taken += size;
        }
        return client.ends + client.breaks > 0 || found >= answers;
    });
    if (!done || found != answers) return {};
    auto list = parse_answers(std::string_view(client.received).substr(before, taken - before));
    std::erase_if(list, [](const Answer& answer) { return answer.status < 200; });
    return list;
}

bool ServerBench::run_until_closed(Recorder& client) {
    return run([&] { return client.ends + client.breaks > 0; });
}

// ---- asking

void Asker::start(http::UpstreamPool& pool, std::string_view message, bool is_head) {
    pool_ = &pool;
    SliceQueue queue;
    // In two slices, as the proxy sends head and body.
    const std::size_t half = message.size() / 2;
    queue.push(slice_of(loop_.buffers(), message.substr(0, half)));
    queue.push(slice_of(loop_.buffers(), message.substr(half)));
    heads = ends = status = 0;
    failure.reset();
    body.clear();
    fields.clear();
    in_start_ = started_ = true;
    request.start(pool, std::move(queue), is_head);
    in_start_ = false;
}

void Asker::cancel() {
    request.cancel();
    started_ = false;
}

void Asker::event(const char* name) {
    const bool late = ends > 0 || failure.has_value() || !started_;
    if ((late || in_start_) && violation.empty())
        violation =
            std::string(name) + (in_start_ ? " from within start()" : " after the last event");
}

void Asker::on_response_head(const http::ResponseHead& head) {
    event("head");
    if (++heads > 1 && violation.empty()) violation = "a second head";
    status = head.status;
    for (std::size_t i = 0; i < head.fields.size(); ++i)
        fields +=
            std::string(head.fields[i].name) + ": " + std::string(head.fields[i].value) + "\n";
    if (when_head) when_head();
}

void Asker::on_response_body(Slice bytes) {
    event("body");
    if (heads == 0 && violation.empty()) violation = "a body before the head";
    if (bytes.empty() && violation.empty()) violation = "an empty piece of a body";
    body += bytes.view();
    if (when_body) when_body();
}

void Asker::on_response_end() {
    event("end");
    if (request.active() && violation.empty()) violation = "active at the end";
    ++ends;
    idle_at_end = pool_->idle();
    if (when_end) when_end();
}

void Asker::on_response_failed(const http::ClientFailure& failed) {
    event("failure");
    if (request.active() && violation.empty()) violation = "active after a failure";
    failure = failed;
    if (when_failed) when_failed();
}

ClientBench::ClientBench(const http::UpstreamOptions& options, const io::sim::Faults& faults,
                         std::uint64_t seed, bool unix_socket)
    : Bench(faults, seed) {
    const io::Address at = unix_socket ? *io::Address::from_unix_path("/run/upstream") : address;
    pool = std::make_unique<http::UpstreamPool>(client_loop, at, options);
    upstream = std::make_unique<Acceptor>(server_loop, at);
    upstream->when_accepted = [](Recorder& end) { end.stream.set_reading(true); };
}

ClientBench::~ClientBench() {
    for (const auto& each : askers) each->cancel();
    pool->drain();
    if (upstream->listening()) stop_listening();
    for (const auto& each : upstream->accepted) each->stream.close();
    const bool ended = run([this] {
        return pool->open() == 0 && std::ranges::all_of(upstream->accepted, [](const auto& each) {
                   return each->stream.idle();
               });
    });
    ASSERT(ended);
    askers.clear();
    pool.reset();
    upstream.reset();
}

Asker& ClientBench::asker() {
    askers.push_back(std::make_unique<Asker>(client_loop));
    return *askers.back();
}

Asker& ClientBench::start(std::string_view message, bool is_head) {
    Asker& made = asker();
    made.start(*pool, message, is_head);
    return made;
}

Recorder& ClientBench::upstream_end(std::size_t index) {
    const bool came = run([&] { return upstream_ends() > index; });
    ASSERT(came);
    return *upstream->accepted[index];
}

bool ClientBench::run_until_received(std::size_t index, std::size_t bytes) {
    return run([&] {
        return upstream_ends() > index && upstream->accepted[index]->received.size() >= bytes;
    });
}

bool ClientBench::run_until_over(Asker& asker) {
    return run([&] { return asker.over(); });
}

void ClientBench::stop_listening() {
    upstream->stop();
    const bool stopped = run([this] { return !upstream->listening(); });
    ASSERT(stopped);
}

}  // namespace sluice::test
