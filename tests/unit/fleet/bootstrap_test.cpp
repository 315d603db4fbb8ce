// SPDX-License-Identifier: Apache-2.0
#include "fleet/bootstrap.h"

#include <gtest/gtest.h>

namespace sluice::fleet {
namespace {

constexpr std::string_view kTwoRanks =
    R"({"1": {"engine_id": "e_dp1", "worker_addr": {"0": {"0": "tcp://10.0.0.1:4001"}}},)"
    R"( "0": {"engine_id": "e_dp0", "worker_addr": {"0": {"0": "tcp://10.0.0.1:4000"}}}})";

BootstrapReply good(std::string_view body) {
    auto reply = parse_bootstrap_reply(body);
    EXPECT_TRUE(reply.has_value()) << body << ": " << reply.error();
    return reply.value_or(BootstrapReply());
}

std::string one_rank(std::string_view id, std::string_view workers = R"({"0":{"0":"tcp://h:1"}})") {
    return R"({"0":{"engine_id":")" + std::string(id) + R"(","worker_addr":)" +
           std::string(workers) + "}}";
}

TEST(Bootstrap, RanksComeSorted) {
    const std::vector<DataParallelRank> ranks = good(kTwoRanks).ranks;
    ASSERT_EQ(ranks.size(), 2U);
    for (std::uint32_t rank = 0; rank < 2; ++rank) {
        EXPECT_EQ(ranks[rank].rank, rank);
        EXPECT_EQ(ranks[rank].engine_id, "e_dp" + std::to_string(rank));
        ASSERT_FALSE(ranks[rank].workers.empty());
        EXPECT_TRUE(ranks[rank].workers[0].address.valid());
    }
}

TEST(Bootstrap, EmptyUntilSomebodyRegisters) { EXPECT_TRUE(good("{}").ranks.empty()); }

TEST(Bootstrap, UnknownMembersAreIgnored) {
    const auto reply =
        good(R"({"0":{"engine_id":"e","new":[1,{"engine_id":"x"}],"worker_addr":{},"version":2}})");
    EXPECT_EQ(reply.ranks, (std::vector<DataParallelRank>{{0, "e"}}));
    EXPECT_EQ(good(R"({"0":{"engine_id":"e"}})").ranks.size(), 1U);
}

TEST(Bootstrap, FingerprintIsOfTheWholeReply) {
    EXPECT_EQ(good(kTwoRanks).fingerprint, good(kTwoRanks).fingerprint);
    const auto one = good(one_rank("e", R"({"0":{"0":"tcp://h:1"}})"));
    const auto two = good(one_rank("e", R"({"0":{"0":"tcp://h:1"},"1":{"0":"tcp://h:2"}})"));
    EXPECT_EQ(one.ranks[0].engine_id, two.ranks[0].engine_id);
    EXPECT_NE(one.fingerprint, two.fingerprint);
    EXPECT_NE(one.shape, two.shape) << "one worker more";
}

TEST(Bootstrap, ShapeIsTheSameInAnotherLife) {
    const auto before = good(one_rank("before", R"({"0":{"0":"tcp://h:1"}})"));
    const auto after = good(one_rank("after", R"({"0":{"0":"tcp://h:9"}})"));
    EXPECT_NE(before.fingerprint, after.fingerprint);
    EXPECT_EQ(before.shape, after.shape);
    EXPECT_NE(good("{}").shape, before.shape);
}

TEST(Bootstrap, EscapedKeysAreKeys) {
    EXPECT_EQ(good(R"({"\u0030":{"engine\u005fid":"\u0065"}})").ranks,
              (std::vector<DataParallelRank>{{0, "e"}}));
}

TEST(Bootstrap, AsManyRanksAsAllowed) {
    std::string body = "{";
    for (std::size_t i = 0; i < limits::kDataParallelMax; ++i) {
        const std::string n = std::to_string(i);
        body +=
            (i == 0 ? "\"" : ",\"") + n + "\":{\"engine_id\":\"e" + n + "\",\"worker_addr\":{}}";
    }
    const auto reply = good(body + "}");
    ASSERT_EQ(reply.ranks.size(), limits::kDataParallelMax);
    for (std::size_t i = 0; i < reply.ranks.size(); ++i) EXPECT_EQ(reply.ranks[i].rank, i);
    EXPECT_FALSE(parse_bootstrap_reply(body + R"(,"0":{"engine_id":"x"}})").has_value());
}

TEST(Bootstrap, RefusedWithASentence) {
    const std::pair<std::string, std::string_view> cases[] = {
        {"", "not valid JSON"},
        {"nonsense", "not valid JSON"},
        {"{\"0\":", "not valid JSON"},
        {"{} {}", "not valid JSON"},
        {"[]", "not a JSON object"},
        {"null", "not a JSON object"},
        {R"({"detail":"Not Found"})", "\"detail\" is not a data-parallel rank"},
        {R"({"":{"engine_id":"e"}})", "not a data-parallel rank"},
        {R"({"-1":{"engine_id":"e"}})", "not a data-parallel rank"},
        {R"({"+1":{"engine_id":"e"}})", "not a data-parallel rank"},
        {R"({"01":{"engine_id":"e"}})", "not a data-parallel rank"},
        {R"({"1 ":{"engine_id":"e"}})", "not a data-parallel rank"},
        {R"({"99999999999":{"engine_id":"e"}})", "not a data-parallel rank"},
        {R"({"1024":{"engine_id":"e"}})", "limit of 1024"},
        {R"({"0":[]})", "not an object"},
        {R"({"0":{}})", "no engine_id"},
        {R"({"0":{"worker_addr":{}}})", "no engine_id"},
        {R"({"0":{"engine_id":7}})", "not a string"},
        {R"({"0":{"engine_id":null}})", "not a string"},
        {R"({"0":{"engine_id":""}})", "is empty"},
        {R"({"0":{"engine_id":"a","engine_id":"b"}})", "two members engine_id"},
        {R"({"0":{"engine_id":"a\"b"}})", "not plain ASCII"},
        {R"({"0":{"engine_id":"a\nb"}})", "not plain ASCII"},
        {R"({"0":{"engine_id":"é"}})", "not plain ASCII"},
        {R"({"0":{"engine_id":"a","worker_addr":[]}})", "worker_addr"},
        {R"({"0":{"engine_id":"a","worker_addr":{"0":"x"}}})", "worker_addr"},
        {R"({"0":{"engine_id":"a","worker_addr":{},"worker_addr":{}}})", "two members worker_addr"},
        {R"({"0":{"engine_id":"a"},"0":{"engine_id":"b"}})", "rank 0 twice"},
        {R"({"0":{"engine_id":"a"},"\u0030":{"engine_id":"b"}})", "rank 0 twice"},
        {one_rank(std::string(kEngineIdBytesMax + 1, 'x')), "longer than"},
        {std::string(kBootstrapReplyMax + 1, ' '), "longer than"},
    };
    for (const auto& [body, why] : cases) {
        const auto reply = parse_bootstrap_reply(body);
        ASSERT_FALSE(reply.has_value()) << body.substr(0, 100);
        EXPECT_NE(reply.error().find(why), std::string::npos)
            << body.substr(0, 100) << " -> " << reply.error();
    }
    EXPECT_TRUE(parse_bootstrap_reply(one_rank(std::string(kEngineIdBytesMax, 'x'))).has_value());
}

TEST(Bootstrap, DeepNestingIsRefusedNotFollowed) {
    const std::string deep = R"({"0":{"engine_id":"a","x":)" + std::string(100000, '[') +
                             std::string(100000, ']') + "}}";
    EXPECT_FALSE(parse_bootstrap_reply(deep).has_value());
}

}  // namespace
}  // namespace sluice::fleet
