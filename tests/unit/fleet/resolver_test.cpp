// SPDX-License-Identifier: Apache-2.0
#include "fleet/resolver.h"

#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <mutex>

namespace sluice::fleet {
namespace {

// Counts wake-ups and lets the test wait for one.
struct Bell {
    std::mutex mutex;
    std::condition_variable rung;
    int count = 0;

    std::function<void()> rope() {
        return [this] {
            std::lock_guard lock(mutex);
            ++count;
            rung.notify_all();
        };
    }
    void wait_for(int rings) {
        std::unique_lock lock(mutex);
        rung.wait(lock, [&] { return count >= rings; });
    }
};

// A lookup that waits until it is let go.
struct Gate {
    std::mutex mutex;
    std::condition_variable moved;
    bool open = false;
    int entered = 0;
    int left = 0;

    void pass() {
        std::unique_lock lock(mutex);
        ++entered;
        moved.notify_all();
        moved.wait(lock, [&] { return open; });
        ++left;
        moved.notify_all();
    }
    void let_go() {
        std::lock_guard lock(mutex);
        open = true;
        moved.notify_all();
    }
    void wait_until_entered() {
        std::unique_lock lock(mutex);
        moved.wait(lock, [&] { return entered > 0; });
    }
    void wait_until_left() {
        std::unique_lock lock(mutex);
        moved.wait(lock, [&] { return left == entered; });
    }
};

TEST(ThreadResolverTest, NumericHostsNeedNoThread) {
    Bell bell;
    ThreadResolver resolver(
        bell.rope(), [](const std::string&, std::uint16_t) -> Result<std::vector<io::Address>> {
            ADD_FAILURE() << "looked up";
            return fail(Errc::NotResolved);
        });
    resolver.ask("10.0.0.1", 80);
    resolver.ask("::1", 81);
    const auto answers = resolver.take_answers();
    ASSERT_EQ(answers.size(), 2U);
    EXPECT_EQ(answers[0].host, "10.0.0.1");
    EXPECT_EQ(answers[0].addresses.at(0).text(), "10.0.0.1:80");
    EXPECT_EQ(answers[1].addresses.at(0).text(), "[::1]:81");
    EXPECT_TRUE(resolver.take_answers().empty());
    EXPECT_EQ(bell.count, 2);
}

TEST(ThreadResolverTest, NamesAreLookedUpOnTheThread) {
    Bell bell;
    ThreadResolver resolver(
        bell.rope(),
        [](const std::string& host, std::uint16_t port) -> Result<std::vector<io::Address>> {
            if (host == "nowhere") return fail(Errc::NotResolved, 5);
            return std::vector{*io::Address::from_ip("10.1.1.1", port)};
        });
    resolver.ask("engine", 8010);
    resolver.ask("nowhere", 8010);
    bell.wait_for(2);
    const auto answers = resolver.take_answers();
    ASSERT_EQ(answers.size(), 2U);
    EXPECT_EQ(answers[0].host, "engine");
    EXPECT_EQ(answers[0].port, 8010);
    EXPECT_EQ(answers[0].addresses.at(0).text(), "10.1.1.1:8010");
    EXPECT_TRUE(answers[1].addresses.empty());
    EXPECT_EQ(answers[1].error, (Error{Errc::NotResolved, 5}));
}

TEST(ThreadResolverTest, QuestionsAreBoundedAndNotRepeated) {
    Bell bell;
    const auto gate = std::make_shared<Gate>();
    std::atomic<int> lookups{0};
    ThreadResolver resolver(
        bell.rope(),
        [&, gate](const std::string&, std::uint16_t) -> Result<std::vector<io::Address>> {
            ++lookups;
            gate->pass();
            return fail(Errc::NotResolved);
        });
    for (int round = 0; round < 3; ++round)
        for (std::size_t i = 0; i < ThreadResolver::kQuestionsMax; ++i)
            resolver.ask("h" + std::to_string(i), 1);
    EXPECT_TRUE(resolver.take_answers().empty());
    resolver.ask("one-too-many", 1);
    const auto answers = resolver.take_answers();
    ASSERT_EQ(answers.size(), 1U);
    EXPECT_EQ(answers[0].error.code, Errc::LimitReached);
    gate->let_go();
    bell.wait_for(1 + static_cast<int>(ThreadResolver::kQuestionsMax));
    EXPECT_EQ(resolver.take_answers().size(), ThreadResolver::kQuestionsMax);
    EXPECT_EQ(lookups.load(), static_cast<int>(ThreadResolver::kQuestionsMax));
}

TEST(ThreadResolverTest, GoesAwayWhileALookupHangs) {
    const auto gate = std::make_shared<Gate>();
    {
        Bell bell;
        ThreadResolver resolver(
            bell.rope(),
            [gate](const std::string&, std::uint16_t) -> Result<std::vector<io::Address>> {
                gate->pass();
                return fail(Errc::NotResolved);
            });
        resolver.ask("hangs", 1);
        gate->wait_until_entered();
    }
    // The resolver and its bell are gone; what the thread still does must not touch them
    // (sanitizers watch).
    gate->let_go();
    gate->wait_until_left();
}

TEST(ThreadResolverTest, GoesAwayIdleOrNeverUsed) {
    Bell bell;
    { ThreadResolver unused(bell.rope()); }
    ThreadResolver idle(bell.rope(),
                        [](const std::string&, std::uint16_t) -> Result<std::vector<io::Address>> {
                            return fail(Errc::NotResolved);
                        });
    idle.ask("x", 1);
    bell.wait_for(1);
}

TEST(GetAddrInfo, LocalhostComesIpv4First) {
    const auto addresses = look_up_with_getaddrinfo("localhost", 8010);
    ASSERT_TRUE(addresses.has_value());
    EXPECT_EQ(addresses->front().text(), "127.0.0.1:8010");
    for (std::size_t i = 1; i < addresses->size(); ++i)
        EXPECT_FALSE((*addresses)[i] == (*addresses)[i - 1]);
}

}  // namespace
}  // namespace sluice::fleet
