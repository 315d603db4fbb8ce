// SPDX-License-Identifier: Apache-2.0
// Admission, the retry budget, the pace of prefills, routes, and the text of /metrics.
#include <gtest/gtest.h>

#include <regex>
#include <set>
#include <sstream>
#include <thread>

#include "pd/admission.h"
#include "pd/metrics.h"
#include "pd/prefill_pace.h"
#include "pd/retry_budget.h"
#include "pd/routes.h"
#include "unit/pd/world.h"

namespace sluice::pd::test {
namespace {

using namespace std::chrono_literals;

TEST(Admission, Limits) {
    Admission admission(2, 1);
    EXPECT_TRUE(admission.try_enter());
    EXPECT_TRUE(admission.try_enter());
    EXPECT_FALSE(admission.try_enter());
    EXPECT_TRUE(admission.try_queue());
    EXPECT_FALSE(admission.try_queue());
    EXPECT_EQ(admission.in_flight(), 2);
    EXPECT_EQ(admission.queued(), 1);
    admission.leave();
    admission.leave_queue();
    EXPECT_TRUE(admission.try_enter());
    EXPECT_TRUE(admission.try_queue());
}

TEST(Admission, NoQueueAtAll) {
    Admission admission(1, 0);
    EXPECT_FALSE(admission.try_queue());
    EXPECT_EQ(admission.queued(), 0);
}

TEST(Admission, ManyThreadsNeverExceedIt) {
    Admission admission(3, 1);
    std::atomic<int> inside{0}, most{0};
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i)
        threads.emplace_back([&] {
            for (int n = 0; n < 20000; ++n) {
                if (!admission.try_enter()) continue;
                const int now = ++inside;
                int seen = most;
                while (now > seen && !most.compare_exchange_weak(seen, now)) {
                }
                --inside;
                admission.leave();
            }
        });
    for (auto& thread : threads) thread.join();
    EXPECT_LE(most.load(), 3);
    EXPECT_EQ(admission.in_flight(), 0);
}

TEST(RetryBudget, RetriesCannotMultiplyLoad) {
    RetryBudget budget(0.2);
    int reserve = 0;
    while (budget.spend()) ++reserve;
    EXPECT_EQ(reserve, 20) << "a quiet proxy may retry";
    int retries = 0;
    for (int i = 0; i < 1000; ++i) {
        budget.earn();
        retries += budget.spend();
    }
    EXPECT_NEAR(retries, 200, 1);
    for (int i = 0; i < 100'000; ++i) budget.earn();
    int burst = 0;
    while (budget.spend()) ++burst;
    EXPECT_EQ(burst, 200) << "what a long calm has saved is bounded";
}

TEST(RetryBudget, None) {
    RetryBudget budget(0);
    for (int i = 0; i < 20; ++i) EXPECT_TRUE(budget.spend());
    budget.earn();
    EXPECT_FALSE(budget.spend());
}

TEST(PrefillPace, HalfTheFastestOfThatSize) {
    PrefillPace pace;
    EXPECT_EQ(pace.delay(1000, false, 50ms), 50ms) << "nothing is known";
    pace.note(1000, 8ms);
    EXPECT_EQ(pace.delay(1000, false, 50ms), 4ms);
    EXPECT_EQ(pace.delay(1000, true, 50ms), 50ms) << "suspect";
    EXPECT_EQ(pace.delay(100'000, false, 50ms), 50ms) << "another size";
    pace.note(1000, 2ms);
    EXPECT_EQ(pace.delay(1000, false, 50ms), 1ms);
    EXPECT_EQ(pace.delay(1000, false, 500us), 500us) << "never more than the limit";
    // One lucky prefix hit is forgotten.
    for (int i = 0; i < 100; ++i) pace.note(1000, 8ms);
    EXPECT_EQ(pace.delay(1000, false, 50ms), 4ms);
    pace.note(UINT64_MAX, 1s);
    EXPECT_EQ(pace.delay(UINT64_MAX, false, 50ms), 50ms);
}

TEST(Routes, WhatIsServedAndHow) {
    for (const std::string_view path :
         {"/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"}) {
        const Route* route = find_route(path);
        ASSERT_NE(route, nullptr) << path;
        EXPECT_EQ(route->serve, Serve::PrefillDecode) << path;
        EXPECT_TRUE(route->post);
    }
    for (const std::string_view path : {"/tokenize", "/detokenize", "/v1/embeddings", "/pooling",
                                        "/score", "/rerank", "/v1/audio/transcriptions"}) {
        const Route* route = find_route(path);
        ASSERT_NE(route, nullptr) << path;
        EXPECT_EQ(route->serve, Serve::OneDecode) << path;
    }
    EXPECT_TRUE(find_route("/inference/v1/generate")->edits_kv);
    EXPECT_FALSE(find_route("/health")->post);
}

// The engines' admin and development paths, and look-alikes.
TEST(Routes, EverythingElseIsUnknown) {
    for (const std::string_view path : {"/pause",
                                        "/resume",
                                        "/sleep",
                                        "/wake_up",
                                        "/collective_rpc",
                                        "/reset_prefix_cache",
                                        "/v1/load_lora_adapter",
                                        "/v1/unload_lora_adapter",
                                        "/start_profile",
                                        "/stop_profile",
                                        "/scale_elastic_ep",
                                        "/update_weights",
                                        "/server_info",
                                        "/invocations",
                                        "/load",
                                        "/docs",
                                        "/openapi.json",
                                        "/sim/fault",
                                        "/",
                                        "",
                                        "*",
                                        "/v1/chat/completions/",
                                        "/V1/chat/completions",
                                        "//v1/chat/completions",
                                        "/v1/chat/completions%2F",
                                        "/v1"})
        EXPECT_EQ(find_route(path), nullptr) << path;
}

TEST(Metrics, NamesAreDifferent) {
    std::set<std::string_view> names;
    for (int i = 0; i < static_cast<int>(Outcome::kCount); ++i)
        names.insert(name_of(static_cast<Outcome>(i)));
    EXPECT_EQ(names.size(), static_cast<std::size_t>(Outcome::kCount));
    names.clear();
    for (int i = 0; i < static_cast<int>(RequestPath::kCount); ++i)
        names.insert(name_of(static_cast<RequestPath>(i)));
    EXPECT_EQ(names.size(), static_cast<std::size_t>(RequestPath::kCount));
    EXPECT_EQ(path_of(nullptr), RequestPath::Unknown);
    EXPECT_EQ(path_of(find_route("/v1/messages")), RequestPath::Messages);
    EXPECT_EQ(path_of(find_route("/tokenize")), RequestPath::OneDecode);
    EXPECT_EQ(path_of(find_route("/health")), RequestPath::Local);
}

}  // namespace
}  // namespace sluice::pd::test
