// SPDX-License-Identifier: Apache-2.0
#include "app/engine_command.h"

#include <fmt/format.h>
#include <netdb.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstdlib>
#include <ctime>
#include <memory>
#include <string>
#include <vector>

#include "app/flag_values.h"
#include "app/flags.h"
#include "base/cpu.h"
#include "engine/engine.h"
#include "engine/kv_config.h"
#include "io/uring/uring_io.h"
#include "obs/log.h"

namespace sluice::app {

namespace {

constexpr double kLongest = 1e6;  // seconds

struct EngineArguments {
    engine::EngineOptions options;
    std::string host = "0.0.0.0";
    std::string ports = "8000";
    std::string unix_path;
    std::string kv_transfer_config;
    std::string tool_call_parser;
    bool auto_tool_choice = false;
    std::vector<std::string> faults;
    double per_token_us = 20;
    std::uint32_t seed = 0;
    std::string log_level = "info";
};

std::vector<std::string> split(std::string_view list) {
    std::vector<std::string> parts;
    for (std::size_t at = 0; at <= list.size();) {
        const auto comma = std::min(list.find(',', at), list.size());
        parts.emplace_back(list.substr(at, comma - at));
        at = comma + 1;
    }
    return parts;
}

std::uint16_t to_port(const std::string& name, const std::string& text) {
    const std::string allowed = "a port, 0 to 65535";
    const double port = parse_double(name, text, 0, 65535, allowed);
    if (port != static_cast<std::uint16_t>(port)) refuse(name, text, allowed);
    return static_cast<std::uint16_t>(port);
}

// -- the command line

// vLLM takes flags with underscores too, and has two with two letters behind one dash, which CLI11
// has not.
std::string normalised(std::string argument) {
    const std::string name = argument.substr(0, argument.find('='));
    const std::string rest = argument.substr(name.size());
    if (name == "-tp") return "--tensor-parallel-size" + rest;
    if (name == "-dp") return "--data-parallel-size" + rest;
    if (!name.starts_with("--")) return argument;
    std::string dashes = name;
    std::ranges::replace(dashes, '_', '-');
    return dashes + rest;
}

void add_vllm_flags(FlagSet& flags, EngineArguments& arguments) {
    engine::EngineOptions& options = arguments.options;
    engine::ModelOptions& model = options.timing;
    constexpr std::uint32_t kMany = 100'000'000;
    flags.positional("MODEL", options.model,
                     "The model's name; nothing is loaded [" + options.model + "]");
    flags.group("As vllm serve has them");
    flags.text("--host", arguments.host, "IP address to listen on");
    flags.text("--port", arguments.ports,
               "Port; several, with commas, are as many engines in one process");
    flags.text("--uds", arguments.unix_path,
               "Path of a unix socket to listen on instead of --host and --port");
    flags.number("--tensor-parallel-size", options.tensor_parallel, 1, 256,
                 "Workers that an engine registers (-tp)");
    flags.number("--data-parallel-size", options.data_parallel, 1, 256,
                 "Ranks, each with its engine id (-dp)");
    flags.text("--kv-transfer-config", arguments.kv_transfer_config,
               "JSON with kv_connector (MooncakeConnector or NixlConnector), kv_role (kv_producer, "
               "kv_consumer or "
               "kv_both), and if wanted engine_id, kv_load_failure_policy (fail or recompute), "
               "kv_connector_extra_config (num_workers, bootstrap_server_address, "
               "kv_lease_duration, ...)");
    flags.texts("--served-model-name", options.served_model_names, "NAME",
                "Names it answers to, instead of MODEL; the first one is shown");
    flags.secrets("--api-key", options.api_keys,
                  "Keys of which clients must send one (also VLLM_API_KEY)");
    flags.number("--max-model-len", model.max_model_len, 2, kMany,
                 "Tokens of prompt and answer together");
    flags.number("--block-size", model.block_size, 1, 4096, "Tokens of a KV block");
    flags.number("--num-gpu-blocks-override", model.blocks, 1, kMany, "KV blocks of a rank");
    flags.number("--max-num-seqs", model.max_num_seqs, 1, kMany,
                 "Sequences that run at once on a rank");
    flags.number("--max-num-queued-reqs", model.max_queued, 0, kMany,
                 "More than so many waiting sequences are refused with 503; 0: no limit");
    flags.flag("--enable-auto-tool-choice", arguments.auto_tool_choice,
               "Accept tools; needs --tool-call-parser");
    flags.text("--tool-call-parser", arguments.tool_call_parser,
               "Any name; no tool is ever called");
    flags.flag("--enable-request-id-headers", options.enable_request_id_headers,
               "Return X-Request-Id");
    flags.flag("--enable-prompt-tokens-details", options.prompt_tokens_details,
               "usage tells cached_tokens");
    flags.seconds("--sse-keep-alive-interval", options.sse_keep_alive, 0, kLongest,
                  "Silence after which a stream gets a comment; 0: none");
}

void add_sim_flags(FlagSet& flags, EngineArguments& arguments) {
    engine::EngineOptions& options = arguments.options;
    engine::ModelOptions& model = options.timing;
    constexpr double kLongestMs = kLongest * 1000;
    flags.group("Of the imaginary model");
    flags.milliseconds("--sim-ttft-ms", model.first_token, 0, kLongestMs,
                       "Time to the first token");
    flags.fraction("--sim-ttft-us-per-token", arguments.per_token_us, 0, 1e9,
                   "... and so many microseconds more for each prompt token");
    flags.milliseconds("--sim-itl-ms", model.between_tokens, 0, kLongestMs, "Time between tokens");
    flags.number("--sim-output-tokens", model.output_tokens, 0, 100'000'000,
                 "Tokens before the end of the sequence, unless a request asks for fewer");
    flags.milliseconds("--sim-kv-ms", options.kv.transfer_time, 0, kLongestMs,
                       "Time a KV transfer takes");
    flags.milliseconds("--sim-register-ms", options.kv.registration_interval, 0, kLongestMs,
                       "Time between two workers' registrations: /query is incomplete meanwhile");
    flags.texts("--sim-fault", arguments.faults, "SPEC",
                "What to do wrong: KIND,count=N,probability=P,path=PATH,after_events=K,delay_ms=T, "
                "status=429, or the "
                "same as a JSON object; kinds are listed below. POST /sim/fault takes them too; "
                "{\"kind\":\"clear\"} ends all");
    flags.text(
        "--sim-version", options.version,
        "The vLLM that /version tells; below 0.16 the Mooncake contract is the sequential one");
    flags.number("--sim-seed", arguments.seed, 0, UINT32_MAX,
                 "Seed of ids and chances; 0: a random one");
    flags.group("Process");
    flags.choice("--log-level", arguments.log_level,
                 {"debug", "info", "warning", "error", "critical"},
                 "What is logged; without this flag VLLM_LOGGING_LEVEL says it");
}

constexpr std::string_view kEpilogue =
    "\nEnvironment, as vLLM reads it:\n"
    "  VLLM_MOONCAKE_BOOTSTRAP_PORT (8998)           with several ports: the first, or a list of "
    "as many\n"
    "  VLLM_MOONCAKE_ABORT_REQUEST_TIMEOUT (480 s)   P keeps blocks, and D waits, so long\n"
    "  VLLM_MOONCAKE_CONNECTOR_TIMEOUT (30 s)        of the connector's HTTP calls\n"
    "  VLLM_NIXL_SIDE_CHANNEL_HOST, VLLM_NIXL_SIDE_CHANNEL_PORT (5600)\n"
    "  VLLM_HTTP_TIMEOUT_KEEP_ALIVE (5 s), VLLM_HOST_IP, VLLM_API_KEY, VLLM_LOGGING_LEVEL\n"
    "\nGET /sim/state tells what an engine holds.\n";

// -- environment

const char* environment(const char* name) {
    const char* value = std::getenv(name);
    return value != nullptr && *value != '\0' ? value : nullptr;
}

void read_seconds(const char* name, Duration& to) {
    const char* text = environment(name);
    if (text == nullptr) return;
    to = from_seconds(
        parse_double(name, text, 0, kLongest, number_between(" of seconds", 0, kLongest)));
}

// Blocking: a stand-in asks for a name once an engine id.
Result<io::Address> resolve(std::string_view host, std::uint16_t port) {
    addrinfo hints{};
    hints.ai_socktype = SOCK_STREAM;
    addrinfo* found = nullptr;
    const std::string name(host);
    if (getaddrinfo(name.c_str(), std::to_string(port).c_str(), &hints, &found) != 0 ||
        found == nullptr)
        return fail(Errc::NotResolved);
    const io::Address address = io::Address::from_sockaddr(found->ai_addr, found->ai_addrlen);
    freeaddrinfo(found);
    return address;
}

void complete(EngineArguments& arguments) {
    engine::EngineOptions& options = arguments.options;
    if (!arguments.kv_transfer_config.empty())
        if (const auto read =
                engine::read_kv_transfer_config(arguments.kv_transfer_config, options.kv);
            !read)
            throw FlagError(read.error());
    for (const std::string& spec : arguments.faults) {
        const auto fault = engine::parse_fault(spec);
        if (!fault) throw FlagError("--sim-fault " + spec + ": " + fault.error());
        options.faults.push_back(*fault);
    }
    options.timing.first_token_per_prompt_token = from_seconds(arguments.per_token_us / 1e6);
    options.tool_parser = arguments.auto_tool_choice && !arguments.tool_call_parser.empty();
    if (arguments.auto_tool_choice && arguments.tool_call_parser.empty())
        throw FlagError("--enable-auto-tool-choice needs --tool-call-parser");
    read_seconds("VLLM_MOONCAKE_ABORT_REQUEST_TIMEOUT", options.kv.abort_request_timeout);
    read_seconds("VLLM_MOONCAKE_CONNECTOR_TIMEOUT", options.kv.connector_timeout);
    read_seconds("VLLM_HTTP_TIMEOUT_KEEP_ALIVE", options.keep_alive);
    if (const char* key = environment("VLLM_API_KEY"); key != nullptr && options.api_keys.empty())
        options.api_keys.emplace_back(key);
    if (const char* host = environment("VLLM_NIXL_SIDE_CHANNEL_HOST")) options.kv.nixl_host = host;
    if (const char* host = environment("VLLM_HOST_IP")) options.host_ip = host;
    if (const char* port = environment("VLLM_NIXL_SIDE_CHANNEL_PORT"))
        options.kv.nixl_port = to_port("VLLM_NIXL_SIDE_CHANNEL_PORT", port);
    // 0.13 to 0.15 had the sequential contract.
    if (options.version.starts_with("0."))
        options.kv.sequential = std::atoi(options.version.c_str() + 2) < 16;
    options.unix_time = std::time(nullptr);
    options.resolve = resolve;
}

// The options of each engine of this process.
std::vector<engine::EngineOptions> options_of_each(const EngineArguments& arguments) {
    const char* bootstrap_text = environment("VLLM_MOONCAKE_BOOTSTRAP_PORT");
    const std::vector<std::string> bootstraps =
        split(bootstrap_text != nullptr ? bootstrap_text : "8998");
    if (bootstraps.size() > 1 && bootstraps.size() != split(arguments.ports).size())
        refuse("VLLM_MOONCAKE_BOOTSTRAP_PORT", bootstrap_text,
               "one port, or as many as --port has");
    const std::string host = arguments.host == "localhost" ? "127.0.0.1" : arguments.host;
    // A unix socket is one engine; the KV channels are TCP all the same.
    const std::vector<std::string> ports =
        arguments.unix_path.empty() ? split(arguments.ports) : std::vector<std::string>{"0"};
    const std::uint64_t seed = arguments.seed != 0 ? arguments.seed : random_seed();
    std::vector<engine::EngineOptions> all;
    for (std::size_t i = 0; i < ports.size(); ++i) {
        engine::EngineOptions options = arguments.options;
        const auto address = arguments.unix_path.empty()
                                 ? io::Address::from_ip(host, to_port("--port", ports[i]))
                                 : io::Address::from_unix_path(arguments.unix_path);
        if (!address && !arguments.unix_path.empty())
            refuse("--uds", arguments.unix_path, "a path of a unix socket");
        if (!address) refuse("--host", arguments.host, "an IP address, e.g. 127.0.0.1 or ::");
        options.listen = *address;
        const std::uint16_t first =
            to_port("VLLM_MOONCAKE_BOOTSTRAP_PORT", bootstraps[bootstraps.size() > 1 ? i : 0]);
        options.kv.bootstrap_port =
            bootstraps.size() > 1 || first == 0 ? first : static_cast<std::uint16_t>(first + i);
        options.kv.nixl_port =
            static_cast<std::uint16_t>(options.kv.nixl_port + i * options.data_parallel);
        options.seed = seed + i;
        all.push_back(std::move(options));
    }
    return all;
}

void start_log(const FlagSet& flags, const EngineArguments& arguments) {
    std::string level = arguments.log_level;
    if (const char* vllm = environment("VLLM_LOGGING_LEVEL");
        vllm != nullptr && !flags.given("--log-level")) {
        level = vllm;
        for (char& c : level) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c + ('a' - 'A')) : c;
    }
    obs::LogOptions log;
    if (level == "debug") log.level = obs::LogLevel::Debug;
    if (level.starts_with("warn")) log.level = obs::LogLevel::Warning;
    if (level == "error" || level == "critical") log.level = obs::LogLevel::Error;
    obs::start_log(log);
}

// -- running

std::atomic<io::Io*> signalled_io{nullptr};
std::atomic<bool> stop_wanted{false};
static_assert(std::atomic<bool>::is_always_lock_free && std::atomic<io::Io*>::is_always_lock_free);

// wake() only writes to an eventfd, which a signal handler may.
void on_signal(int) {
    stop_wanted.store(true);
    if (io::Io* io = signalled_io.load()) io->wake();
}

void watch_signals(io::Io& io) {
    signalled_io.store(&io);
    struct sigaction action {};
    action.sa_handler = on_signal;
    action.sa_flags = static_cast<int>(SA_RESETHAND);  // the second signal ends the process at once
    sigaction(SIGTERM, &action, nullptr);
    sigaction(SIGINT, &action, nullptr);
}

std::string describe_ready(const engine::Engine& engine) {
    const engine::EngineOptions& options = engine.options();
    std::string line =
        fmt::format("sluice engine: {} ready on {}{}", options.model_name(),
                    engine.address().is_unix() ? "" : "http://", engine.address().text());
    if (options.kv.connector == engine::ConnectorKind::None) return line;
    line += options.kv.connector == engine::ConnectorKind::Mooncake ? ", MooncakeConnector"
                                                                    : ", NixlConnector";
    constexpr std::string_view kRoles[] = {" kv_producer", " kv_consumer", " kv_both"};
    line += kRoles[static_cast<std::size_t>(options.kv.role)];
    if (engine.bootstrap_address().valid())
        line += fmt::format(", bootstrap server on port {}", engine.bootstrap_address().port());
    return line + fmt::format(", engine id {}", engine.engine_id());
}

int serve(io::Io& io, const std::vector<engine::EngineOptions>& all) {
    io::Loop loop(io);
    std::vector<std::unique_ptr<engine::Engine>> engines;
    std::vector<bool> announced(all.size(), false);
    bool failed = false;
    for (const engine::EngineOptions& options : all) {
        engines.push_back(std::make_unique<engine::Engine>(loop, options));
        const auto started = engines.back()->start();
        if (started) continue;
        failed = true;
        fmt::print(stderr,
                   "sluice engine: cannot listen on {} or one of its KV ports: {}\n"
                   "Is another program on the port, or on VLLM_MOONCAKE_BOOTSTRAP_PORT?\n",
                   options.listen.text(), describe(started.error()));
        break;
    }
    while (!failed && !stop_wanted.load()) {
        for (std::size_t i = 0; i < engines.size(); ++i) {
            failed |= engines[i]->dead();
            if (announced[i] || !engines[i]->serving()) continue;
            announced[i] = true;
            fmt::print("{}\n", describe_ready(*engines[i]));
            std::fflush(stdout);
        }
        if (!failed) loop.run_turn(kForever);
    }
    for (const auto& engine : engines) engine->stop();
    const auto finished = [&] {
        for (const auto& engine : engines)
            if (!engine->finished()) return false;
        return true;
    };
    while (!finished()) loop.run_turn(std::chrono::milliseconds(100));
    engines.clear();
    return failed ? 1 : 0;
}

}  // namespace

int run_engine_command(int argc, char** argv) {
    EngineArguments arguments;
    FlagSet flags(
        "sluice engine",
        "A stand-in for `vllm serve`: the same HTTP API and KV roles, an imaginary model.");
    add_vllm_flags(flags, arguments);
    add_sim_flags(flags, arguments);
    flags.with_config_file();
    std::vector<std::string> texts;
    for (int i = 0; i < argc; ++i) texts.push_back(normalised(argv[i]));
    std::vector<char*> normal;
    for (std::string& text : texts) normal.push_back(text.data());
    try {
        flags.parse(argc, normal.data());
    } catch (const HelpWanted& help) {
        throw HelpWanted(std::string(help.what()) + "\nKinds of faults:\n" +
                         engine::describe_faults() + std::string(kEpilogue));
    }
    complete(arguments);
    const auto all = options_of_each(arguments);
    start_log(flags, arguments);

    const auto capabilities = io::probe_uring();
    auto io = io::UringIo::create({.capabilities = capabilities});
    if (!io) {
        fmt::print(stderr, "sluice engine: {}\n", io::explain_missing(capabilities));
        return 1;
    }
    (void)raise_descriptor_limit();
    watch_signals(**io);
    std::vector<engine::EngineOptions> with_log = all;
    for (engine::EngineOptions& options : with_log)
        options.log = [](std::string_view line) { obs::log_info(line); };
    const int status = serve(**io, with_log);
    signalled_io.store(nullptr);
    return status;
}

}  // namespace sluice::app
