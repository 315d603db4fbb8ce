// SPDX-License-Identifier: Apache-2.0
// The HTTP vectors through the whole proxy on the simulated I/O: requests from a client, with an
// engine behind it that echoes what it got; answers from an engine, with a client in front that
// must see the right one, an error, or a connection that visibly broke off.
#include <gtest/gtest.h>

#include <algorithm>
#include <optional>

#include "at_proxy.h"
#include "support/proxy_bench.h"
#include "travel.h"

namespace sluice::test {
namespace {

using namespace std::chrono_literals;
using Kind = Verdict::Kind;

// Behind it an engine that echoes what it got, or answers what the test says.
class VectorBench : public ProxyBench {
public:
    explicit VectorBench(const io::sim::Faults& faults = {}, std::uint64_t seed = 1)
        : ProxyBench({.faults = faults, .seed = seed, .body_bytes_max = kVectorBodyMax}) {
        decode = [this](RawConnection& connection, const RawRequest& request) {
            asked.push_back(request);
            if (!canned) {
                connection.send(ok_answer(
                    ScriptedHandler::echo_of(request.method, request.path, request.body)));
                connection.next_request();
            } else {
                connection.send(*canned);
                connection.close_when_sent();
            }
        };
    }

    std::optional<std::string> canned;  // the decode's answer; none: an echo
    std::vector<RawRequest> asked;      // of the decode
};

std::vector<Travel> travels() { return {{"whole", {}}, cut_up("cut", 2)}; }

void check_request(VectorBench& bench, const HttpVector& vector) {
    const AtProxy expected(vector);
    bench.asked.clear();
    const auto client = bench.connect();
    client->send(expected.bytes);
    const auto over = [&] {
        if (client->ends + client->breaks > 0) return true;
        const auto answers = final_answers(client->received, false, expected);
        return !expected.closes && answers.size() >= expected.answers.size() &&
               std::ranges::all_of(answers, &Answer::whole) && client->stream.unsent() == 0;
    };
    ASSERT_TRUE(bench.run(over));
    bench.run_for(50ms);  // nothing may come behind it

    EXPECT_TRUE(client->breaks == 0 || expected.may_reset) << "the answer has to be readable";
    EXPECT_EQ(client->ends + client->breaks, expected.closes ? 1 : 0);
    const auto answers = final_answers(client->received, client->ends > 0, expected);
    ASSERT_EQ(answers.size(), expected.answers.size()) << client->received.substr(0, 2000);
    std::size_t forwarded = 0;
    for (std::size_t i = 0; i < answers.size(); ++i) {
        const AtProxy::Expected& wanted = expected.answers[i];
        EXPECT_EQ(answers[i].status, wanted.forwarded() ? 200 : wanted.status)
            << answers[i].head << answers[i].body;
        EXPECT_TRUE(answers[i].whole);
        if (wanted.to_head) {
            EXPECT_EQ(answers[i].body, "");
        } else if (wanted.forwarded()) {
            EXPECT_EQ(answers[i].body, ScriptedHandler::echo_of("POST", wanted.path, wanted.body));
        } else if (wanted.status >= 400) {
            EXPECT_TRUE(answers[i].body.starts_with("{\"error\":{\"message\":")) << answers[i].body;
        }
        forwarded += wanted.forwarded();
    }
    EXPECT_EQ(bench.asked.size(), forwarded) << "an engine was asked something else";
    bench.part(*client);
}

TEST(HttpProxyVectors, Requests) {
    for (const Travel& travel : travels()) {
        VectorBench bench(travel.faults, travel.seed);
        int forwarded = 0;
        for (const HttpVector& vector : load_http_vectors()) {
            if (vector.is_copy || !vector.is_request) continue;
            SCOPED_TRACE(vector.place + " " + vector.name + ", " + travel.name);
            check_request(bench, vector);
            forwarded += static_cast<int>(bench.asked.size());
        }
        EXPECT_GE(forwarded, 20) << "bodies have to reach an engine for this to mean much";
    }
}

constexpr std::string_view kTokenize = R"({"model":"m","prompt":"x"})";
constexpr std::string_view kChat = R"({"model":"m","messages":[{"role":"user","content":"x"}]})";

std::string post(std::string_view path, std::string_view body) {
    return "POST " + std::string(path) +
           " HTTP/1.1\r\nHost: a\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" +
           std::string(body);
}

void check_answer(VectorBench& bench, const HttpVector& vector, bool with_prefill) {
    bench.canned = vector.bytes;
    const auto client = bench.connect();
    client->send(with_prefill ? post("/v1/chat/completions", kChat) : post("/tokenize", kTokenize));
    ASSERT_TRUE(bench.run([&] {
        const auto answers = parse_answers(client->received, client->ends > 0);
        return client->ends + client->breaks > 0 || (!answers.empty() && answers[0].whole);
    }));
    bench.run_for(50ms);
    const auto answers = parse_answers(client->received, client->ends > 0);
    const Verdict& last = vector.verdicts.back();
    ASSERT_EQ(answers.size(), 1u) << client->received;
    if (last.kind == Kind::Accept) {
        EXPECT_EQ(answers[0].status, last.status) << client->received;
        EXPECT_EQ(answers[0].body, last.body);
        EXPECT_TRUE(answers[0].whole);
    } else if (answers[0].whole) {
        EXPECT_EQ(answers[0].status, 502) << client->received;
        EXPECT_TRUE(answers[0].body.starts_with("{\"error\":{\"message\":")) << answers[0].body;
    } else {
        // It had begun to go out when the fault came, which only what is not held back may.
        EXPECT_FALSE(with_prefill) << client->received;
        EXPECT_EQ(client->ends + client->breaks, 1);
    }
    bench.part(*client);
}

TEST(HttpProxyVectors, Answers) {
    for (const Travel& travel : travels())
        for (const bool with_prefill : {false, true}) {
            VectorBench bench(travel.faults, travel.seed);
            for (const HttpVector& vector : load_http_vectors()) {
                if (vector.is_copy || vector.is_request || vector.to_head) continue;
                SCOPED_TRACE(vector.place + " " + vector.name + ", " + travel.name +
                             (with_prefill ? ", behind a prefill" : ""));
                check_answer(bench, vector, with_prefill);
            }
        }
}

// The proxy's own fields less, an engine gets just those that the list names.
TEST(HttpProxyVectors, FieldsThatArePassedOn) {
    VectorBench bench;
    for (const HttpVector& vector : load_http_vectors()) {
        if (!vector.is_copy || !vector.is_request) continue;
        SCOPED_TRACE(vector.place + " " + vector.name);
        const std::string served =
            "POST /tokenize" + vector.bytes.substr(vector.bytes.find(" HTTP/1.1"));
        bench.asked.clear();
        const auto client = bench.connect();
        client->send(served);
        ASSERT_TRUE(bench.run([&] { return !bench.asked.empty(); }));
        std::vector<std::string> wanted, got;
        for (const std::string& field : vector.fields)
            if (!field.starts_with("Host:") && !field.starts_with("X-Request-Id:") &&
                !field.starts_with("X-data-parallel-rank:"))
                wanted.push_back(field.back() == ':' ? field + ' ' : field);
        for (const std::string& field : bench.asked[0].fields)
            if (!field.starts_with("Host: ") && !field.starts_with("X-Request-Id: ") &&
                !field.starts_with("Via: ") && !field.starts_with("Content-Length: "))
                got.push_back(field);
        EXPECT_EQ(got, wanted);
        bench.part(*client);
    }
}

}  // namespace
}  // namespace sluice::test
