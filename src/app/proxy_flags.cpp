// SPDX-License-Identifier: Apache-2.0
#include "app/proxy_flags.h"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <fstream>

#include "app/flags.h"
#include "fleet/resolver.h"
#include "fleet/url.h"

namespace sluice::app {

namespace {

constexpr std::uint16_t kMooncakeBootstrapPort = 8998;

// As they stand on the command line, before they are put together.
struct Raw {
    std::vector<std::string> prefill, decode;
    std::vector<std::string> prefiller_hosts, prefiller_ports, decoder_hosts, decoder_ports;
    std::vector<std::string> listen, api_keys;
    std::string host = "127.0.0.1", api_key_file, connector = "auto";
    std::uint32_t port = 8000;
    std::string policy, prefill_policy = "least_loaded", decode_policy = "least_loaded";
    std::string log_level = "info", log_format = "text";
    std::uint64_t buffer_bytes = 1ULL << 30;
    std::string kv_relay = "control", kv_relay_listen;
    bool no_pin = false;
};

void declare(FlagSet& flags, Raw& raw, ProxyCommandLine& out) {
    pd::ProxyOptions& proxy = out.proxy;
    flags.group("Instances");
    flags.pairs("--prefill", raw.prefill,
                "A prefill instance (http://HOST:PORT or unix:/PATH) and the port of its bootstrap "
                "server; repeatable. "
                "Without a port 8998 is asked; none: it has no bootstrap server");
    flags.texts("--decode", raw.decode, "URL",
                "A decode instance (http://HOST:PORT or unix:/PATH); repeatable");
    flags.texts("--prefiller-host,--prefiller-hosts", raw.prefiller_hosts, "HOST",
                "Hosts of the prefill instances, as the toy proxies take them; each goes with the "
                "port in the same "
                "place of --prefiller-port, and a single one with all of the other [localhost]");
    flags.texts("--prefiller-port,--prefiller-ports", raw.prefiller_ports, "PORT",
                "Their ports [8100]");
    flags.texts("--decoder-host,--decoder-hosts", raw.decoder_hosts, "HOST",
                "Hosts of the decode instances, in the same way [localhost]");
    flags.texts("--decoder-port,--decoder-ports", raw.decoder_ports, "PORT", "Their ports [8200]");
    flags.choice(
        "--kv-connector", raw.connector, {"auto", "mooncake", "nixl"},
        "How P and D hand KV over; auto: mooncake where a bootstrap server answers, else nixl");
    flags.choice("--policy", raw.policy, {"round_robin", "least_loaded", "session_affinity"},
                 "Sets both of the following");
    flags.choice("--prefill-policy", raw.prefill_policy,
                 {"round_robin", "least_loaded", "session_affinity"},
                 "Which prefill instance gets a request");
    flags.choice("--decode-policy", raw.decode_policy,
                 {"round_robin", "least_loaded", "session_affinity"},
                 "Which decode instance gets it");
    flags.flag("--decode-fallback", proxy.decode_fallback,
               "Let a decode instance do its own prefill when no prefill instance can serve");

    flags.group("KV relay (mooncake)");
    flags.choice(
        "--kv-relay", raw.kv_relay, {"control", "off"},
        "control: decodes ask the proxy for a prefill's blocks; it hands the request on when "
        "they are there, and answers at once when the prefill failed");
    flags.text("--kv-relay-listen", raw.kv_relay_listen,
               "HOST or HOST:PORT for decodes to ask at; with a port, also the next ones, one for "
               "each prefill worker. Default: the address this host has towards the decodes, and "
               "ports that the kernel gives");
    flags.text("--kv-relay-host", proxy.relay.host,
               "Address that decodes must use for it, if that is another one");
    flags.number(
        "--kv-relay-early", proxy.relay.early, 0, 1000,
        "Requests that a prefill worker may be handed before it is known to be done (of its "
        "seats, 20 with vLLM's num_workers of 10)");

    flags.group("Clients");
    flags.text("--host", raw.host, "Address to listen on");
    flags.number("--port", raw.port, 1, 65535, "Port to listen on");
    flags.texts("--listen", raw.listen, "ADDRESS",
                "HOST:PORT, [IPV6]:PORT or unix:/PATH to listen on instead of the default --host "
                "and --port; with one "
                "of those given too, there as well; repeatable");
    flags.secrets("--api-key", raw.api_keys, "A key that clients must show; repeatable");
    flags.text("--api-key-file", raw.api_key_file, "File with such keys, one a line");
    flags.secret("--upstream-api-key", proxy.upstream_api_key,
                 "Key shown to the instances; without it the client's Authorization is passed on. "
                 "OPENAI_API_KEY in "
                 "the environment, which vLLM's example takes, is not used");
    flags.flag("--expose-instances", proxy.expose_instances,
               "Name the instances in X-Sluice-Prefill and -Decode");
    flags.flag("--allow-half-close", proxy.server.allow_half_close,
               "Serve clients that end their side early, instead of taking them for gone");

    flags.group("Deadlines");
    flags.seconds("--connect-timeout", proxy.connect_timeout, 0.01, 600,
                  "Connecting to an instance");
    flags.seconds("--prefill-timeout", proxy.prefill_timeout, 0.01, 86400,
                  "The prefill leg as a whole");
    flags.seconds("--first-token-timeout", proxy.first_token_timeout, 0.01, 86400,
                  "First content of a stream after the prefill is done");
    flags.seconds("--idle-timeout", proxy.idle_timeout, 0.01, 86400,
                  "Between two events of a stream");
    flags.seconds("--request-timeout", proxy.request_timeout, 0.01, 604800, "A request as a whole");
    flags.seconds("--drain-timeout", proxy.drain_timeout, 0, 86400, "Streams after SIGTERM");
    flags.seconds("--head-timeout", proxy.server.head_timeout, 0.01, 3600,
                  "A request's head, from its first byte");
    flags.seconds("--body-timeout", proxy.server.body_timeout, 0.01, 3600,
                  "A request's body, plus the time it takes at 16 KiB/s");
    flags.seconds("--client-idle-timeout", proxy.server.idle_timeout, 0.01, 86400,
                  "Between a client's requests");
    flags.seconds("--client-stall-timeout", proxy.server.stall_timeout, 0.01, 86400,
                  "A client that does not read");
    flags.seconds("--upstream-keep-alive", proxy.upstream_keep_alive, 0, 3600,
                  "How long an idle upstream connection is kept (vLLM closes after 5 s)");
    flags.seconds("--health-interval", proxy.keeper.health_interval, 0.05, 3600,
                  "Between GET /health of an instance");

    flags.group("Retries");
    flags.number("--retries", proxy.retries, 0, 16,
                 "Further attempts before the first byte of an answer");
    flags.fraction("--retry-budget", proxy.retry_budget, 0, 10, "Retries per request, on average");
    flags.milliseconds("--decode-delay-ms", proxy.decode_delay_max, 0, 10000,
                       "How long a decode leg may wait for the prefill's refusal (mooncake)");

    flags.group("Limits");
    flags.number("--max-in-flight", proxy.in_flight_max, 1, 1'000'000,
                 "Requests served at once, over all workers");
    flags.number("--queue-size", proxy.queue_max, 0, 1'000'000,
                 "Requests that may wait for a place");
    flags.seconds("--queue-timeout", proxy.queue_timeout, 0, 86400, "How long they may wait");
    flags.number("--max-connections", proxy.connections_max, 1, 10'000'000,
                 "Client connections of each worker");
    flags.bytes("--max-body-bytes", proxy.server.body_bytes_max, 1, 1ULL << 29,
                "The largest request body");
    flags.bytes("--buffer-bytes", raw.buffer_bytes, 16ULL << 20, 1ULL << 40,
                "Buffer memory of each worker");

    flags.group("Process");
    flags.number("--workers", out.process.workers, 0, 1024,
                 "Worker threads; 0: one for each core this process may use");
    flags.flag("--no-pin", raw.no_pin, "Do not pin workers to cores");
    flags.choice("--log-level", raw.log_level, {"debug", "info", "warning", "error", "critical"},
                 "What is logged; without this flag VLLM_LOGGING_LEVEL says it");
    flags.choice("--log-format", raw.log_format, {"text", "json"}, "Of the log on standard error");
    flags.text(
        "--access-log", out.process.access_log.path,
        "Where a line of JSON a request goes: a file (SIGHUP opens it again, for rotation), - "
        "for standard output, or none");
    flags.number("--access-log-sample", out.process.access_log.sample, 1, 1'000'000,
                 "Of the requests that ended well only one in so many is logged; all others always "
                 "are");
    flags.with_config_file();
    flags.flag("--check-config", out.process.check_only,
               "Check flags, file and addresses, print all flags' values as TOML, and exit");
    flags.same_subject({"--prefill", "--prefiller-host", "--prefiller-port"});
    flags.same_subject({"--decode", "--decoder-host", "--decoder-port"});
}

std::uint16_t parse_port(const std::string& flag, const std::string& text,
                         const char* or_what = "") {
    unsigned port = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
    if (error != std::errc() || end != text.data() + text.size() || port == 0 || port > 65535)
        throw FlagError(flag + ": \"" + text + "\" is not a port between 1 and 65535" + or_what);
    return static_cast<std::uint16_t>(port);
}

// "--prefill URL [PORT|none] --prefill URL ..." arrives as one list.
void add_prefills(const std::vector<std::string>& words, std::vector<fleet::InstanceSpec>& out) {
    for (std::size_t i = 0; i < words.size(); ++i) {
        fleet::InstanceSpec spec;
        spec.url = words[i];
        if (const auto url = fleet::parse_url(spec.url); !url)
            throw FlagError("--prefill: " + url.error());
        spec.bootstrap_port = kMooncakeBootstrapPort;
        const bool more = i + 1 < words.size();
        const bool is_url = more && (words[i + 1].find(':') != std::string::npos);
        if (more && !is_url) {
            ++i;
            spec.bootstrap_port = words[i] == "none"
                                      ? std::uint16_t{0}
                                      : parse_port("--prefill", words[i], " or none");
        }
        out.push_back(std::move(spec));
    }
}

// Host i goes with port i; one of either goes with all of the other.
void add_pairs(std::vector<std::string> hosts, std::vector<std::string> ports,
               const std::string& who, const std::string& default_port,
               std::uint16_t bootstrap_port, std::vector<fleet::InstanceSpec>& out) {
    if (hosts.empty()) hosts.push_back("localhost");
    if (ports.empty()) ports.push_back(default_port);
    const std::size_t count = std::max(hosts.size(), ports.size());
    if ((hosts.size() != count && hosts.size() != 1) ||
        (ports.size() != count && ports.size() != 1))
        throw FlagError("--" + who + "-host has " + std::to_string(hosts.size()) +
                        " values and --" + who + "-port " + std::to_string(ports.size()) +
                        "; allowed are as many of each, or one of either");
    for (std::size_t i = 0; i < count; ++i) {
        const std::string& host = hosts.size() == 1 ? hosts[0] : hosts[i];
        const std::string& port = ports.size() == 1 ? ports[0] : ports[i];
        (void)parse_port("--" + who + "-port", port);
        const bool bare_v6 = host.find(':') != std::string::npos && host.front() != '[';
        out.push_back(
            {"http://" + (bare_v6 ? "[" + host + "]" : host) + ":" + port, bootstrap_port});
    }
}

io::Address parse_listen(const std::string& flag, const std::string& text) {
    const std::string allowed = "HOST:PORT, [IPV6]:PORT or unix:/PATH";
    if (text.starts_with("unix:")) {
        const auto address = io::Address::from_unix_path(text.substr(5));
        if (!address)
            throw FlagError(flag + ": \"" + text + "\" is not a usable path (1 to 107 bytes)");
        return *address;
    }
    const auto colon = text.rfind(':');
    const std::string host = text.substr(0, std::min(colon, text.size()));
    const bool bare_v6 = host.find(':') != std::string::npos && host.front() != '[';
    if (colon == std::string::npos || host.empty() || bare_v6)
        throw FlagError(flag + ": \"" + text + "\" is not " + allowed);
    const std::uint16_t port = parse_port(flag, text.substr(colon + 1));
    if (const auto address = io::Address::from_ip(host, port)) return *address;
    if (const auto found = fleet::look_up_with_getaddrinfo(host, port); found && !found->empty())
        return found->front();
    throw FlagError(flag + ": \"" + host +
                    "\" is not an address and does not resolve; allowed are " + allowed);
}

std::string host_of(const io::Address& address) {
    std::string text = address.text();
    text.resize(text.rfind(':'));
    return text.starts_with('[') ? text.substr(1, text.size() - 2) : text;
}

// Where decodes find the relay. Of several ways to decodes one that is not the loopback: an
// instance on this host can use that, too.
io::Address relay_address(const std::string& text, const pd::ProxyOptions& proxy) {
    if (!text.empty()) {
        const bool bare_v6 = std::ranges::count(text, ':') > 1 && text.front() != '[';
        const bool has_port =
            !bare_v6 && text.rfind(':') != std::string::npos && text.back() != ']';
        if (has_port) {
            const io::Address given = parse_listen("--kv-relay-listen", text);
            if (!given.is_unix()) return given;
        } else if (const auto host = io::Address::from_ip(text, 0)) {
            return *host;
        }
        throw FlagError("--kv-relay-listen: \"" + text + "\" is not HOST or HOST:PORT");
    }
    io::Address best = io::Address::from_ip("127.0.0.1", 0).value();
    for (const fleet::InstanceSpec& spec : proxy.decode) {
        const auto url = fleet::parse_url(spec.url);
        if (!url || spec.url.starts_with("unix:")) continue;
        auto peer = io::Address::from_ip(url->host, url->port);
        if (!peer) {
            const auto found = fleet::look_up_with_getaddrinfo(url->host, url->port);
            if (!found || found->empty()) continue;
            peer = found->front();
        }
        const auto own = io::own_address_towards(*peer);
        if (!own) continue;
        const std::string host = host_of(*own);
        best = io::Address::from_ip(host, 0).value_or(best);
        if (!host.starts_with("127.") && host != "::1") break;
    }
    return best;
}

void read_key_file(const std::string& path, std::vector<std::string>& keys) {
    std::ifstream file(path);
    if (!file) throw FlagError("--api-key-file: \"" + path + "\" is not a file that can be read");
    for (std::string line; std::getline(file, line);) {
        while (!line.empty() && (line.back() == '\r' || line.back() == ' ')) line.pop_back();
        if (std::ranges::any_of(line, [](char c) { return c <= 0x20 || c == 0x7f; }))
            throw FlagError("--api-key-file: \"" + path +
                            "\" has a key with blanks or control characters");
        if (!line.empty()) keys.push_back(line);
    }
    if (keys.empty()) throw FlagError("--api-key-file: \"" + path + "\" holds no key");
}

obs::LogLevel log_level_of(const std::string& text) {
    if (text == "debug") return obs::LogLevel::Debug;
    if (text == "warning") return obs::LogLevel::Warning;
    if (text == "error" || text == "critical") return obs::LogLevel::Error;
    return obs::LogLevel::Info;
}

// vLLM's own variable is honoured, the flag wins.
std::string log_level_text(const FlagSet& flags, const Raw& raw) {
    const char* vllm = std::getenv("VLLM_LOGGING_LEVEL");
    if (flags.given("--log-level") || vllm == nullptr) return raw.log_level;
    std::string text = vllm;
    std::ranges::transform(text, text.begin(),
                           [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    if (text == "warn") return "warning";
    for (const char* known : {"debug", "info", "warning", "error", "critical"})
        if (text == known) return text;
    throw FlagError("VLLM_LOGGING_LEVEL: \"" + std::string(vllm) +
                    "\" is not one of DEBUG, INFO, WARNING, ERROR, CRITICAL");
}

}  // namespace

ProxyCommandLine parse_proxy_command_line(const std::string& command,
                                          const std::string& description, int argc, char** argv,
                                          const ProxyParsing& parsing) {
    ProxyCommandLine out;
    Raw raw;
    FlagSet flags(command, description);
    declare(flags, raw, out);
    if (parsing.more_flags) parsing.more_flags(flags);
    flags.parse(argc, argv);

    pd::ProxyOptions& proxy = out.proxy;
    proxy.keeper.connector = raw.connector == "mooncake" ? fleet::KvConnector::Mooncake
                             : raw.connector == "nixl"   ? fleet::KvConnector::Nixl
                                                         : fleet::KvConnector::Auto;
    add_prefills(raw.prefill, proxy.prefill);
    for (const std::string& url : raw.decode) {
        if (const auto parsed = fleet::parse_url(url); !parsed)
            throw FlagError("--decode: " + parsed.error());
        proxy.decode.push_back({url, 0});
    }
    const bool toy_flags = !raw.prefiller_hosts.empty() || !raw.prefiller_ports.empty() ||
                           !raw.decoder_hosts.empty() || !raw.decoder_ports.empty();
    if (toy_flags) {
        if (proxy.prefill.empty() || !raw.prefiller_hosts.empty() || !raw.prefiller_ports.empty())
            add_pairs(raw.prefiller_hosts, raw.prefiller_ports, "prefiller", "8100",
                      kMooncakeBootstrapPort, proxy.prefill);
        if (proxy.decode.empty() || !raw.decoder_hosts.empty() || !raw.decoder_ports.empty())
            add_pairs(raw.decoder_hosts, raw.decoder_ports, "decoder", "8200", 0, proxy.decode);
    }
    if (proxy.decode.empty() && parsing.instances_required)
        throw FlagError("no decode instance: give at least one --decode URL");
    if (proxy.prefill.empty() && !proxy.decode_fallback && parsing.instances_required)
        throw FlagError(
            "no prefill instance: give at least one --prefill URL, or --decode-fallback");

    if (!raw.policy.empty()) {
        // The narrower one wins, unless only the wider one is on the command line.
        const bool above_file = !flags.given_in_file("--policy");
        const auto narrower = [&](const char* flag) {
            return flags.given(flag) && !(above_file && flags.given_in_file(flag));
        };
        if (!narrower("--prefill-policy")) raw.prefill_policy = raw.policy;
        if (!narrower("--decode-policy")) raw.decode_policy = raw.policy;
    }
    proxy.prefill_policy = *fleet::parse_policy(raw.prefill_policy);
    proxy.decode_policy = *fleet::parse_policy(raw.decode_policy);
    proxy.relay.enabled = raw.kv_relay == "control";
    if (proxy.relay.enabled) proxy.relay.listen = relay_address(raw.kv_relay_listen, proxy);
    proxy.api_keys = raw.api_keys;
    if (!raw.api_key_file.empty()) read_key_file(raw.api_key_file, proxy.api_keys);
    proxy.keeper.upstream_api_key = proxy.upstream_api_key;
    proxy.buffer_bytes = raw.buffer_bytes;
    if (proxy.server.body_bytes_max > raw.buffer_bytes / 4)
        throw FlagError("--buffer-bytes: \"" + std::to_string(raw.buffer_bytes) +
                        "\" is less than four times "
                        "--max-body-bytes (" +
                        std::to_string(proxy.server.body_bytes_max) + "); raise it, or lower that");

    if (raw.listen.empty() || flags.given("--host") || flags.given("--port")) {
        const bool bare_v6 = raw.host.find(':') != std::string::npos && raw.host.front() != '[';
        const std::string host = bare_v6 ? "[" + raw.host + "]" : raw.host;
        out.process.listen.push_back(parse_listen("--host", host + ":" + std::to_string(raw.port)));
    }
    for (const std::string& text : raw.listen)
        out.process.listen.push_back(parse_listen("--listen", text));
    out.process.pin = !raw.no_pin;
    raw.log_level = log_level_text(flags, raw);
    out.process.log.level = log_level_of(raw.log_level);
    out.process.log.json = raw.log_format == "json";
    std::vector<std::string> omitted = {"config", "check-config"};
    // Said where it is not meant, --host would add an address.
    if (!raw.listen.empty() && !flags.given("--host") && !flags.given("--port"))
        omitted.insert(omitted.end(), {"host", "port"});
    out.effective = flags.effective(omitted);
    return out;
}

}  // namespace sluice::app
