// SPDX-License-Identifier: Apache-2.0

// What one strict walk over a request body costs (sluice::json::Scanner), beside two other ways of
// using simdjson on the same bytes:
//   ondemand_lazy    picks three keys; does not validate what it skips (not an option, a floor)
//   dom              simdjson's own fully validating parser, which builds a tape
// Run: json_bench --benchmark_filter=scan/chat_394B; the label gives GB/s through bytes_per_second.

#include <benchmark/benchmark.h>

#include <array>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>

#define SIMDJSON_EXCEPTIONS 0
#include <simdjson.h>

#include "json/scan.h"
#include "json/splice.h"

namespace {

using sluice::json::Kind;
using sluice::json::mask_of;
using sluice::json::Member;
using sluice::json::MemberSpec;
using sluice::json::MemberTable;

// About what a chat request asks for.
constexpr std::array kSpecs{
    MemberSpec{"model", -1, mask_of(Kind::String)},
    MemberSpec{"stream", -1, mask_of(Kind::Bool, Kind::Null)},
    MemberSpec{"max_tokens"},
    MemberSpec{"max_completion_tokens"},
    MemberSpec{"min_tokens"},
    MemberSpec{"n"},
    MemberSpec{"messages"},
    MemberSpec{"prompt"},
    MemberSpec{"stream_options"},
    MemberSpec{"include_usage", 8},
    MemberSpec{"kv_transfer_params"},
    MemberSpec{"ec_transfer_params"},
    MemberSpec{"vllm_xargs"},
    MemberSpec{"kv_transfer_params", 12},
    MemberSpec{"logprobs"},
    MemberSpec{"top_logprobs"},
    MemberSpec{"prompt_logprobs"},
    MemberSpec{"echo"},
    MemberSpec{"request_id"},
    MemberSpec{"session_id"},
};
constexpr MemberTable kTable(kSpecs);

std::string repeat_text(std::size_t size, std::string_view words) {
    std::string text;
    while (text.size() + words.size() <= size) {
        text += words;
    }
    text.resize(size, 'x');  // whole words only, so that no escape or UTF-8 sequence is cut
    return text;
}

constexpr std::string_view kWords = "The quick brown fox jumps over the lazy dog. ";

std::string chat(std::size_t size, std::string_view words = kWords) {
    const std::string head =
        R"({"model": "meta-llama/Llama-3.1-70B-Instruct", "messages": [{"role": "system", )"
        R"("content": "You are a helpful assistant."}, {"role": "user", "content": ")";
    const std::string tail =
        R"("}], "temperature": 0.7, "top_p": 0.95, "max_tokens": 256, "stream": true, )"
        R"("stream_options": {"include_usage": true}})";
    return head + repeat_text(size - head.size() - tail.size(), words) + tail;
}

std::string token_ids(std::size_t size, std::string_view separator) {
    std::string body = R"({"model":"m","max_tokens":16,"prompt":[)";
    std::uint32_t state = 1;
    while (body.size() < size) {
        state = state * 1664525U + 1013904223U;
        body += std::to_string((state >> 8U) % 128256U);
        body += separator;
    }
    return body + "1]}";
}

std::string messages(std::size_t size) {
    std::string body = R"({"model":"m","stream":true,"messages":[{"role":"system","content":"s"})";
    while (body.size() < size) {
        body += R"(,{"role":"user","content":")" + repeat_text(150, kWords) + R"("})";
    }
    return body + "]}";
}

// Code in a prompt: a newline and quotes escaped about every 30 bytes.
constexpr std::string_view kCode = R"(    if (name == \"x\") {\n        return 1;\n    }\n)";
constexpr std::string_view kChinese = "\xe5\xbf\xab\xe9\x80\x9f\xe6\xa3\x95\xe8\x89\xb2 ";

struct Body {
    const char* name;
    std::string text;
};

const std::array<Body, 9>& bodies() {
    static const std::array<Body, 9> all{{{"chat_394B", chat(394)},
                                          {"chat_2KB", chat(2048)},
                                          {"chat_32KB", chat(32 << 10)},
                                          {"chat_32KB_code", chat(32 << 10, kCode)},
                                          {"chat_32KB_chinese", chat((32 << 10) - 2, kChinese)},
                                          {"one_string_1MB", chat(1 << 20)},
                                          {"token_ids_1MB", token_ids(1 << 20, ", ")},
                                          {"token_ids_1MB_compact", token_ids(1 << 20, ",")},
                                          {"messages_1MB", messages(1 << 20)}}};
    return all;
}

void finish(benchmark::State& state, std::size_t bytes) {
    state.SetBytesProcessed(static_cast<std::int64_t>(state.iterations()) *
                            static_cast<std::int64_t>(bytes));
}

void scan(benchmark::State& state, std::string_view body) {
    const simdjson::padded_string padded(body);
    sluice::json::Scanner scanner;
    std::array<Member, kSpecs.size()> found;
    for (auto _ : state) {
        auto root = scanner.scan(padded, kTable, found);
        if (!root) {
            state.SkipWithError("refused");
            break;
        }
        benchmark::DoNotOptimize(found);
    }
    finish(state, body.size());
}

// The edits of a prefill leg, on top of the scan.
void scan_and_splice(benchmark::State& state, std::string_view body) {
    const simdjson::padded_string padded(body);
    sluice::json::Scanner scanner;
    std::array<Member, kSpecs.size()> found;
    sluice::json::Splice splice;
    for (auto _ : state) {
        auto root = scanner.scan(padded, kTable, found);
        splice.reset(padded, *root, found);
        splice.remove(8);
        splice.replace(1, "false");
        splice.replace(2, "1");
        splice.insert(-1, R"("kv_transfer_params":{"do_remote_decode":true,"transfer_id":"x"})");
        benchmark::DoNotOptimize(splice.finish());
    }
    finish(state, body.size());
}

void ondemand_lazy(benchmark::State& state, std::string_view body) {
    const simdjson::padded_string padded(body);
    simdjson::ondemand::parser parser;
    for (auto _ : state) {
        simdjson::ondemand::document document;
        simdjson::ondemand::object root;
        if (parser.iterate(padded).get(document) != simdjson::SUCCESS ||
            document.get_object().get(root) != simdjson::SUCCESS) {
            state.SkipWithError("refused");
            break;
        }
        int seen = 0;
        for (auto field : root) {
            simdjson::ondemand::raw_json_string key;
            if (field.key().get(key) == simdjson::SUCCESS &&
                (key == "model" || key == "stream" || key == "max_tokens")) {
                ++seen;
            }
        }
        benchmark::DoNotOptimize(seen);
    }
    finish(state, body.size());
}

void dom(benchmark::State& state, std::string_view body) {
    const simdjson::padded_string padded(body);
    simdjson::dom::parser parser;
    for (auto _ : state) {
        simdjson::dom::element root;
        if (parser.parse(padded).get(root) != simdjson::SUCCESS) {
            state.SkipWithError("refused");
            break;
        }
        benchmark::DoNotOptimize(root);
    }
    finish(state, body.size());
}

void register_all() {
    struct Contender {
        const char* name;
        void (*run)(benchmark::State&, std::string_view);
    };
    constexpr std::array kContenders{
        Contender{"scan", scan}, Contender{"scan_and_splice", scan_and_splice},
        Contender{"ondemand_lazy", ondemand_lazy}, Contender{"dom", dom}};
    for (const Body& body : bodies()) {
        for (const Contender& contender : kContenders) {
            benchmark::RegisterBenchmark(
                (std::string(contender.name) + "/" + body.name).c_str(),
                [run = contender.run, &body](benchmark::State& state) { run(state, body.text); });
        }
    }
}

}  // namespace

int main(int argc, char** argv) {
    register_all();
    benchmark::Initialize(&argc, argv);
    if (benchmark::ReportUnrecognizedArguments(argc, argv)) {
        return EXIT_FAILURE;
    }
    benchmark::RunSpecifiedBenchmarks();
    return EXIT_SUCCESS;
}
