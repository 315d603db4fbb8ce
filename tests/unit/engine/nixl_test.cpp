// SPDX-License-Identifier: Apache-2.0
// The NIXL hand-over: P's parameters, leases, late and repeated reads, and what an incomplete
// object does.
#include "bench.h"

namespace sluice::engine::test {
namespace {

class Nixl : public Bench {
protected:
    Nixl() {
        EngineOptions options = nixl();
        p = &add(options);
        options.seed = 2;
        d = &add(options);
        alone = &add(plain());
    }
    Json params_of(const Json& body) {
        Json prefill_body = body;
        prefill_body["max_tokens"] = 1;
        Ask& leg = wait(post(*p, kChat,
                             with(prefill_body, {{"do_remote_decode", true},
                                                 {"do_remote_prefill", false},
                                                 {"remote_engine_id", nullptr},
                                                 {"remote_block_ids", nullptr},
                                                 {"remote_host", nullptr},
                                                 {"remote_port", nullptr}}),
                             "X-Request-Id: r\r\n"));
        EXPECT_EQ(leg.status, 200);
        return leg.json()["kv_transfer_params"];
    }
    Ask& decode(const Json& body, const Json& params) {
        return wait(post(*d, kChat, with(body, params)));
    }
    std::string expected(const Json& body) { return wait(post(*alone, kChat, body.dump())).text(); }

    Engine* p;
    Engine* d;
    Engine* alone;
};

TEST_F(Nixl, ParametersAreWholeAndTheTextIsRight) {
    const Json body = chat("sequential");
    const Json params = params_of(body);
    EXPECT_EQ(params["do_remote_prefill"], true);
    EXPECT_EQ(params["do_remote_decode"], false);
    ASSERT_EQ(params["remote_block_ids"].size(), 1U);
    EXPECT_FALSE(params["remote_block_ids"][0].empty());
    EXPECT_EQ(params["remote_engine_id"], p->engine_id());
    EXPECT_TRUE(params["remote_request_id"].get<std::string>().starts_with("chatcmpl-r-"));
    EXPECT_EQ(params["remote_host"], "10.0.0.1");
    EXPECT_TRUE(params["remote_port"].is_number());
    EXPECT_EQ(params["tp_size"], 1);
    EXPECT_TRUE(params["remote_blocks_expiry_time"].is_null());
    EXPECT_EQ(params["transfer_mode"], "pull");
    EXPECT_GT(p->state().connector.blocks_held, 0U);
    EXPECT_EQ(decode(body, params).text(), expected(body));
    run_for(10ms);
    EXPECT_EQ(p->state().scheduler.blocks_used, 0U);
    EXPECT_EQ(p->state().counters.transfers, 1U);
    EXPECT_EQ(d->state().scheduler.blocks_used, 0U);
    // Used twice: nobody checks, and the freed blocks still hold the right KV.
    EXPECT_EQ(decode(body, params).text(), expected(body));
}

TEST_F(Nixl, AFirstTokenThatStopsIsHandedOver) {
    p->add_fault({.kind = FaultKind::EosFirst});
    const Json body = chat("eos");
    const Json params = params_of(body);
    ASSERT_TRUE(params.is_object());
    EXPECT_EQ(decode(body, params).text(), expected(body));
}

TEST_F(Nixl, TheLeaseEndsAndLaterReadsMayFindOthersBlocks) {
    const Json body = chat("lease");
    const Json params = params_of(body);
    run_for(31s);
    EXPECT_EQ(p->state().counters.expired, 1U);
    EXPECT_EQ(p->state().scheduler.blocks_used, 0U);
    EXPECT_EQ(decode(body, params).text(), expected(body));  // by luck

    EngineOptions small = nixl();
    small.timing.blocks = 4;
    p = &add(small);
    const Json lost = params_of(body);
    run_for(31s);
    for (int i = 0; i < 8; ++i) wait(post(*p, kChat, chat("other " + std::to_string(i)).dump()));
    Ask& wrong = decode(body, lost);
    EXPECT_EQ(wrong.status, 200);
    EXPECT_NE(wrong.text(), expected(body));
}

TEST_F(Nixl, AWrongPortFailsAfterTheHandshakeTimeout) {
    Json params = params_of(chat("x"));
    params["remote_port"] = 9;
    Ask& ask = decode(chat("x"), params);
    EXPECT_EQ(ask.status, 500);
    EXPECT_GE(ask.took(), 5s);
    EXPECT_LT(ask.took(), 6s);
    EXPECT_TRUE(d->serving());
}

TEST_F(Nixl, ARestartedPDoesNotKnowTheOldEngineId) {
    const Json params = params_of(chat("x"));
    p->add_fault({.kind = FaultKind::Restart, .delay = 50ms});
    run_for(1s);
    ASSERT_TRUE(p->serving());
    EXPECT_EQ(decode(chat("x"), params).status, 500);
}

TEST_F(Nixl, AnEmptyBlockListKillsD) {
    Json params = params_of(chat("x"));
    params["remote_block_ids"] = Json::array();
    EXPECT_EQ(decode(chat("x"), params).status, 500);
    run_for(2s);
    EXPECT_TRUE(d->dead());
}

TEST_F(Nixl, AnAbortedPrefillReturnsNothingAndHoldsNothing) {
    EngineOptions slow = nixl();
    slow.timing.first_token = 2s;
    p = &add(slow);
    Ask& leg = post(*p, kChat, with(chat("x", 1), {{"do_remote_decode", true}}));
    run_for(1s);
    leg.leave();
    run_for(1s);
    EXPECT_EQ(p->state().scheduler.blocks_used, 0U);
    EXPECT_EQ(p->state().connector.blocks_held, 0U);
}

}  // namespace
}  // namespace sluice::engine::test
