// SPDX-License-Identifier: Apache-2.0
// Leases one by one, and 10,000 random histories against a model that keeps everything in one list.
#include "kv/lease.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "base/rng.h"
#include "kv/pool.h"
#include "unit/kv/model.h"

namespace sluice::kv::test {
namespace {

using namespace std::chrono_literals;

constexpr Instant kStart{1h};

class Recorder final : public LeaseEvents {
public:
    void on_more(PullerId puller) override { more.push_back(puller); }
    void on_puller_refused(PullerId puller, const Status& status) override {
        refused[puller] = status.code;
        ++refusals;
    }
    void on_lease_ended(const std::string& transfer, const BlocksByGroup& blocks,
                        LeaseEnd end) override {
        ended.emplace_back(transfer, end);
        last_blocks = blocks;
    }

    std::vector<PullerId> more;
    std::map<PullerId, Code> refused;
    int refusals = 0;
    std::vector<std::pair<std::string, LeaseEnd>> ended;
    BlocksByGroup last_blocks;
};

class Leases : public ::testing::Test {
protected:
    using Ends = std::vector<std::pair<std::string, LeaseEnd>>;
    Recorder events;
    LeaseTable table{events, {.leases_max = 3, .waiting_max = 2, .remembered_max = 2}};
    Instant now = kStart;
};

TEST_F(Leases, EndsWhenEveryPairedRankHasPulled) {
    ASSERT_TRUE(table.publish("t", {{1, 2}}, UINT32_MAX, now).ok());
    ASSERT_TRUE(table.pull("t", 7, 2, now + 1s).ok());
    EXPECT_EQ(events.more, (std::vector<PullerId>{7}));
    EXPECT_EQ(*table.blocks(7), (BlocksByGroup{{1, 2}}));
    table.pulled(7);
    EXPECT_TRUE(events.ended.empty());
    ASSERT_TRUE(table.pull("t", 8, 2, now + 1s).ok());
    table.pulled(8);
    EXPECT_EQ(events.ended, (Ends{{"t", LeaseEnd::Pulled}}));
    EXPECT_EQ(events.last_blocks, (BlocksByGroup{{1, 2}}));
    EXPECT_EQ(table.live(), 0U);
    EXPECT_EQ(table.next_deadline(), kNever);
    EXPECT_EQ(table.pull("t", 9, 2, now + 1s).code, Code::Expired);  // at once, not after a wait
}

TEST_F(Leases, ExpiresAtTheAbortTimeoutUnlessATransferIsUnderWay) {
    ASSERT_TRUE(table.publish("idle", {}, UINT32_MAX, now).ok());
    ASSERT_TRUE(table.publish("busy", {}, UINT32_MAX, now).ok());
    ASSERT_TRUE(table.pull("busy", 7, 1, now).ok());
    EXPECT_EQ(table.next_deadline(), now + 480s);
    table.advance(now + 480s - 1ns);
    EXPECT_TRUE(events.ended.empty());
    table.advance(now + 480s);
    EXPECT_EQ(events.ended, (Ends{{"idle", LeaseEnd::Expired}}));
    EXPECT_EQ(table.next_deadline(), kNever);
    table.forget(7);  // it failed: nobody is there any more
    EXPECT_EQ(events.ended.back(), (Ends::value_type{"busy", LeaseEnd::Expired}));
    EXPECT_EQ(table.expired(), 2U);
}

TEST_F(Leases, APullThatComesFirstWaitsAndNotForEver) {
    ASSERT_TRUE(table.pull("t", 7, 1, now + 5s).ok());
    ASSERT_TRUE(table.pull("t", 8, 1, now + 9s).ok());
    EXPECT_EQ(table.blocks(7), nullptr);
    EXPECT_EQ(table.pull("u", 9, 1, now + 5s).code, Code::LimitReached);
    EXPECT_EQ(table.next_deadline(), now + 5s);
    table.advance(now + 5s);
    EXPECT_EQ(events.refused, (std::map<PullerId, Code>{{7, Code::NotPublished}}));
    ASSERT_TRUE(table.publish("t", {{3}}, UINT32_MAX, now + 6s).ok());
    EXPECT_EQ(events.more, (std::vector<PullerId>{8}));
    table.advance(now + 100s);  // its wait is over, so is its limit
    EXPECT_EQ(events.refusals, 1);
    table.pulled(8);
    EXPECT_EQ(events.ended.size(), 1U);
    EXPECT_EQ(table.waiting(), 0U);
}

TEST_F(Leases, APublishLayerByLayerTellsItsPullers) {
    ASSERT_TRUE(table.publish("t", {{1}}, 2, now).ok());
    ASSERT_TRUE(table.pull("t", 7, 1, now).ok());
    EXPECT_EQ(table.layers_end(7), 2U);
    ASSERT_TRUE(table.more_layers("t", 5).ok());
    EXPECT_EQ(table.layers_end(7), 5U);
    ASSERT_TRUE(table.more_layers("t", 5).ok());  // nothing new
    ASSERT_TRUE(table.more_layers("t", 3).ok());
    EXPECT_EQ(table.layers_end(7), 5U);
    EXPECT_EQ(events.more, (std::vector<PullerId>{7, 7}));
    EXPECT_EQ(table.more_layers("other", 5).code, Code::NotPublished);
}

TEST_F(Leases, ASecondLivePublishIsRefusedALaterOneIsNot) {
    ASSERT_TRUE(table.publish("t", {{1}}, UINT32_MAX, now).ok());
    EXPECT_EQ(table.publish("t", {{2}}, UINT32_MAX, now).code, Code::AlreadyLive);
    ASSERT_TRUE(table.pull("t", 7, 1, now).ok());
    EXPECT_EQ(*table.blocks(7), (BlocksByGroup{{1}}));
    EXPECT_EQ(table.pull("t", 7, 1, now).code, Code::AlreadyLive);
    table.release("t");
    EXPECT_EQ(events.refused, (std::map<PullerId, Code>{{7, Code::Expired}}));
    EXPECT_EQ(events.ended, (Ends{{"t", LeaseEnd::Released}}));
    table.release("t");
    EXPECT_EQ(events.ended.size(), 1U);
    ASSERT_TRUE(table.publish("t", {{2}}, UINT32_MAX, now).ok());
    ASSERT_TRUE(table.pull("t", 8, 1, now).ok());
    EXPECT_EQ(*table.blocks(8), (BlocksByGroup{{2}}));
}

TEST_F(Leases, LimitsAreNamed) {
    for (const char* id : {"a", "b", "c"}) ASSERT_TRUE(table.publish(id, {}, UINT32_MAX, now).ok());
    const Status full = table.publish("d", {}, UINT32_MAX, now);
    EXPECT_EQ(full.code, Code::LimitReached);
    EXPECT_EQ(full.sentence, "3 transfers are published; leases_max is 3");
    EXPECT_EQ(table.publish("", {}, 0, now).code, Code::BadOptions);
    EXPECT_EQ(table.pull(std::string(257, 'x'), 1, 1, now).code, Code::BadOptions);
}

// -- random histories

// The same promises, told plainly: one list of what happened to each transfer and each pull.
struct Oracle {
    struct Transfer {
        bool published = false;
        Instant deadline{};
        std::uint32_t expected = 0, done = 0;
    };
    struct Pull {
        std::string transfer;
        Instant deadline{};
        bool over = false;
    };
    std::map<std::string, Transfer> live;
    std::map<PullerId, Pull> pulls;

    bool busy(const std::string& id) const {
        return std::ranges::any_of(pulls, [&](const auto& each) {
            return !each.second.over && each.second.transfer == id;
        });
    }
    // What must have ended by `now`, in any order.
    std::vector<std::pair<std::string, LeaseEnd>> settle(Instant now) {
        std::vector<std::pair<std::string, LeaseEnd>> ended;
        for (auto it = live.begin(); it != live.end();) {
            const auto& [id, t] = *it;
            const bool all = t.expected != 0 && t.done >= t.expected;
            const bool late = t.deadline <= now && !busy(id);
            if (t.published && (all || late)) {
                ended.emplace_back(id, all ? LeaseEnd::Pulled : LeaseEnd::Expired);
                for (auto& [number, pull] : pulls) pull.over |= pull.transfer == id;
                it = live.erase(it);
            } else {
                ++it;
            }
        }
        for (auto& [number, pull] : pulls)
            if (!pull.over && pull.deadline <= now && !live.contains(pull.transfer))
                pull.over = true;
        return ended;
    }
    std::size_t active() const {
        return static_cast<std::size_t>(
            std::ranges::count_if(pulls, [](const auto& each) { return !each.second.over; }));
    }
};

void run_history(std::uint64_t seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Rng rng(seed);
    Recorder events;
    LeaseTable table(events, {.abort_timeout = 100ms, .remembered_max = 0});
    Oracle oracle;
    Instant now = kStart;
    PullerId next = 1;
    std::size_t ends_seen = 0;
    const auto id = [&] { return std::string(1, static_cast<char>('a' + rng.below(5))); };
    const auto some_pull = [&]() -> PullerId { return next == 1 ? 1 : rng.between(1, next - 1); };
    const auto live_pull = [&](PullerId p) {
        return oracle.pulls.contains(p) && !oracle.pulls[p].over;
    };
    for (int step = 0; step < 60; ++step) {
        std::vector<std::pair<std::string, LeaseEnd>> expected;
        switch (rng.below(6)) {
            case 0: {
                const std::string t = id();
                const bool fresh = !oracle.live.contains(t);
                ASSERT_EQ(table.publish(t, {{1}}, UINT32_MAX, now).ok(), fresh);
                if (fresh) {
                    auto& made = oracle.live[t];
                    made = {true, now + 100ms};
                    for (const auto& [number, pull] : oracle.pulls)
                        if (!pull.over && pull.transfer == t) made.expected = 2;
                }
                break;
            }
            case 1: {
                const std::string t = id();
                const Instant deadline = now + std::chrono::milliseconds(rng.between(1, 80));
                const std::size_t told = events.more.size();
                ASSERT_TRUE(table.pull(t, next, 2, deadline).ok());
                ASSERT_EQ(events.more.size() - told, oracle.live.contains(t) ? 1U : 0U);
                if (oracle.live.contains(t)) oracle.live[t].expected = 2;
                oracle.pulls[next++] = {t, deadline};
                break;
            }
            case 2: {
                const PullerId p = some_pull();
                const bool live = live_pull(p);
                table.pulled(p);
                if (live) {
                    oracle.pulls[p].over = true;
                    if (oracle.live.contains(oracle.pulls[p].transfer))
                        ++oracle.live[oracle.pulls[p].transfer].done;
                }
                break;
            }
            case 3: {
                const PullerId p = some_pull();
                table.forget(p);
                if (live_pull(p)) oracle.pulls[p].over = true;
                break;
            }
            case 4: {
                if (!rng.chance(0.3)) break;
                const std::string t = id();
                table.release(t);
                if (oracle.live.erase(t) != 0) {
                    expected.emplace_back(t, LeaseEnd::Released);
                    for (auto& [number, pull] : oracle.pulls) pull.over |= pull.transfer == t;
                }
                break;
            }
            default:
                now += std::chrono::milliseconds(rng.below(60));
                table.advance(now);
        }
        // The table ends leases when it is told the time; the oracle at once. Tell it.
        table.advance(now);
        for (auto& each : oracle.settle(now)) expected.push_back(each);
        std::vector<std::pair<std::string, LeaseEnd>> ended(
            events.ended.begin() + static_cast<std::ptrdiff_t>(ends_seen), events.ended.end());
        ends_seen = events.ended.size();
        std::ranges::sort(ended);
        std::ranges::sort(expected);
        ASSERT_EQ(ended, expected) << "step " << step;
        ASSERT_EQ(table.live(), oracle.live.size()) << "step " << step;
        ASSERT_EQ(table.pulling(), oracle.active()) << "step " << step;
    }
    table.advance(now + 1h);
    for (PullerId p = 1; p < next; ++p) table.forget(p);
    table.advance(now + 2h);
    ASSERT_EQ(table.live() + table.pulling() + table.waiting(), 0U);
    ASSERT_EQ(table.next_deadline(), kNever);
    for (const auto& [puller, code] : events.refused)
        ASSERT_TRUE(code == Code::Expired || code == Code::NotPublished);
    ASSERT_EQ(static_cast<std::size_t>(events.refusals), events.refused.size());  // once each
}

TEST(LeaseHistories, AreWhatTheOracleSays) {
#ifdef SLUICE_SLOW_BUILD
    constexpr std::uint64_t kSeeds = 1000;
#else
    constexpr std::uint64_t kSeeds = 10000;
#endif
    for (std::uint64_t seed = 1; seed <= kSeeds && !::testing::Test::HasFatalFailure(); ++seed)
        run_history(seed);
}

// -- blocks

TEST(Pool, ABlockIsWrittenByOneAndReadByMany) {
    Pool pool(RankMemory({}, {.blocks = 8}).shape());
    ASSERT_TRUE(pool.claim({{1, 2}}).ok());
    EXPECT_EQ(pool.claim({{3, 2}}).sentence,
              "block 2 of group 0 is the destination of a live pull, or twice in the list");
    ASSERT_TRUE(pool.claim({{3}}).ok());  // the refused list left nothing behind
    EXPECT_EQ(pool.claim({{4, 4}}).code, Code::BadBlocks);
    EXPECT_EQ(pool.claim({{8}}).code, Code::BadBlocks);
    EXPECT_EQ(pool.pin({{1}}).code, Code::BadBlocks);
    EXPECT_EQ(pool.claimed(), 3U);
    EXPECT_EQ(pool.epoch(0, 1), 0U);
    pool.unclaim({{1, 2}});
    EXPECT_EQ(pool.epoch(0, 1), 1U);  // another life
    ASSERT_TRUE(pool.pin({{1, 5}}).ok());
    ASSERT_TRUE(pool.pin({{1, 6}}).ok());  // a shared prefix
    EXPECT_EQ(pool.claim({{1}}).sentence, "block 1 of group 0 is published");
    pool.unpin({{1, 5}});
    EXPECT_FALSE(pool.claim({{1}}).ok());
    pool.unpin({{1, 6}});
    EXPECT_TRUE(pool.claim({{1}}).ok());
    EXPECT_EQ(pool.pinned(), 0U);
}

}  // namespace
}  // namespace sluice::kv::test
