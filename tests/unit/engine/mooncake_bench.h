// SPDX-License-Identifier: Apache-2.0
// A prefill and a decode engine that speak Mooncake, and one alone that says what the text should
// be.
#pragma once

#include "bench.h"

namespace sluice::engine::test {

class Mooncake : public Bench {
protected:
    // A pair with the abort time-out that the measurements had.
    void make_pair(Duration abort = 8s) {
        p = &add(mooncake(KvRole::Producer, abort));
        d = &add(mooncake(KvRole::Consumer, abort));
        alone = &add(plain());
    }
    std::string expected(const Json& body) { return wait(post(*alone, kChat, body.dump())).text(); }
    void expect_idle(const Engine& engine) {
        const EngineState state = engine.state();
        EXPECT_EQ(state.scheduler.blocks_used, 0U);
        EXPECT_EQ(state.scheduler.running + state.scheduler.waiting + state.scheduler.loading, 0U);
        EXPECT_EQ(state.connector.seats_taken, 0U);
        EXPECT_EQ(state.connector.transfers_live, 0U);
        EXPECT_EQ(state.connector.pulls_waiting, 0U);
        EXPECT_EQ(state.generations_live, 0U);
    }

    Engine* p = nullptr;
    Engine* d = nullptr;
    Engine* alone = nullptr;
};

}  // namespace sluice::engine::test
