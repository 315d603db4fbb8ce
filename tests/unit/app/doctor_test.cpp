// SPDX-License-Identifier: Apache-2.0
// What the doctor finds, against servers that say what they are told to.
#include "app/doctor.h"

#include <gtest/gtest.h>

#include <simdjson.h>

#include <algorithm>

#include "app/doctor_http.h"
#include "canned_server.h"

namespace sluice::app {
namespace {

using test::CannedServer;
using test::http_ok;
using namespace std::chrono_literals;

constexpr const char* kModels = R"({"object":"list","data":[{"id":"m","max_model_len":4096}]})";
constexpr const char* kQuery =
    R"({"0":{"engine_id":"e_dp0","worker_addr":{"0":{"0":"tcp://h:1"}}},)"
    R"("1":{"engine_id":"e_dp1","worker_addr":{"0":{"0":"tcp://h:2"}}}})";

std::map<std::string, std::string> engine_answers(const std::string& version = "0.33.0") {
    return {{"/health", http_ok("")},
            {"/version", http_ok("{\"version\":\"" + version + "\"}")},
            {"/v1/models", http_ok(kModels)},
            {"/metrics", http_ok("# nothing\n")}};
}

std::map<std::string, std::string> with(std::map<std::string, std::string> answers,
                                        const std::string& path, const std::string& bytes) {
    answers[path] = bytes;
    return answers;
}

pd::ProxyOptions fleet_of(const CannedServer* prefill, std::uint16_t bootstrap,
                          const CannedServer* decode,
                          fleet::KvConnector connector = fleet::KvConnector::Auto) {
    pd::ProxyOptions options;
    options.keeper.connector = connector;
    options.connect_timeout = 100ms;
    if (prefill != nullptr) options.prefill.push_back({prefill->url(), bootstrap});
    if (decode != nullptr) options.decode.push_back({decode->url(), 0});
    return options;
}

// The worst of the findings that hold `text`; nothing if there is none.
std::optional<Verdict> verdict_on(const std::vector<Finding>& findings, const std::string& text) {
    std::optional<Verdict> worst;
    for (const Finding& finding : findings)
        if ((finding.text + finding.advice).find(text) != std::string::npos)
            worst = std::max(worst.value_or(Verdict::Ok), finding.verdict);
    return worst;
}

TEST(Doctor, HealthyMooncakePairHasNothingToComplainOf) {
    const CannedServer prefill(engine_answers());
    const CannedServer bootstrap({{"/query", http_ok(kQuery)}});
    const CannedServer decode(engine_answers());
    const auto findings = examine_fleet(fleet_of(&prefill, bootstrap.port(), &decode));
    EXPECT_TRUE(std::ranges::all_of(findings, [](const Finding& f) {
        return f.verdict == Verdict::Ok;
    })) << as_text(findings);
    EXPECT_EQ(verdict_on(findings, "version 0.33.0"), Verdict::Ok);
    EXPECT_EQ(verdict_on(findings, "serves m (up to 4096 tokens)"), Verdict::Ok);
    EXPECT_EQ(verdict_on(findings, "2 dp rank(s), engine ids 0 = e_dp0, 1 = e_dp1"), Verdict::Ok)
        << as_text(findings);
    EXPECT_FALSE(any_failed(findings));
}

TEST(Doctor, NixlIsKnownByItsMetrics) {
    const CannedServer prefill(
        with(engine_answers(), "/metrics", http_ok("vllm:nixl_xfer_time_seconds_count 0\n")));
    const CannedServer decode(engine_answers());
    const auto findings = examine_fleet(fleet_of(&prefill, 0, &decode, fleet::KvConnector::Nixl));
    EXPECT_EQ(verdict_on(findings, "has a NixlConnector"), Verdict::Ok) << as_text(findings);
    EXPECT_EQ(
        verdict_on(examine_fleet(fleet_of(&decode, 0, &decode)), "shows no sign of a KV connector"),
        Verdict::Warn);
}

TEST(Doctor, NobodyThere) {
    const auto closed_port = [] {
        const CannedServer server({});
        return server.port();
    }();
    pd::ProxyOptions options;
    options.decode.push_back({"http://127.0.0.1:" + std::to_string(closed_port), 0});
    options.decode.push_back({"unix:/nonexistent/socket", 0});
    const auto findings = examine_fleet(options);
    EXPECT_EQ(std::ranges::count(findings, Verdict::Fail, &Finding::verdict), 2)
        << as_text(findings);
    EXPECT_EQ(verdict_on(findings, "Nothing listens there"), Verdict::Fail);
    EXPECT_EQ(verdict_on(findings, "at least one --prefill"), Verdict::Warn);
}

TEST(Doctor, NameThatDoesNotResolve) {
    pd::ProxyOptions options;
    options.decode_fallback = true;
    options.decode.push_back({"http://nosuch.invalid:1", 0});
    EXPECT_EQ(verdict_on(examine_fleet(options), "nosuch.invalid does not resolve"), Verdict::Fail);
}

TEST(Doctor, NamesAreResolved) {
    const CannedServer decode(engine_answers());
    pd::ProxyOptions options;
    options.decode_fallback = true;
    options.decode.push_back({"http://localhost:" + std::to_string(decode.port()), 0});
    const auto findings = examine_fleet(options);
    EXPECT_EQ(verdict_on(findings, "localhost is "), Verdict::Ok);
    EXPECT_FALSE(any_failed(findings)) << as_text(findings);
}

TEST(Doctor, SickAnswers) {
    const struct {
        std::string path, bytes, text;
        Verdict verdict;
    } cases[] = {
        {"/health", http_ok("", "503 Service Unavailable"), "up but cannot serve", Verdict::Fail},
        {"/health", http_ok("", "404 Not Found"), "is this an engine", Verdict::Warn},
        {"/health", "SSH-2.0-OpenSSH_9.2\r\n", "GET /health: ", Verdict::Fail},
        {"/health", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort", "middle of the answer",
         Verdict::Fail},
        {"/version", http_ok("{\"version\":\"0.1.0\",\"server\":\"sluice\"}"), "no engine",
         Verdict::Fail},
        {"/version", http_ok("[]"), "no version", Verdict::Warn},
        {"/v1/models", http_ok("{}", "401 Unauthorized"), "wants an API key", Verdict::Warn},
        {"/v1/models", http_ok("{\"data\":[]}"), "serves no model", Verdict::Fail},
        {"/v1/models", http_ok("nonsense"), "no models", Verdict::Warn},
    };
    for (const auto& one : cases) {
        const CannedServer decode(with(engine_answers(), one.path, one.bytes));
        const auto findings = examine_fleet(fleet_of(nullptr, 0, &decode));
        EXPECT_EQ(verdict_on(findings, one.text), one.verdict) << one.text << "\n"
                                                               << as_text(findings);
    }
}

TEST(Doctor, EngineThatDoesNotAnswerIsGivenUp) {
    const CannedServer decode(with(engine_answers(), "/health", "hang"));
    const Instant began = MonotonicClock::now();
    const auto findings = examine_fleet(fleet_of(nullptr, 0, &decode));
    EXPECT_EQ(verdict_on(findings, "does not answer"), Verdict::Fail) << as_text(findings);
    EXPECT_GE(MonotonicClock::now() - began, 2s);
}

TEST(Doctor, KeyIsSentAndItsRefusalIsAFailure) {
    const CannedServer decode(engine_answers());
    pd::ProxyOptions options = fleet_of(nullptr, 0, &decode);
    options.upstream_api_key = "right";
    EXPECT_FALSE(any_failed(examine_fleet(options)));
    EXPECT_TRUE(decode.saw_key());
    const CannedServer stern(
        with(engine_answers(), "/v1/models", http_ok("{}", "401 Unauthorized")));
    options.decode[0].url = stern.url();
    EXPECT_EQ(verdict_on(examine_fleet(options), "refuses the key"), Verdict::Fail);
}

TEST(Doctor, BootstrapServers) {
    const CannedServer decode(engine_answers());
    const CannedServer prefill(engine_answers());
    const auto closed_port = [] {
        const CannedServer server({});
        return server.port();
    }();
    const auto examine = [&](std::uint16_t port, fleet::KvConnector connector) {
        return examine_fleet(fleet_of(&prefill, port, &decode, connector));
    };
    EXPECT_EQ(verdict_on(examine(closed_port, fleet::KvConnector::Auto), "served as nixl"),
              Verdict::Warn);
    EXPECT_EQ(verdict_on(examine(closed_port, fleet::KvConnector::Mooncake), "no bootstrap server"),
              Verdict::Fail);
    EXPECT_EQ(verdict_on(examine(closed_port, fleet::KvConnector::Nixl), "bootstrap server"),
              std::nullopt);
    EXPECT_EQ(verdict_on(examine(0, fleet::KvConnector::Mooncake), "has no bootstrap port"),
              Verdict::Fail);
    const std::pair<std::string, std::string> cases[] = {
        {http_ok("{}"), "no worker has registered"},
        {http_ok("[1]"), "correct the bootstrap port"},
        {http_ok("{\"detail\":\"Not Found\"}", "404 Not Found"), "GET /query says 404"},
    };
    for (const auto& [bytes, text] : cases) {
        const CannedServer bootstrap({{"/query", bytes}});
        const auto findings = examine(bootstrap.port(), fleet::KvConnector::Auto);
        EXPECT_EQ(verdict_on(findings, text), Verdict::Fail) << as_text(findings);
    }
    const CannedServer late(
        {{"/query", http_ok(R"({"1":{"engine_id":"e","worker_addr":{"0":{"0":"tcp://h:1"}}}})")}});
    EXPECT_EQ(verdict_on(examine(late.port(), fleet::KvConnector::Auto), "Ranks are missing"),
              Verdict::Warn);
}

TEST(Doctor, OldMooncakeNeedsNoBootstrapServer) {
    const CannedServer prefill(engine_answers("0.15.1"));
    const CannedServer decode(engine_answers("0.15.1"));
    const auto closed_port = [] {
        const CannedServer server({});
        return server.port();
    }();
    EXPECT_EQ(verdict_on(examine_fleet(fleet_of(&prefill, closed_port, &decode,
                                                fleet::KvConnector::Mooncake)),
                         "this release needs none"),
              Verdict::Ok);
}

TEST(Doctor, InstancesMustFitTogether) {
    const CannedServer bootstrap({{"/query", http_ok(kQuery)}});
    const CannedServer first(engine_answers());
    const CannedServer second(engine_answers());
    const CannedServer decode(
        with(engine_answers("0.32.0"), "/v1/models", http_ok(R"({"data":[{"id":"other"}]})")));
    pd::ProxyOptions options = fleet_of(&first, bootstrap.port(), &decode);
    options.prefill.push_back({second.url(), bootstrap.port()});
    const auto findings = examine_fleet(options);
    EXPECT_EQ(verdict_on(findings, "share it"), Verdict::Fail);
    EXPECT_EQ(verdict_on(findings, "no model in common"), Verdict::Fail);
    EXPECT_EQ(verdict_on(findings, "are 0.33.0 and 0.32.0"), Verdict::Warn);
}

// -- this machine

ProxyCommandLine listening_on(const io::Address& address) {
    ProxyCommandLine line;
    line.process.listen.push_back(address);
    return line;
}

TEST(Doctor, AddressesToListenOn) {
    const CannedServer stranger({{"/version", http_ok("{\"version\":\"1\"}")}});
    EXPECT_EQ(
        verdict_on(examine_machine(listening_on(stranger.address())), "Another program listens"),
        Verdict::Fail);
    const CannedServer proxy({{"/version", http_ok("{\"version\":\"1\",\"server\":\"sluice\"}")}});
    EXPECT_EQ(verdict_on(examine_machine(listening_on(proxy.address())), "serves here already"),
              Verdict::Warn);
    EXPECT_EQ(verdict_on(examine_machine(listening_on(*io::Address::from_ip("192.0.2.1", 8000))),
                         "No network interface"),
              Verdict::Fail);
    EXPECT_EQ(
        verdict_on(examine_machine(listening_on(*io::Address::from_unix_path("/nonexistent/s"))),
                   "directory does not exist"),
        Verdict::Fail);
    const std::string path = testing::TempDir() + "doctor-" + std::to_string(::getpid()) + ".sock";
    EXPECT_EQ(verdict_on(examine_machine(listening_on(*io::Address::from_unix_path(path))),
                         "can be bound"),
              Verdict::Ok);
    EXPECT_NE(::access(path.c_str(), F_OK), 0) << "left behind";
}

TEST(Doctor, LimitsAreHeldAgainstTheFlags) {
    ProxyCommandLine line;
    line.process.workers = 1024;
    line.proxy.in_flight_max = 4'000'000'000;
    const auto findings = examine_machine(line);
    EXPECT_EQ(verdict_on(findings, "More workers than cores"), Verdict::Warn);
    EXPECT_EQ(verdict_on(findings, "Raise the hard limit").has_value(), true) << as_text(findings);
    EXPECT_EQ(verdict_on(findings, "--buffer-bytes"), Verdict::Warn) << as_text(findings);
}

// -- the report

TEST(Doctor, TextHasOneLineForEachFinding) {
    const std::string text = as_text({{Verdict::Ok, "a", "fine", "", {}},
                                      {Verdict::Warn, "bcd", "so\nso", "Do it", 1500us},
                                      {Verdict::Fail, "e", "bad", "", {}}});
    EXPECT_EQ(text,
              "OK    a    fine\n"
              "WARN  bcd  so so (1.5 ms). Do it\n"
              "FAIL  e    bad\n\n"
              "1 OK, 1 WARN, 1 FAIL: the proxy would not work as it should\n");
}

TEST(Doctor, JsonIsJson) {
    const std::string text = as_json({{Verdict::Fail, "a", "quote \" and \\ and \x01", "", 2ms},
                                      {Verdict::Ok, "b", "c", "", {}}});
    simdjson::dom::parser parser;
    simdjson::dom::element report;
    ASSERT_EQ(parser.parse(text).get(report), simdjson::SUCCESS) << text;
    std::string_view finding;
    ASSERT_EQ(report.at_pointer("/findings/0/finding").get(finding), simdjson::SUCCESS);
    EXPECT_EQ(finding, "quote \" and \\ and  ");
    std::int64_t failures = 0;
    ASSERT_EQ(report["fail"].get(failures), simdjson::SUCCESS);
    EXPECT_EQ(failures, 1);
    ASSERT_EQ(parser.parse(as_json({})).get(report), simdjson::SUCCESS);
}

TEST(DoctorHttp, ReadsEveryFraming) {
    const CannedServer server(
        {{"/chunked",
          "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"},
         {"/close", "HTTP/1.1 200 OK\r\n\r\nuntil the end"},
         {"/interim", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n"}});
    const auto body_of = [&](std::string_view path) {
        const auto answer = http_get({server.address(), "h", path, {}, 2s});
        return answer ? std::to_string(answer->status) + " " + answer->body : answer.error().what;
    };
    EXPECT_EQ(body_of("/chunked"), "200 abcde");
    EXPECT_EQ(body_of("/close"), "200 until the end");
    EXPECT_EQ(body_of("/interim"), "204 ");
    EXPECT_EQ(body_of("/none"), "the peer closed the connection");
}

}  // namespace
}  // namespace sluice::app
