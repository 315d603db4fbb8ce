// SPDX-License-Identifier: Apache-2.0
#include "io/loop.h"

#include <gtest/gtest.h>

#include <string>

#include "io/sim/sim_world.h"

namespace sluice::io {
namespace {

class LoopTest : public ::testing::Test {
protected:
    LoopTest() : host_(world_.add_host("host")), loop_(host_.io()) { host_.attach(loop_); }

    sim::SimWorld world_;
    sim::SimHost& host_;
    Loop loop_;
};

struct Worker {
    explicit Worker(Loop& l, std::string& order_of_all, char letter)
        : loop(l),
          order(order_of_all),
          name(letter),
          deferred(Delegate<void()>::to<&Worker::work>(*this)),
          timer(Delegate<void()>::to<&Worker::work>(*this)) {}
    void work() {
        order += name;
        if (again != nullptr && again_count-- > 0) loop.defer(again->deferred);
    }
    Loop& loop;
    std::string& order;
    char name;
    Deferred deferred;
    Timer timer;
    Worker* again = nullptr;
    int again_count = 1;
};

TEST_F(LoopTest, DeferredWorkRunsOnceInOrderAndBeforeTimers) {
    std::string order;
    Worker a(loop_, order, 'a');
    Worker b(loop_, order, 'b');
    Worker t(loop_, order, 't');
    loop_.arm(t.timer, Duration::zero());
    world_.run_for(std::chrono::microseconds(1));
    EXPECT_EQ(order, "");
    loop_.defer(a.deferred);
    loop_.defer(b.deferred);
    loop_.defer(a.deferred);
    EXPECT_TRUE(a.deferred.queued());
    world_.run_for(std::chrono::milliseconds(1));
    EXPECT_EQ(order, "abt");
    EXPECT_FALSE(a.deferred.queued());
}

TEST_F(LoopTest, WhatDeferredWorkDefersRunsInTheSameTurn) {
    std::string order;
    Worker a(loop_, order, 'a');
    Worker b(loop_, order, 'b');
    a.again = &b;
    b.again = &a;
    b.again_count = 1;
    loop_.defer(a.deferred);
    loop_.run_turn(Duration::zero());
    EXPECT_EQ(order, "aba");
}

TEST_F(LoopTest, WhatATimerDefersRunsInTheSameTurn) {
    std::string order;
    Worker t(loop_, order, 't');
    Worker a(loop_, order, 'a');
    t.again = &a;
    loop_.arm(t.timer, std::chrono::seconds(1));
    EXPECT_TRUE(world_.run_until([&] { return !order.empty(); }));
    EXPECT_EQ(order, "ta");
}

TEST_F(LoopTest, CancelledAndDestroyedWorkDoesNotRun) {
    std::string order;
    Worker a(loop_, order, 'a');
    {
        Worker b(loop_, order, 'b');
        loop_.defer(b.deferred);
        loop_.arm(b.timer, std::chrono::seconds(1));
    }
    loop_.defer(a.deferred);
    a.deferred.cancel();
    world_.run_for(std::chrono::seconds(2));
    EXPECT_EQ(order, "");
    EXPECT_EQ(loop_.next_deadline(), kNever);
}

TEST_F(LoopTest, ATimerArmedForeverNeverFires) {
    std::string order;
    Worker t(loop_, order, 't');
    loop_.arm(t.timer, kForever);
    EXPECT_FALSE(t.timer.armed());
    loop_.arm(t.timer, std::chrono::hours(24 * 365 * 10));
    EXPECT_TRUE(t.timer.armed());
    EXPECT_TRUE(world_.run_until([&] { return order == "t"; }, {.time = kForever / 4}));
}

TEST_F(LoopTest, StopEndsRun) {
    loop_.stop();
    loop_.run();
}

}  // namespace
}  // namespace sluice::io
