// SPDX-License-Identifier: Apache-2.0
// The cheapest upstream there can be: a P and a D that answer from memory, the same for all peers.
//
// It finds the end of a request by its Content-Length (or the last chunk) and looks at nothing else
// but the path: P answers completions with kv_transfer_params; D answers /v1/completions whole and
// /v1/chat/completions as a stream of --events events, one every --interval-us. The first event
// comes with the head, the second at a random point of the interval, so that streams do not march
// in step. One thread, epoll.
#include <sys/epoll.h>
#include <time.h>

#include <queue>
#include <string_view>
#include <vector>

#include "common.h"

using namespace sluice::floor_limit;

namespace {

struct Connection {
    int fd = -1;
    bool prefill = false;
    bool is_listener = false;
    bool in_body = false;
    bool chunked = false;
    bool chat = false;
    std::uint64_t generation = 0;
    std::size_t body_left = 0;
    long events_left = 0;
    std::string head;
    std::string tail;  // of a chunked body: its last bytes
};

struct Due {
    std::int64_t at;
    Connection* connection;
    std::uint64_t generation;
    bool operator<(const Due& other) const { return at > other.at; }  // the soonest on top
};

long events_wanted;
std::int64_t interval_ns;
int epoll_fd;
std::priority_queue<Due> due;
std::uint64_t random_state = 88172645463325252ULL;
std::string event_chunk, last_chunk, stream_head, plain_answer, prefill_answer, model_answer;
char scratch[256 * 1024];

std::int64_t now_ns() {
    timespec t{};
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1'000'000'000LL + t.tv_nsec;
}

std::uint64_t next_random() {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    return random_state ^= random_state << 17;
}

std::string whole(const std::string& body) {
    return "HTTP/1.1 200 OK\r\ndate: Wed, 25 Nov 2026 12:00:00 GMT\r\nserver: canned\r\n"
           "content-type: application/json\r\ncontent-length: " +
           std::to_string(body.size()) + "\r\n\r\n" + body;
}

std::string chunk(const std::string& data) {
    char size[32];
    std::snprintf(size, sizeof size, "%zx\r\n", data.size());
    return size + data + "\r\n";
}

void make_answers() {
    const std::string start =
        R"({"id":"cmpl-0123456789abcdef","object":"text_completion","created":1795600000,)"
        R"("model":"m","choices":[{"index":0,"text":" and so on and so on","logprobs":null,)"
        R"("finish_reason":"length","stop_reason":null}],"usage":{"prompt_tokens":35,)"
        R"("total_tokens":51,"completion_tokens":16})";
    plain_answer = whole(start + "}");
    prefill_answer =
        whole(start + R"(,"kv_transfer_params":{"do_remote_prefill":true,"do_remote_decode":false,)"
                      R"("remote_block_ids":[1,2,3,4,5,6,7,8],"remote_engine_id":)"
                      R"("5f1c9c1e-8a52-4b8e-9e55-aa1f0b6f5c11","remote_host":"127.0.0.1",)"
                      R"("remote_port":5600,"tp_size":1}})");
    model_answer = whole(
        R"({"object":"list","version":"0.23.0","model_path":"m","status":"healthy","data":[)"
        R"({"id":"m","object":"model","created":1,"owned_by":"sglang","max_model_len":4194304}]})");
    stream_head =
        "HTTP/1.1 200 OK\r\ndate: Wed, 25 Nov 2026 12:00:00 GMT\r\nserver: canned\r\n"
        "content-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n";
    event_chunk = chunk(
        R"(data: {"id":"chatcmpl-0123456789abcdef","object":"chat.completion.chunk",)"
        R"("created":1795600000,"model":"m","choices":[{"index":0,"delta":{"content":" word"},)"
        "\"logprobs\":null,\"finish_reason\":null}]}\n\n");
    last_chunk = event_chunk + chunk("data: [DONE]\n\n") + "0\r\n\r\n";
}

void put(Connection& c, std::string_view bytes) {
    // Answers are small and their readers keep up; one that does not is cut off.
    if (::send(c.fd, bytes.data(), bytes.size(), MSG_NOSIGNAL) !=
        static_cast<ssize_t>(bytes.size()))
        ::shutdown(c.fd, SHUT_RDWR);
}

void answer(Connection& c) {
    c.in_body = false;
    c.head.clear();
    c.tail.clear();
    if (c.prefill) return put(c, prefill_answer);
    if (!c.chat) return put(c, plain_answer);
    put(c, stream_head + event_chunk);
    c.events_left = events_wanted - 1;
    if (c.events_left <= 0) return put(c, last_chunk);
    const std::int64_t phase =
        static_cast<std::int64_t>(next_random() % static_cast<std::uint64_t>(interval_ns + 1));
    due.push({now_ns() + interval_ns / 2 + phase, &c, c.generation});
}

bool holds(std::string_view text, std::string_view part) {
    return text.find(part) != std::string_view::npos;
}

void take_head(Connection& c) {
    std::string lower = c.head;
    for (char& letter : lower)
        letter = static_cast<char>(letter | (letter >= 'A' && letter <= 'Z' ? 32 : 0));
    const std::string_view line = std::string_view(lower).substr(0, lower.find('\r'));
    if (line.starts_with("get ")) {
        c.head.clear();
        return put(c, model_answer);
    }
    c.in_body = true;
    c.chat = holds(line, "chat/completions");
    c.chunked = holds(lower, "\r\ntransfer-encoding: chunked");
    const auto at = lower.find("\r\ncontent-length:");
    c.body_left = at == std::string::npos ? 0 : std::strtoull(lower.c_str() + at + 17, nullptr, 10);
}

void take_body(Connection& c, std::string_view bytes) {
    if (c.chunked) {
        c.tail.append(bytes);
        if (c.tail.size() > 8) c.tail.erase(0, c.tail.size() - 8);
        if (c.tail.ends_with("0\r\n\r\n")) answer(c);
        return;
    }
    c.body_left -= std::min(c.body_left, bytes.size());
    if (c.body_left == 0) answer(c);
}

void take(Connection& c, std::string_view bytes) {
    if (c.in_body) return take_body(c, bytes);
    const std::size_t before = c.head.size();
    c.head.append(bytes.substr(0, 16384));
    const auto end = c.head.find("\r\n\r\n", before > 3 ? before - 3 : 0);
    if (end == std::string::npos) return;
    const std::size_t in_this = end + 4 - before;
    c.head.resize(end + 4);
    take_head(c);
    if (c.in_body) take_body(c, bytes.substr(in_this));
}

// False: it has gone.
bool read_from(Connection& c) {
    const ssize_t got = ::recv(c.fd, scratch, sizeof scratch, 0);
    if (got > 0) take(c, {scratch, static_cast<std::size_t>(got)});
    return got > 0 || (got < 0 && errno == EAGAIN);
}

// The time of the next one.
std::int64_t run_due(std::int64_t now) {
    while (!due.empty() && due.top().at <= now) {
        const Due next = due.top();
        due.pop();
        Connection& c = *next.connection;
        if (c.generation != next.generation) continue;  // gone, and another has its place
        if (--c.events_left <= 0) {
            put(c, last_chunk);
            continue;
        }
        put(c, event_chunk);
        due.push({std::max(next.at + interval_ns, now), &c, c.generation});
    }
    return due.empty() ? INT64_MAX : due.top().at;
}

void watch(Connection* c) {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.ptr = c;
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c->fd, &event);
}

}  // namespace

int main(int argc, char** argv) {
    auto flags = parse_flags(
        argc, argv,
        {{"--prefill", 0}, {"--decode", 0}, {"--events", 64}, {"--interval-us", 10'000}});
    events_wanted = flags["--events"];
    interval_ns = flags["--interval-us"] * 1000;
    prepare_process();
    make_answers();
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    Connection listeners[2];
    for (const bool prefill : {true, false}) {
        Connection& listener = listeners[prefill ? 0 : 1];
        const long port = flags[prefill ? "--prefill" : "--decode"];
        if (port == 0) continue;
        listener.fd = listen_on(port, SOCK_NONBLOCK);
        listener.is_listener = true;
        listener.prefill = prefill;
        watch(&listener);
    }
    std::vector<Connection*> spare;  // reused, so that a late Due finds a connection, not nothing
    std::vector<epoll_event> events(1024);
    while (true) {
        const std::int64_t next = run_due(now_ns());
        timespec wait{};
        const std::int64_t left =
            next == INT64_MAX ? 1'000'000'000 : std::max<std::int64_t>(0, next - now_ns());
        wait.tv_sec = left / 1'000'000'000;
        wait.tv_nsec = left % 1'000'000'000;
        const int count =
            epoll_pwait2(epoll_fd, events.data(), static_cast<int>(events.size()), &wait, nullptr);
        for (int i = 0; i < count; ++i) {
            auto* c = static_cast<Connection*>(events[static_cast<std::size_t>(i)].data.ptr);
            if (c->is_listener) {
                int fd = -1;
                while ((fd = ::accept4(c->fd, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC)) >=
                       0) {
                    auto* fresh = spare.empty() ? new Connection : spare.back();
                    if (!spare.empty()) spare.pop_back();
                    const std::uint64_t generation = fresh->generation + 1;
                    *fresh = Connection{};
                    fresh->generation = generation;
                    fresh->fd = fd;
                    fresh->prefill = c->prefill;
                    watch(fresh);
                }
                continue;
            }
            if (!read_from(*c)) {
                ::close(c->fd);
                ++c->generation;
                spare.push_back(c);
            }
        }
    }
}
