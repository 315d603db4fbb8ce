// SPDX-License-Identifier: Apache-2.0
#include "base/slab.h"

#include <gtest/gtest.h>

#include <map>
#include <set>
#include <vector>

#include "base/rng.h"

namespace sluice {
namespace {

struct Counted {
    explicit Counted(int v) : value(v) { ++alive; }
    ~Counted() { --alive; }
    Counted(const Counted&) = delete;
    Counted& operator=(const Counted&) = delete;
    int value;
    static inline int alive = 0;
};

TEST(Slab, FindsWhatItMade) {
    Slab<Counted> slab(10);
    Counted* made = slab.emplace(7);
    ASSERT_NE(made, nullptr);
    const Handle handle = slab.handle_of(*made);
    EXPECT_TRUE(handle.valid());
    EXPECT_EQ(slab.get(handle), made);
    EXPECT_EQ(slab.size(), 1u);
    slab.erase(*made);
    EXPECT_EQ(slab.size(), 0u);
    EXPECT_EQ(Counted::alive, 0);
}

TEST(Slab, AnErasedObjectsHandleFindsNothingAlsoWhenItsSlotIsTaken) {
    Slab<Counted> slab(1);
    Counted* first = slab.emplace(1);
    const Handle old = slab.handle_of(*first);
    slab.erase(*first);
    EXPECT_EQ(slab.get(old), nullptr);
    Counted* second = slab.emplace(2);
    EXPECT_EQ(slab.handle_of(*second).index, old.index);
    EXPECT_EQ(slab.get(old), nullptr);
    EXPECT_NE(slab.handle_of(*second), old);
}

TEST(Slab, ADefaultHandleFindsNothing) {
    Slab<Counted> slab(10);
    EXPECT_FALSE(Handle().valid());
    EXPECT_EQ(slab.get(Handle()), nullptr);
    slab.emplace(1);
    EXPECT_EQ(slab.get(Handle()), nullptr);
    EXPECT_EQ(slab.get({64 * 1000, 1}), nullptr);
}

TEST(Slab, GivesExactlyItsCapacity) {
    for (const std::uint32_t capacity : {1u, 63u, 64u, 65u, 200u}) {
        Slab<Counted> slab(capacity);
        for (std::uint32_t i = 0; i < capacity; ++i) ASSERT_NE(slab.emplace(1), nullptr);
        EXPECT_EQ(slab.emplace(1), nullptr);
        EXPECT_EQ(slab.size(), capacity);
    }
    EXPECT_EQ(Counted::alive, 0);
}

TEST(Slab, VisitsEveryLiveObject) {
    Slab<Counted> slab(300);
    std::vector<Counted*> made;
    for (int i = 0; i < 200; ++i) made.push_back(slab.emplace(i));
    std::set<int> expected;
    for (int i = 0; i < 200; ++i) {
        if (i % 3 == 0)
            slab.erase(*made[static_cast<std::size_t>(i)]);
        else
            expected.insert(i);
    }
    std::set<int> seen;
    slab.for_each([&](Counted& each) { seen.insert(each.value); });
    EXPECT_EQ(seen, expected);
}

TEST(Slab, AgreesWithAModelUnderRandomUse) {
    Rng rng(1);
    Slab<Counted> slab(100);
    std::map<int, Counted*> live;
    std::vector<std::pair<Handle, int>> handed_out;
    int next = 0;
    for (int step = 0; step < 20'000; ++step) {
        if (live.empty() || rng.chance(0.52)) {
            Counted* made = slab.emplace(next);
            ASSERT_EQ(made == nullptr, live.size() == 100);
            if (made == nullptr) continue;
            handed_out.emplace_back(slab.handle_of(*made), next);
            live[next++] = made;
        } else {
            auto victim = live.begin();
            std::advance(victim, static_cast<std::ptrdiff_t>(rng.below(live.size())));
            slab.erase(*victim->second);
            live.erase(victim);
        }
        const auto& [handle, value] = handed_out[rng.below(handed_out.size())];
        Counted* found = slab.get(handle);
        ASSERT_EQ(found != nullptr, live.contains(value));
        if (found != nullptr) {
            ASSERT_EQ(found->value, value);
        }
        ASSERT_EQ(slab.size(), live.size());
    }
}

struct alignas(64) Wide {
    char bytes[64];
};

TEST(Slab, KeepsAlignment) {
    Slab<Wide> slab(70);
    for (int i = 0; i < 70; ++i)
        EXPECT_EQ(reinterpret_cast<std::uintptr_t>(slab.emplace()) % 64, 0u);
}

}  // namespace
}  // namespace sluice
