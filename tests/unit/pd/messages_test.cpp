// SPDX-License-Identifier: Apache-2.0
// What P and D are sent, to the byte: the dialects' parameters, the edits, and the heads.
#include <gtest/gtest.h>

#include "pd/dialects/mooncake.h"
#include "pd/dialects/mooncake_sequential.h"
#include "pd/dialects/nixl.h"
#include "unit/pd/world.h"

namespace sluice::pd::test {
namespace {

using json::Api;

const fleet::DataParallelRank kRank{3, "engine-b_dp3"};

AttemptFacts facts_of(const fleet::Instance& instance) {
    return {&instance, &kRank, "xfer-1", instance.bootstrap_url, kRank.engine_id};
}

std::string params_of(const Dialect& dialect, bool prefill, std::string_view answer = {}) {
    BufferPool pool(1 << 20);
    TextArena texts(pool);
    TextWriter writer(texts);
    const fleet::Instance instance = instance_at(fleet::Role::Prefill, "p:8010");
    if (prefill)
        dialect.write_prefill_params(writer, facts_of(instance));
    else
        dialect.write_decode_params(writer, facts_of(instance), answer);
    return std::string(writer.finish().view());
}

// -- dialects

TEST(Dialects, Mooncake) {
    const Dialect& it = mooncake();
    EXPECT_EQ(it.order(), LegOrder::Concurrent);
    EXPECT_EQ(params_of(it, true),
              R"({"do_remote_decode":true,"do_remote_prefill":false,"transfer_id":"xfer-1"})");
    EXPECT_EQ(params_of(it, false), R"({"do_remote_decode":false,"do_remote_prefill":true,)"
                                    R"("remote_bootstrap_addr":"http://10.0.0.1:8998",)"
                                    R"("remote_engine_id":"engine-b_dp3","transfer_id":"xfer-1"})");
    EXPECT_FALSE(it.answer_carries_params());
    EXPECT_TRUE(it.finish_unwanted_prefill(true)) << "cutting it would pin D's blocks";
    EXPECT_FALSE(it.finish_unwanted_prefill(false)) << "nobody will pull it";
}

TEST(Dialects, MooncakeBefore016) {
    const Dialect& it = mooncake_sequential();
    EXPECT_EQ(it.order(), LegOrder::Sequential);
    EXPECT_EQ(params_of(it, true), R"({"do_remote_decode":true,"do_remote_prefill":false})");
    EXPECT_EQ(params_of(it, false, R"({"remote_host":"h","remote_port":1})"),
              R"({"remote_host":"h","remote_port":1})");
    EXPECT_TRUE(it.answer_carries_params());
    EXPECT_FALSE(it.finish_unwanted_prefill(true));
}

TEST(Dialects, Nixl) {
    const Dialect& it = nixl();
    EXPECT_EQ(it.order(), LegOrder::Sequential);
    EXPECT_EQ(params_of(it, true),
              R"({"do_remote_decode":true,"do_remote_prefill":false,"remote_engine_id":null,)"
              R"("remote_block_ids":null,"remote_host":null,"remote_port":null})");
    // Unknown members, odd blanks and all: as they came.
    const std::string answer = "{ \"remote_block_ids\" : [[1, 2]],\"new\":{\"x\":[null]}}";
    EXPECT_EQ(params_of(it, false, answer), answer);
    EXPECT_TRUE(it.answer_carries_params());
    EXPECT_FALSE(it.finish_unwanted_prefill(true));
}

TEST(Dialects, ByKind) {
    EXPECT_EQ(dialect_of(fleet::DialectKind::Unknown), nullptr);
    EXPECT_EQ(dialect_of(fleet::DialectKind::Mooncake), &mooncake());
    EXPECT_EQ(dialect_of(fleet::DialectKind::MooncakeSequential), &mooncake_sequential());
    EXPECT_EQ(dialect_of(fleet::DialectKind::Nixl), &nixl());
}

// -- heads

TEST(LegMessage, HeadsAreWrittenAnew) {
    Request request(R"({"a":1})", Api::Chat,
                    "Connection: X-Gone\r\nX-Gone: 1\r\nX-Stays: 2\r\n"
                    "X-Request-Id: theirs\r\nX-data-parallel-rank: 9\r\nAccept-Encoding: br\r\n"
                    "Authorization: Bearer theirs\r\nTE: trailers\r\n");
    const std::string message = request.plain();
    EXPECT_EQ(message,
              "POST /v1/chat/completions?a=b HTTP/1.1\r\nHost: p:8010\r\nX-Stays: 2\r\n"
              "Authorization: Bearer theirs\r\nX-Request-Id: id-1\r\nVia: 1.1 sluice\r\n"
              "Content-Length: 7\r\n\r\n{\"a\":1}");
}

TEST(LegMessage, KeysAndRanks) {
    Request request("{}", Api::Chat, "Authorization: Bearer theirs\r\n");
    LegHeadFacts facts{"id-1", "ours", false, &kRank};
    const std::string own = request.plain(facts);
    EXPECT_NE(own.find("Authorization: Bearer ours\r\n"), std::string::npos) << own;
    EXPECT_EQ(own.find("theirs"), std::string::npos);
    EXPECT_NE(own.find("X-data-parallel-rank: 3\r\n"), std::string::npos);
    facts = {"id-1", {}, true, nullptr};
    EXPECT_EQ(request.plain(facts).find("Authorization"), std::string::npos)
        << "the client's key is for the proxy alone";
}

// -- bodies

TEST(LegMessage, PrefillComputesOneTokenAndNothingElseChanges) {
    Request request(
        R"({ "model":"m", "messages":[{"role":"user","content":"hi \u00e4"}],"stream":true,)"
        R"("stream_options":{"include_usage":true},"max_tokens":50,"min_tokens":7,"n":1,)"
        R"("logprobs":true,"top_logprobs":2,"temperature":0.5, "x":[1,{"y":null}] })");
    ASSERT_TRUE(request.scanned);
    const std::string message = request.prefill(mooncake(), facts_of(request.instance));
    EXPECT_EQ(body_of(message),
              R"({"kv_transfer_params":{"do_remote_decode":true,"do_remote_prefill":false,)"
              R"("transfer_id":"xfer-1"}, "model":"m", "messages":[{"role":"user",)"
              R"("content":"hi \u00e4"}],"stream":false,"max_tokens":1,"min_tokens":1,)"
              R"("temperature":0.5, "x":[1,{"y":null}] })");
    EXPECT_NE(message.find("Content-Length: " + std::to_string(body_of(message).size()) + "\r\n"),
              std::string::npos);
}

TEST(LegMessage, PrefillIsToldItsLengthInTheApisOwnWord) {
    Request chat(R"({"max_completion_tokens":9})");
    EXPECT_EQ(body_of(chat.prefill(mooncake_sequential())),
              R"({"kv_transfer_params":{"do_remote_decode":true,"do_remote_prefill":false},)"
              R"("max_tokens":1,"min_tokens":1,"max_completion_tokens":1})");
    Request responses(R"({"input":"x"})", Api::Responses);
    EXPECT_EQ(body_of(responses.prefill(mooncake_sequential())),
              R"({"kv_transfer_params":{"do_remote_decode":true,"do_remote_prefill":false},)"
              R"("max_output_tokens":1,"min_tokens":1,"input":"x"})");
}

TEST(LegMessage, DecodeGetsTheClientsBodyAndTheParameters) {
    const std::string_view body = R"({"model":"m","stream":true,"max_tokens":50,"n":1})";
    Request request(body);
    const std::string message = request.decode(&mooncake(), facts_of(request.instance));
    EXPECT_EQ(body_of(message), R"({"kv_transfer_params":)" + params_of(mooncake(), false) + "," +
                                    std::string(body.substr(1)));
    EXPECT_EQ(body_of(request.decode(nullptr)), body) << "alone: not a byte is changed";
    Request empty("{}");
    EXPECT_EQ(body_of(empty.decode(&nixl(), {}, R"({"a":1})")),
              R"({"kv_transfer_params":{"a":1}})");
}

// Every door of a client's own KV parameters, however it is spelled.
TEST(LegMessage, NoClientsKvParametersPass) {
    const std::pair<std::string_view, std::string_view> cases[] = {
        {R"({"kv_transfer_params":{"evil":1},"a":2})", R"({"a":2})"},
        {R"({"a":2,"kv_transfer_params":{"evil":1}})", R"({"a":2})"},
        {R"({"kv\u005ftransfer\u005fparams":"evil","a":2})", R"({"a":2})"},
        {R"({"ec_transfer_params":{"evil":1},"a":2})", R"({"a":2})"},
        {R"({"a":2,"vllm_xargs":{"kv_transfer_params":"evil","b":3}})",
         R"({"a":2,"vllm_xargs":{"b":3}})"},
        {R"({"a":2,"vllm_xargs":{"ec_transfer_params":"evil"}})", R"({"a":2,"vllm_xargs":{}})"},
        {R"({"sampling_params":{"extra_args":{"kv_transfer_params":{"evil":1},"b":3}}})",
         R"({"sampling_params":{"extra_args":{"b":3}}})"},
        {R"({"sampling_params":{"extra_args":{"ec_transfer_params":{"evil":1}}}})",
         R"({"sampling_params":{"extra_args":{}}})"},
    };
    for (const auto& [body, left] : cases) {
        Request request(body);
        ASSERT_TRUE(request.scanned) << body;
        EXPECT_EQ(body_of(request.decode(nullptr)), left) << body;
        EXPECT_EQ(request.prefill(mooncake(), facts_of(request.instance)).find("evil"),
                  std::string::npos)
            << body;
    }
    for (const std::string_view body :
         {R"({"kv_transfer_params":{},"kv_transfer_params":{}})",
          R"({"kv_transfer_params":{},"kv\u005ftransfer_params":{}})",
          R"({"vllm_xargs":{"kv_transfer_params":1,"kv_transfer_params":2}})",
          R"({"vllm_xargs":{},"vllm_xargs":{"kv_transfer_params":1}})"}) {
        Request request(body);
        EXPECT_FALSE(request.scanned) << body;
    }
}

TEST(LegMessage, OutOfMemoryIsAnEmptyMessage) {
    Request request("{}");
    BufferPool none(1);
    TextArena texts(none);
    EXPECT_TRUE(make_plain_message(texts, request.head, Slice(), request.instance, {}).empty());
    EXPECT_TRUE(make_prefill_message(texts, request.head, slice_of(request.pool, "{}"),
                                     request.scan, Api::Chat, request.instance, {}, mooncake(),
                                     facts_of(request.instance))
                    .empty());
}

}  // namespace
}  // namespace sluice::pd::test
