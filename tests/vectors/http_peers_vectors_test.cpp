// SPDX-License-Identifier: Apache-2.0
// The HTTP vectors over connections: requests to a real Server, answers to a real UpstreamPool, on the simulated I/O.
// What must come: the answers in order, and the connection kept or closed.

#include <gtest/gtest.h>

#include "support/http_bench.h"
#include "support/http_vectors.h"

namespace sluice::test {
namespace {

using Kind = Verdict::Kind;

// How the bytes travel.
struct Travel {
    const char* name;
    io::sim::Faults faults;
    std::uint64_t seed = 1;
    bool drip = false;  // one byte at a time, each in a segment of its own
};

std::vector<Travel> travels() {
    io::sim::Faults cut;
    cut.split_read = 1;
    cut.short_send = 0.3;
    cut.late_completion = 0.3;
    cut.reorder = 0.3;
    return {{"whole", {}}, {"cut, seed 2", cut, 2}, {"cut, seed 3", cut, 3}, {"dripping", {}, 4, true}};
}

constexpr std::size_t kDripMax = 1500;

void send(Bench& bench, Recorder& from, const HttpVector& vector, bool drip) {
    if (!drip) return from.send(vector.bytes);
    for (const char c : vector.bytes) {
        if (from.ends + from.breaks > 0) return;
        from.send(std::string_view(&c, 1));
        bench.run_for(std::chrono::milliseconds(1));
    }
}

void check_request(const HttpVector& vector, const Travel& travel) {
    http::ServerOptions options;
    options.body_bytes_max = kVectorBodyMax;
    ServerBench bench(options, travel.faults, travel.seed);
    Recorder& client = bench.connect();

    std::vector<bool> heads;
    std::size_t wanted = 0;
    bool may_continue = false;
    for (const Verdict& verdict : vector.verdicts) {
        heads.push_back(verdict.kind == Kind::Accept && verdict.method == "HEAD");
        wanted += verdict.kind != Kind::More;
        may_continue |= verdict.expect;
    }
    const Verdict& last = vector.verdicts.back();
    const bool closes = last.kind == Kind::Reject || (last.kind == Kind::Accept && !last.keep);

    send(bench, client, vector, travel.drip);
    bench.run_for(std::chrono::milliseconds(200));
    EXPECT_EQ(client.breaks, 0) << "the answer has to be readable";
    EXPECT_EQ(client.ends, closes ? 1 : 0);

    auto answers = parse_answers(client.received, client.ends > 0, heads);
    const auto interim = std::erase_if(answers, [](const Answer& answer) { return answer.status == 100; });
    const bool in_pieces = travel.drip || travel.faults.split_read > 0;
    EXPECT_TRUE(interim == 0 || (may_continue && in_pieces)) << interim;
    ASSERT_EQ(answers.size(), wanted) << client.received.substr(0, 2000);
    std::size_t accepted = 0;
    for (std::size_t i = 0; i < wanted; ++i) {
        const Verdict& verdict = vector.verdicts[i];
        const bool ok = verdict.kind == Kind::Accept;
        accepted += ok;
        EXPECT_EQ(answers[i].status, ok ? 200 : verdict.status) << answers[i].head << answers[i].body;
        EXPECT_TRUE(answers[i].whole);
        if (heads[i]) {
            EXPECT_EQ(answers[i].body, "");
        } else if (ok) {
            EXPECT_EQ(answers[i].body, ScriptedHandler::echo_of(verdict.method, verdict.path, verdict.body));
        } else {
            EXPECT_TRUE(answers[i].body.starts_with("{\"error\":{\"message\":")) << answers[i].body;
        }
        const bool said_close = answers[i].field("Connection") == "close";
        EXPECT_EQ(said_close, closes && i + 1 == wanted);
    }
    EXPECT_EQ(bench.handler.requests.size(), accepted);
    EXPECT_EQ(bench.handler.refused.size(), wanted - accepted);
    EXPECT_EQ(bench.handler.gone, 0);
}

void check_answer(const HttpVector& vector, const Travel& travel) {
    ClientBench bench({}, travel.faults, travel.seed);
    Asker& asker = bench.start(vector.to_head ? "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n" : kGet, vector.to_head);
    ASSERT_TRUE(bench.run_until_received(0, kGet.size()));
    Recorder& upstream = bench.upstream_end();
    send(bench, upstream, vector, travel.drip);
    bench.run_for(std::chrono::milliseconds(200));
    const Verdict& last = vector.verdicts.back();
    EXPECT_EQ(bench.pool->idle(), last.kind == Kind::Accept && last.reuse ? 1U : 0U);
    // What has been read to its end cannot be told from this by closing now.
    upstream.close();
    ASSERT_TRUE(bench.run_until_over(asker));
    EXPECT_EQ(asker.violation, "");
    if (last.kind == Kind::Accept) {
        EXPECT_FALSE(asker.failure);
        EXPECT_EQ(asker.heads, 1);
        EXPECT_EQ(asker.status, last.status);
        EXPECT_EQ(asker.body, last.body);
        return;
    }
    ASSERT_TRUE(asker.failure);
    EXPECT_EQ(asker.failure->kind, last.kind == Kind::Cut ? http::ClientFailure::Kind::Closed
                                                          : http::ClientFailure::Kind::Protocol);
    EXPECT_EQ(asker.failure->answered, !vector.bytes.empty());
    EXPECT_TRUE(asker.failure->delivered);
}

TEST(HttpPeersVectors, Requests) {
    for (const Travel& travel : travels())
        for (const HttpVector& vector : load_http_vectors()) {
            if (vector.is_copy || !vector.is_request || (travel.drip && vector.bytes.size() > kDripMax)) continue;
            SCOPED_TRACE(vector.place + " " + vector.name + ", " + travel.name);
            check_request(vector, travel);
        }
}

TEST(HttpPeersVectors, Answers) {
    for (const Travel& travel : travels())
        for (const HttpVector& vector : load_http_vectors()) {
            if (vector.is_copy || vector.is_request || (travel.drip && vector.bytes.size() > kDripMax)) continue;
            SCOPED_TRACE(vector.place + " " + vector.name + ", " + travel.name);
            check_answer(vector, travel);
        }
}

}  // namespace
}  // namespace sluice::test
