// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <set>

#include "unit/pd/world.h"

namespace sluice::pd::test {
namespace {

using json::Api;

WholeOnDecode reason_of(std::string_view body, Api api = Api::Chat) {
    Request request(body, api);
    EXPECT_TRUE(request.scanned) << body << ": " << request.scanned.error();
    return request.scan.whole_on_decode;
}

TEST(BodyScan, WhatOneTransferCannotServe) {
    using enum WholeOnDecode;
    const std::tuple<std::string_view, Api, WholeOnDecode> cases[] = {
        {R"({})", Api::Chat, No},
        {R"({"n":1,"best_of":1})", Api::Completions, No},
        {R"({"n":null})", Api::Chat, No},
        {R"({"n":2})", Api::Chat, SeveralChoices},
        {R"({"\u006e":2})", Api::Chat, SeveralChoices},
        {R"({"n":99999999999999999999})", Api::Chat, SeveralChoices},
        {R"({"best_of":3})", Api::Completions, SeveralChoices},
        {R"({"use_beam_search":true})", Api::Completions, BeamSearch},
        {R"({"use_beam_search":false})", Api::Completions, No},
        {R"({"background":true})", Api::Responses, Background},
        {R"({"prompt_logprobs":0})", Api::Chat, PromptLogprobs},
        {R"({"prompt_logprobs":null})", Api::Chat, No},
        {R"({"prompt":"a"})", Api::Completions, No},
        {R"({"prompt":["a"]})", Api::Completions, No},
        {R"({"prompt":[1,2,3]})", Api::Completions, No},
        {R"({"prompt":[]})", Api::Completions, No},
        {R"({"prompt":["a","b"]})", Api::Completions, SeveralPrompts},
        {R"({"prompt":[[1],[2]]})", Api::Completions, SeveralPrompts},
        {R"({"prompt":[[1,2]]})", Api::Completions, No},
        {R"({"prompt":["a","b"]})", Api::Chat, No},
        {R"({"prompt_embeds":"x"})", Api::Completions, PromptEmbeddings},
        {R"({"echo":true,"logprobs":1})", Api::Completions, PromptLogprobs},
        {R"({"echo":true})", Api::Completions, No},
        {R"({"echo":true,"logprobs":null})", Api::Completions, No},
    };
    for (const auto& [body, api, expected] : cases)
        EXPECT_EQ(reason_of(body, api), expected) << body;
}

TEST(BodyScan, Stream) {
    EXPECT_TRUE(Request(R"({"stream":true})").scan.stream);
    EXPECT_FALSE(Request(R"({"stream":false})").scan.stream);
    EXPECT_FALSE(Request(R"({"stream":null})").scan.stream);
    EXPECT_FALSE(Request("{}").scan.stream);
}

TEST(BodyScan, RefusalsSayWhatAndWhere) {
    const std::pair<std::string_view, std::string_view> cases[] = {
        {R"({"stream":1})", "stream"},
        {R"({"stream":true,"stream":false})", "stream"},
        {R"({"max_tokens":"5"})", "max_tokens"},
        {R"({"n":[]})", "\"n\""},
        {R"({"stream_options":3})", "stream_options"},
        {R"([])", "object"},
        {R"({"a":)", ""},
        {R"({} x)", ""},
        {"", ""},
        {R"({"a":01})", ""},
    };
    for (const auto& [body, word] : cases) {
        Request request(body);
        ASSERT_FALSE(request.scanned) << body;
        EXPECT_NE(request.scanned.error().find(word), std::string::npos)
            << body << ": " << request.scanned.error();
    }
    Request late(R"({"model":"m","x":tru})");
    ASSERT_FALSE(late.scanned);
    EXPECT_NE(late.scanned.error().find("1"), std::string::npos)
        << "a position: " << late.scanned.error();
}

TEST(BodyScan, KvMembersAlone) {
    Request request("{}");
    json::Scanner scanner;
    BodyScan scan;
    BufferPool pool(1 << 20);
    const Slice body = slice_of(pool, R"({"n":2,"kv_transfer_params":{}})");
    ASSERT_TRUE(scan_kv_members(scanner, body.view(), scan));
    EXPECT_EQ(scan.whole_on_decode, WholeOnDecode::No);
    EXPECT_TRUE(scan[kKvTransferParams]);
}

TEST(BodyScan, EveryReasonHasAName) {
    std::set<std::string_view> names;
    for (std::size_t i = 0; i < static_cast<std::size_t>(WholeOnDecode::kCount); ++i)
        names.insert(name_of(static_cast<WholeOnDecode>(i)));
    EXPECT_EQ(names.size(), static_cast<std::size_t>(WholeOnDecode::kCount));
}

}  // namespace
}  // namespace sluice::pd::test
