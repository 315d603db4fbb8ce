// SPDX-License-Identifier: Apache-2.0
// Runs fixed workloads through the proxy on ScriptIo, for perf/instructions to count under
// callgrind.
//
//   proxy_instructions --key          what the counts depend on besides the source
//   proxy_instructions WORKLOAD N     N requests of it, counted, behind requests that are not
//   proxy_instructions --all WORKLOAD N   counted with the scripts, so that functions have names
#include <gnu/libc-version.h>
#include <simdjson.h>

#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "pd/proxy.h"
#include "script_io.h"

#define SLUICE_TEXT_OF_(word) #word
#define SLUICE_TEXT_OF(word) SLUICE_TEXT_OF_(word)

namespace sluice::guard {
namespace {

constexpr int kClients = 4;
constexpr std::uint64_t kWarmUp = 300;

struct Workload {
    std::string_view name;
    std::size_t prompt_bytes;
    int events;  // 0: a plain answer
    fleet::DialectKind dialect;
};

constexpr Workload kWorkloads[] = {
    {"nixl-140B", 140, 0, fleet::DialectKind::Nixl},
    {"nixl-32KB", 32 * 1024, 0, fleet::DialectKind::Nixl},
    {"mooncake-140B", 140, 0, fleet::DialectKind::Mooncake},
    {"nixl-sse-8", 140, 8, fleet::DialectKind::Nixl},
    {"nixl-sse-72", 140, 72, fleet::DialectKind::Nixl},
};

std::string message(const std::string& first_line, const std::string& body) {
    return first_line +
           "\r\nContent-Type: application/json\r\nContent-Length: " + std::to_string(body.size()) +
           "\r\n\r\n" + body;
}

std::string chunk(const std::string& bytes) {
    char size[24];
    std::snprintf(size, sizeof size, "%zx\r\n", bytes.size());
    return size + bytes + "\r\n";
}

Script script_of(const Workload& workload) {
    Script script;
    const std::string stream = workload.events > 0 ? "true" : "false";
    std::string prompt;
    while (prompt.size() < workload.prompt_bytes) prompt += "The quick brown fox jumps. ";
    prompt.resize(workload.prompt_bytes);
    script.request = message(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: proxy:8000\r\nUser-Agent: guard/1\r\nAccept: "
        "*/*",
        R"({"model":"m","messages":[{"role":"user","content":")" + prompt +
            R"("}],"max_tokens":64,"stream":)" + stream + "}");
    script.prefill_answer = message(
        "HTTP/1.1 200 OK\r\nServer: uvicorn",
        R"({"id":"c","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":)"
        R"({"role":"assistant","content":"a"},"finish_reason":"length"}],"usage":{"prompt_tokens":9,)"
        R"("total_tokens":10,"completion_tokens":1},"kv_transfer_params":{"do_remote_prefill":true,)"
        R"("do_remote_decode":false,"remote_block_ids":[1,2,3,4],"remote_engine_id":"engine-0",)"
        R"("remote_host":"10.0.1.1","remote_port":5600,"tp_size":1}})");
    if (workload.events == 0) {
        script.decode_answer = {message(
            "HTTP/1.1 200 OK\r\nServer: uvicorn",
            R"({"id":"c","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,)"
            R"("message":{"role":"assistant","content":")" +
                std::string(200, 'a') + R"("},"finish_reason":"stop"}]})")};
        return script;
    }
    const std::string begin = R"(data: {"id":"c","object":"chat.completion.chunk","created":1,)"
                              R"("model":"m","choices":[{"index":0,"delta":)";
    const std::string end = R"(,"logprobs":null,"finish_reason":null}]})"
                            "\n\n";
    script.decode_answer.push_back(
        "HTTP/1.1 200 OK\r\nServer: uvicorn\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
        "Transfer-Encoding: chunked\r\n\r\n" +
        chunk(begin + R"({"role":"assistant","content":""})" + end));
    for (int i = 0; i < workload.events; ++i)
        script.decode_answer.push_back(chunk(begin + R"({"content":" token"})" + end));
    script.decode_answer.push_back(chunk("data: [DONE]\n\n") + "0\r\n\r\n");
    return script;
}

std::shared_ptr<const fleet::FleetSnapshot> fleet_of(fleet::DialectKind dialect) {
    auto fleet = std::make_shared<fleet::FleetSnapshot>();
    for (const fleet::Role role : {fleet::Role::Prefill, fleet::Role::Decode}) {
        const bool prefill = role == fleet::Role::Prefill;
        fleet::Instance instance;
        instance.role = role;
        const std::uint16_t port = prefill ? ScriptIo::kPrefillPort : ScriptIo::kDecodePort;
        instance.host_header = "10.0.0.2:" + std::to_string(port);
        instance.url = "http://" + instance.host_header;
        instance.address = *io::Address::from_ip("10.0.0.2", port);
        instance.state = std::make_shared<fleet::InstanceState>();
        if (prefill) {
            instance.dialect = dialect;
            if (dialect == fleet::DialectKind::Mooncake) {
                instance.bootstrap_url = "http://10.0.0.2:8998";
                instance.ranks = {{0, "engine-0"}};
            }
        }
        (prefill ? fleet->prefill : fleet->decode).push_back(std::move(instance));
    }
    return fleet;
}

void run(io::Loop& loop, ScriptIo& io, const Script& script, std::uint64_t requests) {
    io.begin(script, kClients, requests);
    while (!io.finished()) {
        const Counted counted;
        loop.run_turn(std::chrono::seconds(1));
    }
}

int run_workload(const Workload& workload, std::uint64_t requests) {
    ScriptIo io;
    io::Loop loop(io);
    pd::ProxyOptions options;
    // Timers far away, so that their number does not depend on how many turns a request takes.
    options.upstream_keep_alive = options.server.idle_timeout = std::chrono::hours(24);
    fleet::Fleet fleet(fleet_of(workload.dialect));
    pd::Shared shared(options, fleet);
    pd::Proxy proxy(loop, shared, 1);
    shared.metrics.push_back(&proxy.metrics());
    loop.on_quiescent(Delegate<void()>::to<&pd::Proxy::between_turns>(proxy));
    proxy.add_listener(*io.listen({}, false));

    const Script script = script_of(workload);
    run(loop, io, script, kWarmUp);
    if (leave_scripts_out) CALLGRIND_ZERO_STATS;
    run(loop, io, script, requests);
    if (leave_scripts_out) CALLGRIND_DUMP_STATS;
    const std::uint64_t bad = io.bad_answers();
    proxy.shut_down();
    while (!proxy.finished()) loop.run_turn(Duration::zero());
    if (bad == 0) return 0;
    std::fprintf(stderr, "%llu answers were not 200\n", static_cast<unsigned long long>(bad));
    return 1;
}

}  // namespace
}  // namespace sluice::guard

int main(int argc, char** argv) {
    using namespace sluice::guard;
    if (argc == 2 && std::string_view(argv[1]) == "--key") {
        std::printf("%s %s, glibc %s, simdjson %s\n",
#ifdef __clang__
                    "clang",
#else
                    "gcc",
#endif
                    __VERSION__, gnu_get_libc_version(), SLUICE_TEXT_OF(SIMDJSON_VERSION));
        return 0;
    }
    if (argc == 2 && std::string_view(argv[1]) == "--list") {
        for (const Workload& workload : kWorkloads)
            std::printf("%.*s\n", static_cast<int>(workload.name.size()), workload.name.data());
        return 0;
    }
    if (argc == 4 && std::string_view(argv[1]) == "--all") {
        leave_scripts_out = false;
        --argc;
        ++argv;
    }
    if (argc == 3)
        for (const Workload& workload : kWorkloads)
            if (workload.name == argv[1])
                return run_workload(workload, std::strtoull(argv[2], nullptr, 10));
    std::fprintf(stderr, "usage: %s --key | --list | WORKLOAD REQUESTS\n", argv[0]);
    return 2;
}
