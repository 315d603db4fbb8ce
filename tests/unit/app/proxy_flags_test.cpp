// SPDX-License-Identifier: Apache-2.0
// The command line of `sluice proxy`: what vLLM's proxies take is taken, and every mistake is
// named.
#include "app/proxy_flags.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "app/flags.h"

namespace sluice::app {
namespace {

using namespace std::chrono_literals;
using Words = std::vector<std::string>;

class ProxyFlags : public testing::Test {
protected:
    ProxyFlags() {
        ::unsetenv("VLLM_LOGGING_LEVEL");
        folder_ =
            std::filesystem::path(testing::TempDir()) / ("flags-" + std::to_string(::getpid()));
        std::filesystem::create_directories(folder_);
    }
    ~ProxyFlags() override {
        ::unsetenv("VLLM_LOGGING_LEVEL");
        std::filesystem::remove_all(folder_);
    }

    static ProxyCommandLine parse(Words words, const ProxyParsing& parsing = {}) {
        std::vector<char*> pointers;
        for (std::string& word : words) pointers.push_back(word.data());
        return parse_proxy_command_line("sluice proxy", "", static_cast<int>(pointers.size()),
                                        pointers.data(), parsing);
    }
    // With one instance of each role before them.
    static ProxyCommandLine parse_more(const Words& words) {
        Words all{"--prefill", "http://p:1", "--decode", "http://d:2"};
        all.insert(all.end(), words.begin(), words.end());
        return parse(all);
    }
    static std::string error_of(const Words& words) {
        try {
            (void)parse(words);
        } catch (const FlagError& error) {
            return error.what();
        }
        return "(no error)";
    }
    std::string write(const std::string& text, const std::string& name = "sluice.toml") const {
        const std::string path = folder_ / name;
        std::ofstream(path) << text;
        return path;
    }

    std::filesystem::path folder_;
};

Words urls(const std::vector<fleet::InstanceSpec>& specs) {
    Words out;
    for (const auto& spec : specs)
        out.push_back(spec.url + " " + std::to_string(spec.bootstrap_port));
    return out;
}

Words texts(const std::vector<io::Address>& addresses) {
    Words out;
    for (const auto& address : addresses) out.push_back(address.text());
    return out;
}

TEST_F(ProxyFlags, TakesTheMooncakeExamplesCommandLine) {
    const auto line = parse(
        {"--prefill", "http://192.168.0.2:8010", "8998", "--prefill", "http://192.168.0.3:8010",
         "none", "--prefill", "http://192.168.0.4:8010", "--decode", "http://192.168.0.5:8020",
         "--decode", "http://192.168.0.6:8020", "--port", "8080", "--host", "0.0.0.0"});
    EXPECT_EQ(urls(line.proxy.prefill),
              (Words{"http://192.168.0.2:8010 8998", "http://192.168.0.3:8010 0",
                     "http://192.168.0.4:8010 8998"}));
    EXPECT_EQ(urls(line.proxy.decode),
              (Words{"http://192.168.0.5:8020 0", "http://192.168.0.6:8020 0"}));
    EXPECT_EQ(texts(line.process.listen), Words{"0.0.0.0:8080"});
}

TEST_F(ProxyFlags, TakesTheToyProxysCommandLine) {
    const auto line = parse({"--host", "127.0.0.1", "--port", "8192", "--prefiller-hosts", "h1",
                             "h2", "--prefiller-ports", "8100", "8101", "--decoder-hosts", "h3",
                             "::1", "--decoder-ports", "8200", "8201"});
    EXPECT_EQ(urls(line.proxy.prefill), (Words{"http://h1:8100 8998", "http://h2:8101 8998"}));
    EXPECT_EQ(urls(line.proxy.decode), (Words{"http://h3:8200 0", "http://[::1]:8201 0"}));
}

TEST_F(ProxyFlags, TakesTheSingularSpellingsAndOneHostForSeveralPorts) {
    const auto line =
        parse({"--prefiller-host", "localhost", "--prefiller-port", "8100", "--prefiller-port",
               "8101", "--decoder-host", "a", "b", "--decoder-port=9"});
    EXPECT_EQ(urls(line.proxy.prefill),
              (Words{"http://localhost:8100 8998", "http://localhost:8101 8998"}));
    EXPECT_EQ(urls(line.proxy.decode), (Words{"http://a:9 0", "http://b:9 0"}));
}

TEST_F(ProxyFlags, ToyDefaultsAreForToyCommandLinesOnly) {
    const auto line = parse({"--decoder-port", "8300"});
    EXPECT_EQ(urls(line.proxy.prefill), Words{"http://localhost:8100 8998"});
    EXPECT_EQ(urls(line.proxy.decode), Words{"http://localhost:8300 0"});
    EXPECT_NE(error_of({}).find("no decode instance"), std::string::npos);
    EXPECT_NE(error_of({"--decode", "http://d"}).find("no prefill instance"), std::string::npos);
    EXPECT_TRUE(parse({"--decode", "http://d", "--decode-fallback"}).proxy.prefill.empty());
    EXPECT_TRUE(parse({}, {.instances_required = false, .more_flags = {}}).proxy.decode.empty());
}

TEST_F(ProxyFlags, DefaultsAreTheOptionsOwn) {
    const auto line = parse_more({});
    const pd::ProxyOptions fresh;
    EXPECT_EQ(line.proxy.buffer_bytes, fresh.buffer_bytes);
    EXPECT_EQ(line.proxy.prefill_policy, fresh.prefill_policy);
    EXPECT_EQ(line.proxy.decode_policy, fresh.decode_policy);
    EXPECT_EQ(line.proxy.keeper.connector, fresh.keeper.connector);
    EXPECT_EQ(line.proxy.request_timeout, fresh.request_timeout);
    EXPECT_EQ(line.process.workers, 0U);
    EXPECT_TRUE(line.process.pin);
    EXPECT_FALSE(line.process.check_only);
    EXPECT_EQ(texts(line.process.listen), Words{"127.0.0.1:8000"});
}

TEST_F(ProxyFlags, EveryFlagHasItsEffect) {
    const auto line = parse_more({"--workers",
                                  "3",
                                  "--no-pin",
                                  "--kv-connector",
                                  "nixl",
                                  "--prefill-policy",
                                  "round_robin",
                                  "--decode-policy",
                                  "session_affinity",
                                  "--decode-fallback",
                                  "--api-key",
                                  "k1",
                                  "--api-key",
                                  "k2",
                                  "k3",
                                  "--upstream-api-key",
                                  "up",
                                  "--connect-timeout",
                                  "0.5",
                                  "--prefill-timeout",
                                  "1",
                                  "--first-token-timeout",
                                  "2",
                                  "--idle-timeout",
                                  "3",
                                  "--request-timeout",
                                  "4",
                                  "--drain-timeout",
                                  "5",
                                  "--queue-timeout",
                                  "6",
                                  "--health-interval",
                                  "7",
                                  "--head-timeout",
                                  "8",
                                  "--body-timeout",
                                  "9",
                                  "--client-idle-timeout",
                                  "10",
                                  "--client-stall-timeout",
                                  "11",
                                  "--upstream-keep-alive",
                                  "1.25",
                                  "--retries",
                                  "4",
                                  "--retry-budget",
                                  "0.5",
                                  "--decode-delay-ms",
                                  "12.5",
                                  "--max-in-flight",
                                  "13",
                                  "--queue-size",
                                  "14",
                                  "--max-connections",
                                  "15",
                                  "--max-body-bytes",
                                  "2MiB",
                                  "--buffer-bytes",
                                  "64MiB",
                                  "--allow-half-close",
                                  "--expose-instances",
                                  "--log-level",
                                  "DEBUG",
                                  "--log-format",
                                  "json",
                                  "--check-config"});
    const pd::ProxyOptions& proxy = line.proxy;
    EXPECT_EQ(line.process.workers, 3U);
    EXPECT_FALSE(line.process.pin);
    EXPECT_TRUE(line.process.check_only);
    EXPECT_EQ(line.process.log.level, obs::LogLevel::Debug);
    EXPECT_TRUE(line.process.log.json);
    EXPECT_EQ(proxy.keeper.connector, fleet::KvConnector::Nixl);
    EXPECT_EQ(proxy.prefill_policy, fleet::PolicyKind::RoundRobin);
    EXPECT_EQ(proxy.decode_policy, fleet::PolicyKind::SessionAffinity);
    EXPECT_TRUE(proxy.decode_fallback);
    EXPECT_EQ(proxy.api_keys, (Words{"k1", "k2", "k3"}));
    EXPECT_EQ(proxy.upstream_api_key, "up");
    EXPECT_EQ(proxy.keeper.upstream_api_key, "up");
    EXPECT_EQ(proxy.connect_timeout, 500ms);
    EXPECT_EQ(proxy.prefill_timeout, 1s);
    EXPECT_EQ(proxy.first_token_timeout, 2s);
    EXPECT_EQ(proxy.idle_timeout, 3s);
    EXPECT_EQ(proxy.request_timeout, 4s);
    EXPECT_EQ(proxy.drain_timeout, 5s);
    EXPECT_EQ(proxy.queue_timeout, 6s);
    EXPECT_EQ(proxy.keeper.health_interval, 7s);
    EXPECT_EQ(proxy.server.head_timeout, 8s);
    EXPECT_EQ(proxy.server.body_timeout, 9s);
    EXPECT_EQ(proxy.server.idle_timeout, 10s);
    EXPECT_EQ(proxy.server.stall_timeout, 11s);
    EXPECT_EQ(proxy.upstream_keep_alive, 1250ms);
    EXPECT_EQ(proxy.retries, 4U);
    EXPECT_EQ(proxy.retry_budget, 0.5);
    EXPECT_EQ(proxy.decode_delay_max, 12500us);
    EXPECT_EQ(proxy.in_flight_max, 13U);
    EXPECT_EQ(proxy.queue_max, 14U);
    EXPECT_EQ(proxy.connections_max, 15U);
    EXPECT_EQ(proxy.server.body_bytes_max, 2U << 20);
    EXPECT_EQ(proxy.buffer_bytes, 64U << 20);
    EXPECT_TRUE(proxy.server.allow_half_close);
    EXPECT_TRUE(proxy.expose_instances);
}

TEST_F(ProxyFlags, PolicyMeansBothUnlessOneIsNamed) {
    const auto line =
        parse_more({"--prefill-policy", "round_robin", "--policy", "session_affinity"});
    EXPECT_EQ(line.proxy.prefill_policy, fleet::PolicyKind::RoundRobin);
    EXPECT_EQ(line.proxy.decode_policy, fleet::PolicyKind::SessionAffinity);
}

TEST_F(ProxyFlags, ListenReplacesTheDefaultAddressAndAddsToAGivenOne) {
    EXPECT_EQ(texts(parse_more({"--listen", "[::1]:81", "unix:/tmp/s", "--listen", "127.0.0.1:82"})
                        .process.listen),
              (Words{"[::1]:81", "unix:/tmp/s", "127.0.0.1:82"}));
    EXPECT_EQ(texts(parse_more({"--listen", "unix:/tmp/s", "--port", "83"}).process.listen),
              (Words{"127.0.0.1:83", "unix:/tmp/s"}));
    EXPECT_EQ(texts(parse_more({"--host", "::1"}).process.listen), Words{"[::1]:8000"});
    EXPECT_EQ(texts(parse_more({"--host", "localhost"}).process.listen), Words{"127.0.0.1:8000"});
}

TEST_F(ProxyFlags, VllmsLogLevelIsHonouredAndTheFlagWins) {
    ::setenv("VLLM_LOGGING_LEVEL", "DEBUG", 1);
    EXPECT_EQ(parse_more({}).process.log.level, obs::LogLevel::Debug);
    EXPECT_EQ(parse_more({"--log-level", "error"}).process.log.level, obs::LogLevel::Error);
    ::setenv("VLLM_LOGGING_LEVEL", "CRITICAL", 1);
    EXPECT_EQ(parse_more({}).process.log.level, obs::LogLevel::Error);
    ::setenv("VLLM_LOGGING_LEVEL", "loud", 1);
    EXPECT_NE(
        error_of({"--decoder-port", "1"}).find("VLLM_LOGGING_LEVEL: \"loud\" is not one of DEBUG"),
        std::string::npos);
}

TEST_F(ProxyFlags, KeysComeFromAFileToo) {
    const std::string path = write("one\r\n\ntwo  \n", "keys");
    EXPECT_EQ(parse_more({"--api-key", "zero", "--api-key-file", path}).proxy.api_keys,
              (Words{"zero", "one", "two"}));
    EXPECT_NE(error_of({"--decoder-port", "1", "--api-key-file", write("\n", "empty")})
                  .find("holds no key"),
              std::string::npos);
    EXPECT_NE(error_of({"--decoder-port", "1", "--api-key-file", write("a b\n", "blank")})
                  .find("with blanks"),
              std::string::npos);
}

TEST_F(ProxyFlags, KeysAreNotShown) {
    const auto line = parse_more({"--api-key", "secret-1", "--upstream-api-key", "secret-2"});
    EXPECT_EQ(line.effective.find("secret"), std::string::npos) << line.effective;
}

TEST_F(ProxyFlags, MistakesAreNamedWithTheValueAndWhatIsAllowed) {
    const struct {
        Words words;
        std::string message;
    } cases[] = {
        {{"--prot", "1"},
         "unknown argument \"--prot\"; did you mean --port? (see sluice proxy --help)"},
        {{"--prefill_timeout", "1"},
         "unknown argument \"--prefill_timeout\"; did you mean --prefill-timeout?"},
        {{"--decode-fall"}, "did you mean --decode-fallback?"},
        {{"--zzzzzzzzz"}, "unknown argument \"--zzzzzzzzz\" (see sluice proxy --help)"},
        {{"stray"}, "unknown argument \"stray\""},
        {{"--port"}, "--port: the value is missing; allowed is a whole number between 1 and 65535"},
        {{"--port", "abc"}, "--port: \"abc\" is not a whole number between 1 and 65535"},
        {{"--port", "0"}, "--port: \"0\" is not a whole number between 1 and 65535"},
        {{"--port", "65536"}, "--port: \"65536\" is not a whole number"},
        {{"--retries", "1.5"}, "--retries: \"1.5\" is not a whole number between 0 and 16"},
        {{"--connect-timeout", "-1"},
         "--connect-timeout: \"-1\" is not a number of seconds between 0.01 and 600"},
        {{"--idle-timeout", "1s"}, "--idle-timeout: \"1s\" is not a number of seconds"},
        {{"--idle-timeout", "nan"}, "--idle-timeout: \"nan\" is not a number of seconds"},
        {{"--idle-timeout", "inf"}, "--idle-timeout: \"inf\" is not a number of seconds"},
        {{"--decode-delay-ms", "x"},
         "--decode-delay-ms: \"x\" is not a number of milliseconds between 0 and 10000"},
        {{"--retry-budget", "11"}, "--retry-budget: \"11\" is not a number between 0 and 10"},
        {{"--max-body-bytes", "3XB"},
         "--max-body-bytes: \"3XB\" is not a size like 65536, 64KiB, 16MiB or 2GiB"},
        {{"--buffer-bytes", "99999999999GiB"}, "--buffer-bytes: \"99999999999GiB\" is not a size"},
        {{"--policy", "random"},
         "\"random\" is not one of round_robin|least_loaded|session_affinity"},
        {{"--kv-connector", "nccl"}, "--kv-connector: \"nccl\" is not one of auto|mooncake|nixl"},
        {{"--log-level", "loud"},
         "--log-level: \"loud\" is not one of debug|info|warning|error|critical"},
        {{"--log-format", "xml"}, "--log-format: \"xml\" is not one of text|json"},
        {{"--no-pin=maybe"}, "--no-pin: \"maybe\" is not true or false"},
        {{"--prefill"},
         "--prefill: the value is missing; allowed is a URL, and a port or none behind it"},
        {{"--prefill", "http://a:1", "bogus"},
         "--prefill: \"bogus\" is not a port between 1 and 65535 or none"},
        {{"--prefill", "http://a:1", "70000"},
         "--prefill: \"70000\" is not a port between 1 and 65535 or none"},
        {{"--prefill", "http://a:1", "8998", "7"}, "\"7\""},
        {{"--prefill", "https://a:1"}, "--prefill: \"https://a:1\""},
        {{"--decode", "a:1"}, "--decode: \"a:1\""},
        {{"--prefiller-hosts", "a", "b", "--prefiller-ports", "1", "2", "3"},
         "--prefiller-host has 2 values and --prefiller-port 3; allowed are as many of each, or "
         "one of either"},
        {{"--decoder-port", "x"}, "--decoder-port: \"x\" is not a port"},
        {{"--decoder-port", "1", "--listen", "foo"},
         "--listen: \"foo\" is not HOST:PORT, [IPV6]:PORT or unix:/PATH"},
        {{"--decoder-port", "1", "--listen", "::1"},
         "--listen: \"::1\" is not HOST:PORT, [IPV6]:PORT or unix:/PATH"},
        {{"--decoder-port", "1", "--listen", "unix:"}, "--listen: \"unix:\" is not"},
        {{"--decoder-port", "1", "--host", "nosuch.invalid"}, "--host: \"nosuch.invalid"},
        {{"--decoder-port", "1", "--buffer-bytes", "16MiB"},
         "--buffer-bytes: \"16777216\" is less than four times"},
        {{"--api-key", ""}, "--api-key: "},
        {{"--upstream-api-key", "a\r\nX: y"},
         "--upstream-api-key: a key is not empty and has no blanks"},
        {{"--decoder-port", "1", "--api-key-file", "/nonexistent/keys"},
         "--api-key-file: \"/nonexistent/keys\""},
        {{"--config", "/nonexistent/file"}, "--config: \"/nonexistent/file\""},
    };
    for (const auto& [words, message] : cases)
        EXPECT_NE(error_of(words).find(message), std::string::npos)
            << error_of(words) << "\n  instead of " << message;
}

TEST_F(ProxyFlags, HelpNamesEveryFlagOfTheFileFormat) {
    std::string help;
    try {
        (void)parse({"--help"});
    } catch (const HelpWanted& wanted) {
        help = wanted.what();
    }
    std::istringstream lines(
        parse_more({"--listen", "unix:/tmp/s", "--port", "1", "--policy", "round_robin"})
            .effective);
    for (std::string line; std::getline(lines, line);) {
        const std::string flag = "--" + line.substr(0, line.find(' '));
        EXPECT_NE(help.find(flag), std::string::npos) << flag;
    }
    EXPECT_NE(help.find("[3600]"), std::string::npos) << "defaults are shown";
    EXPECT_NE(help.find("none: it has no"), std::string::npos);
}

// -- the file

TEST_F(ProxyFlags, FileSaysWhatTheCommandLineLeavesOpen) {
    const std::string path = write(
        "prefill = [\"http://a:8010\", [\"http://b:8010\", 8999], [\"http://c:8010\", \"none\"]]\n"
        "decode = \"http://d:8020\"\n"
        "port = 9000\nmax-in-flight = 100\nqueue-timeout = 2.5\nno-pin = true\ndecode-fallback = "
        "false\n"
        "max-body-bytes = \"16MiB\"\napi-key = [\"-a\", \"b\"]\nlog-level = \"WARNING\"\n");
    const auto line = parse({"--config", path, "--max-in-flight", "7"});
    EXPECT_EQ(urls(line.proxy.prefill),
              (Words{"http://a:8010 8998", "http://b:8010 8999", "http://c:8010 0"}));
    EXPECT_EQ(urls(line.proxy.decode), Words{"http://d:8020 0"});
    EXPECT_EQ(line.proxy.in_flight_max, 7U) << "the command line wins";
    EXPECT_EQ(line.proxy.queue_timeout, 2500ms);
    EXPECT_FALSE(line.process.pin);
    EXPECT_FALSE(line.proxy.decode_fallback);
    EXPECT_EQ(line.proxy.server.body_bytes_max, 16U << 20);
    EXPECT_EQ(line.proxy.api_keys, (Words{"-a", "b"}));
    EXPECT_EQ(line.process.log.level, obs::LogLevel::Warning);
    EXPECT_EQ(texts(line.process.listen), Words{"127.0.0.1:9000"});
}

TEST_F(ProxyFlags, InstancesOnTheCommandLineReplaceTheFiles) {
    const std::string path =
        write("prefill = [\"http://a\", \"http://b\"]\ndecode = [\"http://c\"]\n");
    EXPECT_EQ(urls(parse({"--config", path, "--prefill", "http://x", "none"}).proxy.prefill),
              Words{"http://x 0"});
    const auto line = parse({"--config", path, "--prefiller-host", "y"});
    EXPECT_EQ(urls(line.proxy.prefill), Words{"http://y:8100 8998"});
    EXPECT_EQ(urls(line.proxy.decode), Words{"http://c 0"});
}

TEST_F(ProxyFlags, WideFlagOnTheCommandLineBeatsNarrowOneInTheFile) {
    const std::string path = write("prefill-policy = \"round_robin\"\nno-pin = true\n");
    const auto line =
        parse_more({"--config", path, "--policy", "session_affinity", "--no-pin=false"});
    EXPECT_EQ(line.proxy.prefill_policy, fleet::PolicyKind::SessionAffinity);
    EXPECT_TRUE(line.process.pin);
}

TEST_F(ProxyFlags, EffectiveConfigurationReadsBackAsItself) {
    const auto line = parse({"--prefill", "http://a:1", "8999", "--prefill", "http://b:1",
                             "--decode", "http://c:2", "--listen", "unix:/tmp/s", "--no-pin",
                             "--queue-timeout", "0.25", "--max-body-bytes", "1000"});
    const auto again = parse({"--config", write(line.effective)});
    EXPECT_EQ(again.effective, line.effective);
    EXPECT_EQ(texts(again.process.listen), Words{"unix:/tmp/s"});
    EXPECT_EQ(again.proxy.queue_timeout, 250ms);
}

TEST_F(ProxyFlags, MistakesInTheFileAreNamedWithTheirLine) {
    const std::pair<std::string, std::string> cases[] = {
        {"prot = 1", "unknown key \"prot\"; did you mean --port?"},
        {"port = \"x\"", "--port: \"x\" is not a whole number between 1 and 65535"},
        {"port = true", "\"port\" must be a whole number between 1 and 65535"},
        {"port = [1, 2]", "\"port\" must be a whole number between 1 and 65535"},
        {"port = 1.5", "--port: \"1.5\" is not a whole number"},
        {"port = 1979-05-27", "\"port\" must be a string, a number"},
        {"[port]\na = 1", "\"port\" must be a string, a number"},
        {"no-pin = 1", "\"no-pin\" must be true or false"},
        {"prefill = [true]", "\"prefill\" must be a string, a number"},
        {"policy = \"best\"",
         "--policy: \"best\" is not one of round_robin|least_loaded|session_affinity"},
        {"queue-timeout = -1.5", "--queue-timeout: \"-1.5\" is not a number of seconds"},
        {"host = \"\"", "--host: the value is missing"},
        {"config = \"other\"", "\"config\" belongs on the command line"},
        {"port = ", "expected value"},
        {"port = 1\nport = 2", "redefine"},
    };
    for (const auto& [text, message] : cases) {
        const std::string path = write("# a comment\n" + text + "\n");
        const std::string error = error_of({"--config", path, "--decoder-port", "1"});
        EXPECT_TRUE(error.starts_with(path + ":2: ") || error.starts_with(path + ":3: ")) << error;
        EXPECT_NE(error.find(message), std::string::npos) << error << "\n  instead of " << message;
    }
}

}  // namespace
}  // namespace sluice::app
