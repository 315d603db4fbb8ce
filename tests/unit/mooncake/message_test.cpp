// SPDX-License-Identifier: Apache-2.0
#include "mooncake/message.h"

#include <gtest/gtest.h>

#include "mooncake/msgpack.h"

namespace sluice::mooncake {
namespace {

using Ids = std::vector<std::string_view>;

// A pull of the later releases, with a member that none of them has.
std::string pull_bytes(bool nested = true) {
    std::string out;
    MsgpackWriter w(out);
    w.map(7).string("remote_hostname").string("10.0.0.9").string("remote_port").number(15123);
    w.string("remote_tp_size").number(2).string("remote_tp_rank").number(1);
    w.string("req_blocks").map(2);
    w.string("cmpl-a-0-1f").array(2).string("xfer-a");
    if (nested)
        w.array(2).array(3).number(4).number(500).number(70000).array(1).number(9);
    else
        w.array(2).number(4).number(5);
    w.string("cmpl-b-0-2f").array(2).string("xfer-b").array(nested ? 2 : 0);
    if (nested) w.array(0).array(0);
    w.string("kv_caches_base_addr").array(2).number(1ULL << 45).number(1ULL << 46);
    w.string("of_the_future").map(1).string("x").raw("\xc0");
    return out;
}

TEST(Message, APullIsReadAsViews) {
    const std::string bytes = pull_bytes();
    const auto pull = read_pull(bytes);
    ASSERT_TRUE(pull) << pull.error();
    EXPECT_EQ(pull->host, "10.0.0.9");
    EXPECT_EQ(pull->port, 15123U);
    EXPECT_EQ(pull->tp_size, 2U);
    EXPECT_EQ(pull->tp_rank, 1U);
    EXPECT_EQ(pull->pp_size, 1U);
    ASSERT_EQ(pull->items.size(), 2U);
    EXPECT_EQ(pull->items[0].request, "cmpl-a-0-1f");
    EXPECT_EQ(pull->items[0].transfer, "xfer-a");
    EXPECT_EQ(block_count(pull->items[0].blocks), 3U);
    EXPECT_EQ(block_ids(pull->items[0].blocks), (std::vector<std::uint32_t>{4, 500, 70000}));
    EXPECT_EQ(block_count(pull->items[1].blocks), 0U);
    EXPECT_FALSE(pull->member("of_the_future").empty());

    const std::string flat = pull_bytes(false);
    const auto old = read_pull(flat);
    ASSERT_TRUE(old);
    EXPECT_EQ(block_ids(old->items[0].blocks), (std::vector<std::uint32_t>{4, 5}));
    EXPECT_EQ(block_count(old->items[1].blocks), 0U);
}

TEST(Message, ForwardedItIsTheSameButForItsRequests) {
    const std::string bytes = pull_bytes();
    const auto pull = read_pull(bytes);
    ASSERT_TRUE(pull);
    EXPECT_EQ(write_pull(*pull, pull->items), bytes);
    const std::string one = write_pull(*pull, std::span(&pull->items[1], 1));
    const auto part = read_pull(one);
    ASSERT_TRUE(part);
    ASSERT_EQ(part->items.size(), 1U);
    EXPECT_EQ(part->items[0].transfer, "xfer-b");
    ASSERT_EQ(part->members.size(), pull->members.size());
    for (std::size_t i = 0; i < part->members.size(); ++i) {
        EXPECT_EQ(part->members[i].key, pull->members[i].key);
        if (part->members[i].key != "req_blocks") {
            EXPECT_EQ(part->members[i].raw, pull->members[i].raw);
        }
    }
}

TEST(Message, AnEmptyPullHasTheGroupsAndTheLayoutOfTheRealOne) {
    for (const bool nested : {true, false}) {
        const std::string bytes = pull_bytes(nested);
        const auto pull = read_pull(bytes);
        const std::string written = write_empty_pull(*pull, "release", "xfer-c");
        const auto empty = read_pull(written);
        ASSERT_TRUE(empty);
        ASSERT_EQ(empty->items.size(), 1U);
        EXPECT_EQ(empty->items[0].request, "release");
        EXPECT_EQ(empty->items[0].transfer, "xfer-c");
        EXPECT_EQ(empty->items[0].blocks,
                  nested ? std::string_view("\x92\x90\x90") : std::string_view("\x90"));
        EXPECT_EQ(empty->member("kv_caches_base_addr"), pull->member("kv_caches_base_addr"));
    }
}

TEST(Message, ResponsesKeepWhatIsNotOurs) {
    const std::string own =
        write_response(Status::Continue, Ids{"a", "b"}, Ids{"c"}, "prefill failed");
    const auto read = read_response(own);
    ASSERT_TRUE(read);
    EXPECT_EQ(read->status, Status::Continue);
    EXPECT_EQ(read->ok, (Ids{"a", "b"}));
    EXPECT_EQ(read->failed, (Ids{"c"}));
    EXPECT_EQ(read->message, "prefill failed");

    std::string theirs;
    MsgpackWriter w(theirs);
    w.map(5).string("status").number(0).string("ok_reqs").array(1).string("a");
    w.string("layout_id").number(12345).string("new").number(1).string("err_reqs").raw("\xc0");
    const auto response = read_response(theirs);
    ASSERT_TRUE(response) << response.error();
    EXPECT_EQ(response->ok, (Ids{"a"}));
    const std::string passed_on = write_response(*response, Status::Continue);
    const auto again = read_response(passed_on);
    ASSERT_TRUE(again);
    EXPECT_EQ(again->status, Status::Continue);
    EXPECT_EQ(again->ok, (Ids{"a"}));
    EXPECT_EQ(passed_on.find("layout_id"), std::string::npos);
    EXPECT_NE(passed_on.find("new"), std::string::npos);
    // FINISH is the default, so msgspec leaves it out.
    EXPECT_EQ(read_response("\x80")->status, Status::Finish);
    EXPECT_EQ(read_response(std::string("\x81\xa6status\x03"))->status, Status::LayoutMiss);
}

TEST(Message, WhatCannotBeReadIsRefused) {
    const std::string good = pull_bytes();
    for (std::size_t cut = 0; cut < good.size(); ++cut)
        EXPECT_FALSE(read_pull(std::string_view(good).substr(0, cut))) << cut;
    EXPECT_FALSE(read_pull(good + "\x01"));
    EXPECT_FALSE(read_pull("\x80"));
    EXPECT_FALSE(read_pull("\x90"));
    std::string twice;
    MsgpackWriter(twice).map(2).string("req_blocks").map(0).string("req_blocks").map(0);
    EXPECT_STREQ(read_pull(twice).error(), "a member given twice");
    std::string port;
    MsgpackWriter(port).map(2).string("req_blocks").map(0).string("remote_port").string("x");
    EXPECT_FALSE(read_pull(port));
    std::string blocks;
    MsgpackWriter(blocks)
        .map(1)
        .string("req_blocks")
        .map(1)
        .string("r")
        .array(2)
        .string("t")
        .number(1);
    EXPECT_FALSE(read_pull(blocks));
    std::string id;
    MsgpackWriter(id).map(1).string("req_blocks").map(1).string(std::string(600, 'x'));
    EXPECT_FALSE(read_pull(id));
    EXPECT_FALSE(read_response(std::string("\x81\xa6status\x04")));
    EXPECT_FALSE(read_response(std::string("\x81\xa7ok_reqs\x91\x01")));
}

}  // namespace
}  // namespace sluice::mooncake
