// SPDX-License-Identifier: Apache-2.0
// /metrics with vLLM's names, as far as proxies and tests read them.
#include <charconv>

#include "engine/impl.h"

namespace sluice::engine {

namespace {

class MetricsText {
public:
    explicit MetricsText(const std::string& model)
        : model_("model_name=\"" + escaped(model) + "\""), labels_("engine=\"0\"," + model_) {}

    void family(std::string_view name, std::string_view type, std::string_view help) {
        name_ = name;
        text.append("# HELP ")
            .append(name)
            .append(" ")
            .append(help)
            .append("\n# TYPE ")
            .append(name);
        text.append(" ").append(type).append("\n");
        counter_ = type == "counter";
    }
    void sample(double value, std::string_view more = {}) { write(labels_, value, more); }
    // Of the API server, which counts for all engines.
    void server_sample(double value, std::string_view more) { write(model_, value, more); }
    void write(std::string_view labels, double value, std::string_view more) {
        text.append(name_).append(counter_ ? "_total{" : "{").append(labels);
        if (!more.empty()) text.append(",").append(more);
        char digits[32];
        const auto end = std::to_chars(digits, digits + sizeof digits, value).ptr;
        std::string number(digits, end);
        if (number.find_first_of(".e") == std::string::npos) number += ".0";
        text.append("} ").append(number).append("\n");
    }
    void one(std::string_view name, std::string_view type, std::string_view help, double value) {
        family(name, type, help);
        sample(value);
    }

    std::string text;

private:
    static std::string escaped(const std::string& label) {
        std::string out;
        for (const char c : label) {
            if (c == '"' || c == '\\') out += '\\';
            if (c == '\n')
                out += "\\n";
            else
                out += c;
        }
        return out;
    }

    std::string model_;
    std::string labels_;
    std::string_view name_;
    bool counter_ = false;
};

double number(std::uint64_t value) { return static_cast<double>(value); }

}  // namespace

void Engine::Impl::answer_metrics(Connection& connection) {
    const EngineState now = state();
    const EngineCounters& counted = now.counters;
    MetricsText out(options_.model_name());
    out.text =
        "# HELP python_gc_objects_collected_total Objects collected during gc\n"
        "# TYPE python_gc_objects_collected_total counter\n"
        "python_gc_objects_collected_total{generation=\"0\"} 0.0\n";
    const double total = std::max(now.scheduler.blocks_total, 1U);
    out.one("vllm:num_requests_running", "gauge", "Number of requests in model execution batches.",
            now.scheduler.running);
    const double waiting = now.scheduler.waiting + now.scheduler.loading;
    out.one("vllm:num_requests_waiting", "gauge", "Number of requests waiting to be processed.",
            waiting);
    out.family("vllm:num_requests_waiting_by_reason", "gauge",
               "Number of waiting requests by reason.");
    out.sample(now.scheduler.waiting, "reason=\"capacity\"");
    out.sample(now.scheduler.loading, "reason=\"deferred\"");
    out.family("vllm:num_requests_kv_fetch_by_stage", "gauge",
               "Number of requests that fetch KV, by stage.");
    out.sample(0, "stage=\"waiting_to_start\"");
    out.sample(now.connector.pulls_waiting, "stage=\"in_progress\"");
    out.sample(0, "stage=\"completed_waiting\"");
    out.one("vllm:kv_cache_usage_perc", "gauge", "KV-cache usage. 1 means 100 percent usage.",
            now.scheduler.blocks_used / total);
    out.one("vllm:prompt_tokens", "counter", "Number of prefill tokens processed.",
            number(counted.prompt_tokens));
    out.one("vllm:generation_tokens", "counter", "Number of generation tokens processed.",
            number(counted.generated_tokens));
    out.family("vllm:prompt_tokens_by_source", "counter", "Number of prompt tokens by source.");
    out.sample(number(counted.prompt_tokens_computed), "source=\"local_compute\"");
    out.sample(0, "source=\"local_cache_hit\"");
    out.sample(number(counted.prompt_tokens_external), "source=\"external_kv_transfer\"");
    out.one("vllm:external_prefix_cache_queries", "counter",
            "External prefix cache queries, in tokens.", number(counted.external_queries));
    out.one("vllm:external_prefix_cache_hits", "counter", "External prefix cache hits, in tokens.",
            number(counted.prompt_tokens_external));
    out.family("vllm:request_success", "counter", "Count of successfully processed requests.");
    for (const FinishReason reason :
         {FinishReason::Stop, FinishReason::Length, FinishReason::Abort, FinishReason::Error})
        out.sample(number(counted.finished[static_cast<std::size_t>(reason)]),
                   "finished_reason=\"" + std::string(finish_name(reason)) + "\"");
    out.one("vllm:prefix_cache_queries", "counter", "Prefix cache queries, in tokens.",
            number(counted.prompt_tokens));
    out.one("vllm:prefix_cache_hits", "counter", "Prefix cache hits, in tokens.", 0);
    out.one("vllm:num_preemptions", "counter", "Preemptions.", 0);
    out.family("vllm:admission_rejections", "counter", "Requests refused at a queue limit.");
    out.server_sample(number(counted.admission_rejections), "reason=\"max_num_queued_reqs\"");
    out.server_sample(0, "reason=\"max_num_queued_tokens\"");
    out.family("vllm:cache_config_info", "gauge", "The cache's settings.");
    out.sample(1, "block_size=\"" + std::to_string(options_.timing.block_size) +
                      "\",num_gpu_blocks=\"" + std::to_string(now.scheduler.blocks_total) + "\"");
    if (options_.kv.connector != ConnectorKind::None) {
        const bool mooncake = options_.kv.connector == ConnectorKind::Mooncake;
        const auto name = [&](std::string_view rest) {
            return (mooncake ? "vllm:mooncake_" : "vllm:nixl_") + std::string(rest);
        };
        const std::string transfers = name("num_failed_transfers");
        const std::string expired = name("num_kv_expired_reqs");
        out.one(transfers, "counter", "Failed transfers.", number(counted.failed_transfers));
        out.one(expired, "counter", "Requests whose KV nobody fetched in time.",
                number(counted.expired));
        if (mooncake)
            out.one("vllm:mooncake_num_failed_recvs", "counter", "Failed receives.",
                    number(counted.failed_receives));
    }
    connection.respond(200, "text/plain; version=1.0.0; charset=utf-8", out.text);
}

}  // namespace sluice::engine
