// SPDX-License-Identifier: Apache-2.0
#include "fleet/models.h"

#include <gtest/gtest.h>

#include "fleet/version.h"

namespace sluice::fleet {
namespace {

ModelList good(std::string_view body) {
    auto models = parse_models(body);
    EXPECT_TRUE(models.has_value()) << body << ": " << models.error();
    return models.value_or(ModelList());
}

std::string merged(const std::vector<ModelList>& lists) {
    std::vector<const ModelList*> pointers;
    for (const ModelList& list : lists) pointers.push_back(&list);
    return merge_models(pointers);
}

// As vLLM 0.33 answers, shortened.
constexpr std::string_view kVllm =
    R"({"object":"list","data":[{"id":"Qwen/Qwen2.5-7B-Instruct","object":"model","created":1764000000,)"
    R"("owned_by":"vllm","root":"Qwen/Qwen2.5-7B-Instruct","parent":null,"max_model_len":32768,)"
    R"("permission":[{"id":"modelperm-1"}]}]})";

TEST(Models, EntriesAreKeptToTheByte) {
    const auto models = good(R"({"object":"list","data":[ {"id" : "a","x":1.0e0} , {"id":"b"} ]})");
    ASSERT_EQ(models.size(), 2U);
    EXPECT_EQ(models[0].id, "a");
    EXPECT_EQ(models[0].text, R"({"id" : "a","x":1.0e0})");
    EXPECT_EQ(merged({models}), R"({"object":"list","data":[{"id" : "a","x":1.0e0},{"id":"b"}]})");
}

TEST(Models, UnionByIdTheFirstWins) {
    const auto first = good(R"({"data":[{"id":"a","from":1}]})");
    const auto second = good(R"({"data":[{"id":"b"},{"id":"\u0061","from":2}]})");
    EXPECT_EQ(merged({first, second}),
              R"({"object":"list","data":[{"id":"a","from":1},{"id":"b"}]})");
    EXPECT_EQ(merged({{}, first}), R"({"object":"list","data":[{"id":"a","from":1}]})");
    EXPECT_EQ(merged({}), "");
    EXPECT_EQ(merged({{}, good(R"({"data":[]})")}), "");
}

TEST(Models, WhatVllmMakesAnewIsNoChange) {
    std::string later(kVllm);
    later.replace(later.find("1764000000"), 10, "1764000099");
    later.replace(later.find("modelperm-1"), 11, "modelperm-2");
    EXPECT_TRUE(same_models(good(kVllm), good(later)));
    std::string other(kVllm);
    other.replace(other.find("32768"), 5, "65536");
    EXPECT_FALSE(same_models(good(kVllm), good(other)));
    EXPECT_FALSE(same_models(good(kVllm), {}));
}

TEST(Models, RefusedWithASentence) {
    std::string many = R"({"data":[)";
    for (std::size_t i = 0; i <= kModelsMax; ++i)
        many += (i == 0 ? "{\"id\":\"m" : ",{\"id\":\"m") + std::to_string(i) + "\"}";
    const std::pair<std::string, std::string_view> cases[] = {
        {"", ""},
        {"<html>", ""},
        {"[]", ""},
        {"{}", "no member data"},
        {R"({"data":{}})", "data"},
        {R"({"data":[],"data":[]})", "data"},
        {R"({"data":["a"]})", "not a model"},
        {R"({"data":[{}]})", "no id"},
        {R"({"data":[{"id":""}]})", "no id"},
        {R"({"data":[{"id":7}]})", "not a model"},
        {R"({"data":[{"id":"a","id":"b"}]})", "not a model"},
        {many + "]}", "more than 1024"},
        {std::string(kModelsReplyMax + 1, ' '), "longer than"},
    };
    for (const auto& [body, why] : cases) {
        const auto models = parse_models(body);
        ASSERT_FALSE(models.has_value()) << body.substr(0, 100);
        EXPECT_FALSE(models.error().empty());
        EXPECT_NE(models.error().find(why), std::string::npos)
            << body.substr(0, 100) << " -> " << models.error();
    }
}

TEST(Models, MergedAnswerIsBounded) {
    std::vector<ModelList> lists(3);
    for (std::size_t i = 0; i < 3 * kModelsMax / 2; ++i) {
        const std::string id = std::to_string(i);
        lists[i % 3].push_back({id, "{\"id\":\"" + id + "\"}", 0});
    }
    const auto all = good(merged(lists));
    EXPECT_EQ(all.size(), kModelsMax);
}

TEST(VersionTest, TwoNumbers) {
    EXPECT_EQ(parse_version("0.15.1"), (Version{0, 15}));
    EXPECT_EQ(parse_version("0.16.0rc1"), (Version{0, 16}));
    EXPECT_EQ(parse_version("v0.20.2+cu129"), (Version{0, 20}));
    EXPECT_EQ(parse_version("0.16"), (Version{0, 16}));
    EXPECT_EQ(parse_version("1.0.0.dev3"), (Version{1, 0}));
    EXPECT_EQ(parse_version("10.2rc"), (Version{10, 2}));
    for (const std::string_view text :
         {"", "v", "dev", "0", "0.", ".1", "-1.0", "0.x", "99999999999.0", "0.99999999999"})
        EXPECT_FALSE(parse_version(text)) << text;
}

TEST(VersionTest, OrderAndContract) {
    EXPECT_LT((Version{0, 15}), (Version{0, 16}));
    EXPECT_LT((Version{0, 9}), (Version{0, 16}));
    EXPECT_LT((Version{0, 33}), (Version{1, 0}));
    EXPECT_TRUE(speaks_sequential_mooncake({0, 15}));
    EXPECT_TRUE(speaks_sequential_mooncake({0, 13}));
    EXPECT_FALSE(speaks_sequential_mooncake({0, 16}));
    EXPECT_FALSE(speaks_sequential_mooncake({1, 0}));
    EXPECT_FALSE(speaks_sequential_mooncake({0, 1})) << "a build without tags";
}

TEST(VersionTest, Reply) {
    EXPECT_EQ(parse_version_reply(R"({"version":"0.15.1"})"), (Version{0, 15}));
    for (const std::string_view body :
         {"", "{}", R"({"version":15})", R"(["0.15.1"])", R"({"version":"x"})"})
        EXPECT_FALSE(parse_version_reply(body)) << body;
}

}  // namespace
}  // namespace sluice::fleet
