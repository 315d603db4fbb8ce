// SPDX-License-Identifier: Apache-2.0
#include "app/load_command.h"

#include <fmt/format.h>
#include <netdb.h>
#include <signal.h>

#include <atomic>
#include <cstdio>

#include "app/flag_values.h"
#include "app/flags.h"
#include "base/cpu.h"
#include "fleet/url.h"
#include "http/head_guard.h"
#include "load/report.h"
#include "load/request_maker.h"

namespace sluice::app {

namespace {

constexpr double kLongest = 1e6;  // seconds

struct LoadArguments {
    load::LoadOptions options;
    std::string url = "http://127.0.0.1:8000";
    std::string api = "chat";
    std::string path;
    std::string prompt_bytes = "1024";
    std::string output_tokens = "64";
    std::string arrivals = "constant";
    std::string format = "table";
    std::string pids;
    std::string cpus;
    std::string api_key;
    std::string extra_body;
    std::vector<std::string> headers;
    std::uint32_t requests = 0;
    std::uint32_t seed = 1;
    bool print_request = false;
};

void add_flags(FlagSet& flags, LoadArguments& arguments) {
    load::LoadOptions& options = arguments.options;
    flags.positional("URL", arguments.url, "Where to [" + arguments.url + "]");
    flags.group("Requests");
    flags.choice("--api", arguments.api, {"chat", "completions"}, "Chat or plain completions");
    flags.text("--path", arguments.path, "The path, if it is not the API's usual one");
    flags.text("--model", options.model, "The model's name");
    flags.flag("--stream", options.stream, "Ask for a stream of events");
    flags.text("--prompt-bytes", arguments.prompt_bytes,
               "Size of the prompts: " + std::string(load::SizeDistribution::kForms));
    flags.text("--output-tokens", arguments.output_tokens, "max_tokens, in the same forms");
    flags.text("--extra-body", arguments.extra_body,
               "JSON object whose members every body gets, e.g. {\"ignore_eos\":true}");
    flags.texts("--header", arguments.headers, "FIELD", "Further field, as \"Name: value\"");
    flags.secret("--api-key", arguments.api_key, "Sent as Authorization: Bearer");
    flags.flag("--print-request", arguments.print_request,
               "Print one request as it would be sent, and exit");

    flags.group("Load");
    flags.number("-c,--connections", options.connections, 1, load::kConnectionsMax,
                 "Requests at once; in an open loop at most so many, and the wait for one counts");
    flags.fraction("--rate", options.rate, 0, 1e7,
                   "Open loop: requests a second, sent at their times whatever the answers do; 0: "
                   "closed loop, each connection sends when its answer has come");
    flags.choice("--arrivals", arguments.arrivals, {"constant", "poisson"},
                 "Of the open loop: equal or exponential pauses");
    flags.number("--requests", arguments.requests, 0, UINT32_MAX,
                 "End after so many requests behind the warm-up; 0: after --duration");
    flags.seconds("--duration", options.duration, 0.001, kLongest, "How long requests are sent");
    flags.seconds("--warmup", options.warm_up, 0, kLongest,
                  "Before that: requests that do not count");
    flags.seconds("--ramp", options.ramp, 0, kLongest,
                  "Closed loop: spread the connections' first requests over this time");
    flags.seconds("--timeout", options.timeout, 0.001, kLongest, "Limit of one request");
    flags.seconds("--drain", options.drain, 0, kLongest,
                  "How long requests under way may take after the end");
    flags.number("--threads", options.threads, 1, 256, "Threads that send");
    flags.text("--cpus", arguments.cpus, "Pin the threads to these in turn, e.g. 2-5,8");
    flags.number("--seed", arguments.seed, 0, UINT32_MAX, "Of sizes, pauses and prompts");

    flags.group("Report");
    flags.text("--pid", arguments.pids,
               "Processes whose CPU time and memory are measured, with commas");
    flags.choice("--format", arguments.format, {"table", "json"}, "Of the result");
    flags.seconds("--progress", options.progress, 0, kLongest,
                  "Tell on standard error how it goes, this often; 0: never");
}

// "1,4-6"
std::vector<int> parse_numbers(const std::string& flag, const std::string& text, int most) {
    std::vector<int> numbers;
    const std::string allowed = fmt::format("whole numbers from 0 to {}, as in 1,4-6", most);
    for (std::size_t at = 0; at < text.size();) {
        const auto comma = std::min(text.find(',', at), text.size());
        const std::string part = text.substr(at, comma - at);
        const auto dash = part.find('-');
        const double low = parse_double(flag, part.substr(0, dash), 0, most, allowed);
        const double high = dash == std::string::npos
                                ? low
                                : parse_double(flag, part.substr(dash + 1), low, most, allowed);
        if (low != static_cast<int>(low) || high != static_cast<int>(high) || high - low > 1023)
            refuse(flag, text, allowed);
        for (int number = static_cast<int>(low); number <= static_cast<int>(high); ++number)
            numbers.push_back(number);
        at = comma + 1;
    }
    return numbers;
}

load::SizeDistribution parse_sizes(const std::string& flag, const std::string& text,
                                   std::uint64_t low, std::uint64_t high) {
    const auto sizes = load::SizeDistribution::parse(text);
    if (!sizes || sizes->smallest() < low || sizes->largest() > high)
        refuse(flag, text,
               fmt::format("one of {}, with sizes from {} to {}", load::SizeDistribution::kForms,
                           low, high));
    return *sizes;
}

// Blocking: before anything starts.
io::Address resolve(const std::string& url, const fleet::Endpoint& endpoint) {
    if (!endpoint.is_name()) return endpoint.address;
    addrinfo hints{};
    hints.ai_socktype = SOCK_STREAM;
    addrinfo* found = nullptr;
    if (getaddrinfo(endpoint.host.c_str(), std::to_string(endpoint.port).c_str(), &hints, &found) !=
            0 ||
        found == nullptr)
        throw FlagError(url + ": the name \"" + endpoint.host + "\" has no address");
    const io::Address address = io::Address::from_sockaddr(found->ai_addr, found->ai_addrlen);
    freeaddrinfo(found);
    return address;
}

void add_headers(LoadArguments& arguments) {
    for (const std::string& field : arguments.headers) {
        const auto colon = field.find(": ");
        const bool sound = colon != std::string::npos && colon + 2 < field.size() &&
                           http::is_token(field.substr(0, colon)) &&
                           field.find_first_of(std::string("\r\n\0", 3)) == std::string::npos;
        if (!sound) refuse("--header", field, "of the form \"Name: value\"");
        arguments.options.field_lines += field + "\r\n";
    }
    if (!arguments.api_key.empty())
        arguments.options.field_lines += "Authorization: Bearer " + arguments.api_key + "\r\n";
}

// The text between the braces, with a comma before it.
std::string members_of(const std::string& object) {
    const auto first = object.find_first_not_of(" \t\n");
    const auto last = object.find_last_not_of(" \t\n");
    if (first == std::string::npos) return {};
    if (object[first] != '{' || object[last] != '}')
        refuse("--extra-body", object, "a JSON object, e.g. {\"ignore_eos\":true}");
    const std::string inner = object.substr(first + 1, last - first - 1);
    return inner.find_first_not_of(" \t\n") == std::string::npos ? std::string() : "," + inner;
}

void complete(LoadArguments& arguments) {
    load::LoadOptions& options = arguments.options;
    const auto endpoint = fleet::parse_url(arguments.url);
    if (!endpoint) throw FlagError(endpoint.error());
    options.target = resolve(arguments.url, *endpoint);
    options.authority = endpoint->authority();
    const bool chat = arguments.api == "chat";
    options.api = chat ? json::Api::Chat : json::Api::Completions;
    options.path = chat ? "/v1/chat/completions" : "/v1/completions";
    if (!arguments.path.empty()) {
        options.path = arguments.path;
        if (options.path[0] != '/' || options.path.find_first_of(" \r\n\t") != std::string::npos)
            refuse("--path", options.path, "a path that begins with /");
    }
    if (options.model.find_first_of("\"\\\r\n") != std::string::npos)
        refuse("--model", options.model, "a name without quotes and backslashes");
    options.prompt_bytes =
        parse_sizes("--prompt-bytes", arguments.prompt_bytes, 0, load::kPromptBytesMax);
    options.output_tokens =
        parse_sizes("--output-tokens", arguments.output_tokens, 1, load::kOutputTokensMax);
    options.extra_members = members_of(arguments.extra_body);
    add_headers(arguments);
    options.poisson = arguments.arrivals == "poisson";
    options.requests = arguments.requests;
    options.seed = arguments.seed;
    options.pids = parse_numbers("--pid", arguments.pids, 1 << 22);
    options.cpus = parse_numbers("--cpus", arguments.cpus, 4095);
    if (options.threads > options.connections)
        throw FlagError(fmt::format("--threads: {} is more than --connections, {}", options.threads,
                                    options.connections));
}

int print_request(const load::LoadOptions& options) {
    BufferPool buffers(1UL << 30);
    {
        load::RequestMaker maker(options, buffers, options.seed);
        const SliceQueue message = maker.make();
        for (std::size_t i = 0; i < message.count(); ++i)
            std::fwrite(message[i].data(), 1, message[i].size, stdout);
    }
    return 0;
}

std::atomic<bool> interrupted{false};
static_assert(std::atomic<bool>::is_always_lock_free);

void on_signal(int) { interrupted.store(true); }

void watch_signals() {
    struct sigaction action {};
    action.sa_handler = on_signal;
    action.sa_flags = static_cast<int>(SA_RESETHAND);  // the second signal ends the process at once
    sigaction(SIGTERM, &action, nullptr);
    sigaction(SIGINT, &action, nullptr);
    signal(SIGPIPE, SIG_IGN);
}

}  // namespace

int run_load_command(int argc, char** argv) {
    LoadArguments arguments;
    FlagSet flags("sluice load",
                  "Sends requests to a proxy or an engine and tells how long they took.");
    add_flags(flags, arguments);
    flags.parse(argc, argv);
    complete(arguments);
    const load::LoadOptions& options = arguments.options;
    if (arguments.print_request) return print_request(options);
    if (raise_descriptor_limit() < options.connections + 64ULL)
        throw FlagError("--connections: more than this process may have descriptors (ulimit -n)");
    watch_signals();

    const auto result = load::run_load(
        options, [](std::string_view line) { fmt::print(stderr, "{}\n", line); }, interrupted);
    if (!result) {
        fmt::print(stderr, "sluice load: {}\n", result.error());
        return 1;
    }
    fmt::print("{}", arguments.format == "json" ? load::json_of(options, *result)
                                                : load::table_of(options, *result));
    return result->tally->succeeded.value() > 0 ? 0 : 1;
}

}  // namespace sluice::app
