// SPDX-License-Identifier: Apache-2.0
// Upstreams that misbehave, in front of the real binary: as prefill and as decode, alone and beside
// one that does well. Each request ends with the right answer, an error, or visibly broken, and the
// proxy goes on.
#include <atomic>
#include <chrono>
#include <functional>
#include <sstream>
#include <thread>

#include "fleet_fixture.h"
#include "support/canned_upstream.h"

namespace sluice::test {
namespace {

using namespace std::chrono_literals;
using Visit = CannedUpstream::Visit;
using Script = CannedUpstream::Script;

// Requests have numbers, and so has everything that is said about them: what belongs to another
// request is recognised.
std::string number_in(const std::string& body, const std::string& before) {
    const auto at = body.find(before);
    if (at == std::string::npos) return "none";
    const auto from = at + before.size();
    return body.substr(from, body.find_first_not_of("0123456789", from) - from);
}

std::string chunk(const std::string& bytes) {
    char size[24];
    std::snprintf(size, sizeof size, "%zx\r\n", bytes.size());
    return size + bytes + "\r\n";
}

std::string chunked(const std::string& type, const std::string& body) {
    return "HTTP/1.1 200 OK\r\nContent-Type: " + type + "\r\nTransfer-Encoding: chunked\r\n\r\n" +
           body;
}

std::string event(const std::string& delta) {
    return R"(data: {"choices":[{"index":0,"delta":{)" + delta + "}}]}\n\n";
}

std::string prefill_answer(const std::string& body) {
    return CannedUpstream::ok(
        R"({"choices":[{"index":0,"finish_reason":"length"}],"kv_transfer_params":{"of":"number )" +
        number_in(body, "number ") + "\"}}");
}

std::string decode_answer(const std::string& body) {
    const std::string number = number_in(body, R"("content":"number )");
    if (number_in(body, R"("of":"number )") != number)
        return CannedUpstream::ok(R"({"choices":[{"message":{"content":"another's blocks"}}]})");
    if (body.find("\"stream\":true") == std::string::npos)
        return CannedUpstream::ok(R"({"choices":[{"index":0,"message":{"content":"text )" + number +
                                  "\"}}]}");
    return chunked(
        "text/event-stream",
        chunk(event(R"("role":"assistant","content":"")")) + chunk(event(R"("content":"text ")")) +
            chunk(event("\"content\":\"" + number + "\"") + "data: [DONE]\n\n") + "0\r\n\r\n");
}

// What the client sees of it where nobody else can serve. 0: the right answer.
struct Fault {
    std::string name;
    int status = 502;
    Script script;
};

std::vector<Fault> faults(const std::function<std::string(const std::string&)>& answer) {
    const auto says = [](std::string bytes) {
        return [bytes](Visit& visit) {
            visit.read_body();
            visit.send(bytes);
            return false;
        };
    };
    return {
        {"closes at once", 502, says("")},
        {"garbage", 502, says("\x16\x03\x01 no HTTP at all \xff\r\n\r\n")},
        {"closes in mid-head", 502, says("HTTP/1.1 200 OK\r\nContent-Ty")},
        {"closes in mid-chunk", 502, says(chunked("application/json", "400\r\n{\"choices\":["))},
        {"closes in mid-body", 502,
         says(
             "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{")},
        {"answers twice", 0,
         [answer](Visit& visit) {
             const std::string whole = answer(visit.read_body());
             visit.send(whole + whole);
             return true;
         }},
        {"never answers", 504,
         [](Visit& visit) {
             visit.read_body();
             visit.wait_for_end();
             return false;
         }},
        {"never goes on behind its head", 504,
         [](Visit& visit) {
             visit.read_body();
             visit.send(
                 "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: "
                 "1000\r\n\r\n");
             visit.wait_for_end();
             return false;
         }},
    };
}

// The parameter: which side misbehaves.
class UpstreamTest : public FleetTest, public testing::WithParamInterface<bool> {
protected:
    bool at_prefill() const { return GetParam(); }

    // Deadlines are long but where they are what is looked at: a busy machine must not matter.
    struct Setup {
        bool beside_a_good_one = false;
        std::string first_token = "20";  // and the prefill's
        std::string idle = "20";
        std::string retries = "0";
    };
    void start_canned(const Setup& setup) {
        FleetPlan plan;
        plan.prefills = plan.decodes = 0;
        plan.more_prefills = {prefill_.url()};
        plan.more_decodes = {decode_.url()};
        if (setup.beside_a_good_one)
            (at_prefill() ? plan.more_prefills : plan.more_decodes)
                .push_back((at_prefill() ? good_prefill_ : good_decode_).url());
        std::istringstream flags(
            "--kv-connector nixl --policy round_robin --request-timeout 60 --prefill-timeout " +
            setup.first_token + " --first-token-timeout " + setup.first_token + " --idle-timeout " +
            setup.idle + " --retries " + setup.retries);
        for (std::string word; flags >> word;) plan.proxy_flags.push_back(word);
        start(plan);
    }

    CannedUpstream& bad() { return at_prefill() ? prefill_ : decode_; }
    // Silent ones end at a deadline, the others by themselves.
    std::vector<Fault> faults_that_are(bool silent) const {
        std::vector<Fault> some;
        for (Fault& fault : faults(at_prefill() ? prefill_answer : decode_answer))
            if ((fault.status == 504) == silent) some.push_back(std::move(fault));
        return some;
    }
    void behave() { bad().set(good(at_prefill() ? prefill_answer : decode_answer)); }

    // A request of its own number. What never comes is asked for as a stream: a decode's plain
    // answer comes whole, so it has only --request-timeout.
    HttpAnswer ask(bool stream) { return chat("number " + std::to_string(++number_), stream); }
    void expect_right(const HttpAnswer& answer, const std::string& what) {
        EXPECT_EQ(answer.status, 200) << what << answer.body;
        EXPECT_TRUE(answer.complete) << what;
        EXPECT_EQ(text_of(answer.body), "text " + std::to_string(number_)) << what << answer.body;
    }
    // Until the one under test was asked: the others take their turns.
    void expect_right_until_asked(const std::string& what, bool only_streams) {
        const int before = bad().posts();
        for (int i = 0; bad().posts() == before; ++i) {
            ASSERT_LT(i, 20) << what << ": it is not asked any more";
            const bool stream = only_streams || i % 2 == 0;
            expect_right(ask(stream), what + (stream ? ", streamed: " : ", plain: "));
        }
    }

    double breaker() {
        return metric(std::string("sluice_breaker_state{role=\"") +
                      (at_prefill() ? "prefill" : "decode") + "\",instance=\"" + bad().url() +
                      "\"}");
    }
    // Answers only once `gate` is open.
    Script gated(std::atomic<bool>& gate) const {
        return [&gate, answer = at_prefill() ? prefill_answer : decode_answer](Visit& visit) {
            const std::string body = visit.read_body();
            for (int i = 0; !gate && i < 20'000; ++i) std::this_thread::sleep_for(1ms);
            visit.send(answer(body));
            return true;
        };
    }
    // Until it has failed often enough for nobody to ask it.
    void open_breaker() {
        bad().set([](Visit& visit) {
            visit.read_body();
            visit.send("HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n");
            return true;
        });
        for (int i = 0; breaker() != 1; ++i) {
            ASSERT_LT(i, 50) << "its breaker does not open";
            expect_right(ask(true), "while it answers 500");
        }
    }

    static Script good(std::function<std::string(const std::string&)> answer) {
        return [answer](Visit& visit) {
            visit.send(answer(visit.read_body()));
            return true;
        };
    }

    CannedUpstream prefill_{good(prefill_answer)};
    CannedUpstream decode_{good(decode_answer)};
    CannedUpstream good_prefill_{good(prefill_answer)};
    CannedUpstream good_decode_{good(decode_answer)};
    int number_ = 0;
};

TEST_P(UpstreamTest, BesideAGoodOneItsFaultsAreNotSeen) {
    start_canned({.beside_a_good_one = true, .retries = "1"});
    for (const Fault& fault : faults_that_are(false)) {
        bad().set(fault.script);
        expect_right_until_asked(fault.name, false);
        behave();
        expect_right_until_asked("after it " + fault.name, false);
    }
    expect_at_rest();
    stop();
    start_canned({.beside_a_good_one = true, .first_token = "1", .retries = "3"});
    bad().set(faults_that_are(true)[0].script);
    expect_right_until_asked("it never answers", true);
    expect_at_rest();
}

TEST_P(UpstreamTest, AloneItsFaultsAreErrors) {
    const auto expect_error = [&](const Fault& fault, const HttpAnswer& answer) {
        EXPECT_EQ(answer.status, fault.status) << fault.name << answer.body;
        EXPECT_TRUE(answer.complete) << fault.name;
        EXPECT_NE(answer.body.find("\"error\""), std::string::npos) << fault.name << answer.body;
    };
    start_canned({});
    for (const Fault& fault : faults_that_are(false))
        for (const bool stream : {true, false}) {
            bad().set(fault.script);
            const HttpAnswer answer = ask(stream);
            if (fault.status == 0) {
                expect_right(answer, fault.name);
                expect_right(ask(stream), "behind one that was answered twice");
            } else {
                expect_error(fault, answer);
            }
            behave();
            expect_right(ask(stream), "after it " + fault.name);
        }
    expect_at_rest();
    stop();
    start_canned({.first_token = "1"});
    for (const Fault& fault : faults_that_are(true)) {
        bad().set(fault.script);
        expect_error(fault, ask(true));
    }
    behave();
    HttpAnswer after;  // the deadline is short for a busy machine
    for (int tries = 0; tries < 10 && after.status != 200; ++tries) after = ask(true);
    expect_right(after, "after its silence");
    expect_at_rest();
}

// Its answer comes while the request is on its way, most of which it never asked for.
TEST_P(UpstreamTest, AnAnswerBeforeTheWholeRequestIsPassedOn) {
    start_canned({});
    const std::string refusal = R"({"error":{"message":"too long for me","code":413}})";
    bad().set([&](Visit& visit) {
        visit.read_some(1000);
        visit.send("HTTP/1.1 413 Too Large\r\nContent-Type: application/json\r\nContent-Length: " +
                   std::to_string(refusal.size()) + "\r\n\r\n" + refusal);
        visit.read_body();
        return true;
    });
    const HttpAnswer answer =
        chat("number 1", true, R"(,"padding":")" + std::string(8'000'000, 'p') + "\"", 60);
    EXPECT_EQ(answer.status, 413) << answer.body;
    EXPECT_EQ(answer.body, refusal);
    behave();
    expect_right(ask(true), "after it answered early");
    expect_at_rest();
}

// Behind its first content nothing can be tried again.
TEST_P(UpstreamTest, AStreamThatBreaksOffInMidChunkIsVisiblyBroken) {
    if (at_prefill()) GTEST_SKIP() << "a prefill does not stream";
    start_canned({.beside_a_good_one = true, .retries = "1"});
    for (auto* decode : {&decode_, &good_decode_})
        decode->set([](Visit& visit) {
            visit.read_body();
            visit.send(chunked("text/event-stream",
                               chunk(event(R"("role":"assistant","content":"")")) +
                                   chunk(event(R"("content":"some")")) + "400\r\ndata: {\"cho"));
            return false;
        });
    const HttpAnswer broken = ask(true);
    EXPECT_EQ(broken.status, 200);
    EXPECT_FALSE(broken.complete);
    EXPECT_EQ(text_of(broken.body), "some");
    EXPECT_NE(broken.body.find("data: {\"error\""), std::string::npos) << broken.body;
    EXPECT_EQ(broken.body.find("[DONE]"), std::string::npos);
    for (auto* decode : {&decode_, &good_decode_}) decode->set(good(decode_answer));
    expect_right(ask(true), "after it broke off");
    expect_at_rest();
}

// 429 and 503 are back-pressure and 4xx is the client's affair: neither says that it is ill.
TEST_P(UpstreamTest, BackPressureAndRefusalsOpenNoBreaker) {
    start_canned({.beside_a_good_one = true, .retries = "1"});
    const auto refuse = [](const std::string& status) {
        return [status](Visit& visit) {
            visit.read_body();
            visit.send("HTTP/1.1 " + status +
                       " X\r\nContent-Type: application/json\r\nContent-Length: 14\r\n\r\n"
                       R"({"error":"no"})");
            return true;
        };
    };
    for (const std::string status : {"429", "503"}) {
        bad().set(refuse(status));
        for (int i = 0; i < 6; ++i) expect_right_until_asked("beside a " + status, false);
        EXPECT_EQ(breaker(), 0);
    }
    bad().set(refuse("404"));
    int refused = 0;
    for (int i = 0; i < 12; ++i) {
        const HttpAnswer answer = ask(i % 4 < 2);
        refused += answer.status == 404 && answer.body == R"({"error":"no"})";
        EXPECT_TRUE(answer.status == 404 || answer.status == 200) << answer.status;
    }
    EXPECT_GT(refused, 0);
    EXPECT_EQ(breaker(), 0);
    expect_at_rest();
}

// When the breaker's time is over one request tries, and until it has ended all others go
// elsewhere.
TEST_P(UpstreamTest, AHalfOpenBreakerLetsOneRequestTry) {
    start_canned({.beside_a_good_one = true, .retries = "1"});
    open_breaker();
    std::atomic<bool> gate{false};
    bad().set(gated(gate));
    const int before = bad().posts();
    std::atomic<int> right{0}, ended{0};
    std::vector<std::jthread> clients;
    const auto more = [&] {
        clients.emplace_back([&, number = std::to_string(++number_)] {
            right += text_of(chat("number " + number, true).body) == "text " + number;
            ++ended;
        });
    };
    for (int i = 0; i < 1000 && bad().posts() == before; ++i) {
        more();
        std::this_thread::sleep_for(10ms);
    }
    EXPECT_EQ(breaker(), 2);
    for (int i = 0; i < 16; ++i) more();
    const int all = static_cast<int>(clients.size());
    for (int i = 0; i < 5000 && ended < all - 1; ++i) std::this_thread::sleep_for(1ms);
    EXPECT_EQ(ended, all - 1) << "the others are served elsewhere";
    EXPECT_EQ(bad().posts(), before + 1) << "one tries";
    gate = true;
    clients.clear();
    EXPECT_EQ(right, all);
    EXPECT_EQ(breaker(), 0);
    expect_at_rest();
}

TEST_P(UpstreamTest, AProbeWhoseClientLeavesIsFollowedByAnother) {
    start_canned({.beside_a_good_one = true, .retries = "1"});
    open_breaker();
    std::atomic<bool> gate{false};
    bad().set(gated(gate));
    const int before = bad().posts();
    for (int i = 0; i < 1000 && bad().posts() == before; ++i) {
        chat("number " + std::to_string(++number_), true, {}, 0.4);
        std::this_thread::sleep_for(10ms);
    }
    ASSERT_EQ(bad().posts(), before + 1);
    gate = true;
    expect_right_until_asked("behind a probe whose client left", false);
    EXPECT_EQ(breaker(), 0);
    expect_at_rest();
}

TEST_P(UpstreamTest, AStreamThatFallsSilentIsCutVisibly) {
    if (at_prefill()) GTEST_SKIP() << "a prefill does not stream";
    start_canned({.idle = "1"});
    bad().set([](Visit& visit) {
        visit.read_body();
        visit.send(chunked("text/event-stream", chunk(event(R"("content":"some")"))));
        visit.wait_for_end();
        return false;
    });
    const HttpAnswer broken = ask(true);
    EXPECT_EQ(broken.status, 200);
    EXPECT_FALSE(broken.complete);
    EXPECT_EQ(text_of(broken.body), "some");
    EXPECT_NE(broken.body.find("--idle-timeout"), std::string::npos) << broken.body;
    expect_at_rest();
}

INSTANTIATE_TEST_SUITE_P(Sides, UpstreamTest, testing::Bool(), [](const auto& parameter) {
    return parameter.param ? "prefill" : "decode";
});

}  // namespace
}  // namespace sluice::test
