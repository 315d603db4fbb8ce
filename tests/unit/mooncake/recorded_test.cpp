// SPDX-License-Identifier: Apache-2.0
// What real vLLM was recorded to say on the side channel (tests/vectors/mooncake): it is read, and
// handed on byte for byte.
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>

#include "mooncake/message.h"

namespace sluice::mooncake {
namespace {

std::string from_hex(const std::string& hex) {
    std::string bytes;
    for (std::size_t i = 0; i < hex.size(); i += 2)
        bytes += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
    return bytes;
}

struct Exchange {
    std::string pull;
    std::vector<std::string> responses;
};

std::map<std::string, Exchange> recorded() {
    std::ifstream file("tests/vectors/mooncake/side_channel.json");
    const auto all = nlohmann::json::parse(file);
    std::map<std::string, Exchange> found;
    for (const auto& [name, each] : all.at("exchanges").items()) {
        Exchange& exchange = found[name];
        exchange.pull = from_hex(each.at("pull").get<std::string>());
        for (const auto& one : each.at("responses"))
            exchange.responses.push_back(from_hex(one.get<std::string>()));
    }
    return found;
}

TEST(Recorded, PullsAreReadAndHandedOnAsTheyAre) {
    const auto all = recorded();
    ASSERT_GE(all.size(), 7U);
    for (const auto& [name, exchange] : all) {
        const auto pull = read_pull(exchange.pull);
        ASSERT_TRUE(pull) << name << ": " << pull.error();
        EXPECT_EQ(write_pull(*pull, pull->items), exchange.pull) << name;
        EXPECT_EQ(pull->host, "127.0.0.1") << name;
        EXPECT_NE(pull->port, 0U) << name;
        EXPECT_EQ(pull->items.size(), name == "several" ? 3U : 1U) << name;
        for (const PullItem& item : pull->items) EXPECT_TRUE(item.transfer.starts_with("xfer-"));
        for (std::size_t cut = 0; cut < exchange.pull.size(); ++cut)
            EXPECT_FALSE(read_pull(std::string_view(exchange.pull).substr(0, cut))) << name << cut;
    }
    EXPECT_EQ(block_count(read_pull(all.at("one").pull)->items[0].blocks), 3U);
    EXPECT_EQ(block_count(read_pull(all.at("the_bare_id_after_it").pull)->items[0].blocks), 0U);
    EXPECT_EQ(read_pull(all.at("of_no_such_rank").pull)->tp_rank, 7U);
}

TEST(Recorded, AnEmptyPullIsTheOneThatAPrefillTookForOne) {
    const auto all = recorded();
    const auto like = read_pull(all.at("one").pull);
    ASSERT_TRUE(like);
    EXPECT_EQ(write_empty_pull(*like, "release", "xfer-empty"), all.at("empty").pull);
    const auto response = read_response(all.at("empty").responses.at(0));
    ASSERT_TRUE(response);
    EXPECT_EQ(response->ok, (std::vector<std::string_view>{"release"}));
}

TEST(Recorded, ResponsesAreReadAndPassedOnAsTheyAre) {
    const auto all = recorded();
    ASSERT_GE(all.size(), 7U);
    for (const auto& [name, exchange] : all) {
        const auto pull = read_pull(exchange.pull);
        ASSERT_TRUE(pull);
        ASSERT_FALSE(exchange.responses.empty()) << name;
        std::size_t named = 0;
        for (const std::string& bytes : exchange.responses) {
            const auto response = read_response(bytes);
            ASSERT_TRUE(response) << name << ": " << response.error();
            EXPECT_EQ(write_response(*response, response->status), bytes) << name;
            const bool last = &bytes == &exchange.responses.back();
            EXPECT_EQ(response->status == Status::Continue, !last) << name;
            for (const auto* list : {&response->ok, &response->failed})
                for (const std::string_view request : *list) {
                    ++named;
                    EXPECT_TRUE(std::ranges::any_of(pull->items, [&](const PullItem& item) {
                        return item.request == request;
                    })) << name;
                }
            // An ERROR is of the whole pull and names nobody.
            const bool error = name == "without_a_layout" || name == "of_no_such_rank";
            EXPECT_EQ(response->status == Status::Error, error) << name;
            EXPECT_EQ(response->message.empty(), !error && response->failed.empty()) << name;
            if (error) named = pull->items.size();
        }
        EXPECT_EQ(named, pull->items.size()) << name;
    }
}

}  // namespace
}  // namespace sluice::mooncake
