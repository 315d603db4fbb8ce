// SPDX-License-Identifier: Apache-2.0
// What a request may cost in countable things, once everything is warm: no heap allocation on the
// worker's thread, and one send for a message of up to 64 KiB.
//
// A real worker on io_uring between `sluice load`'s own threads and canned_engine as a process; the
// allocations are counted by this program's malloc, thread by thread.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <thread>

#include "app/worker.h"
#include "fleet/resolver.h"
#include "load/run.h"
#include "support/process.h"

namespace {

thread_local std::atomic<std::uint64_t> allocations{0};

}  // namespace

extern "C" {
void* __libc_malloc(std::size_t size);
void* __libc_calloc(std::size_t count, std::size_t size);
void* __libc_realloc(void* old, std::size_t size);

void* malloc(std::size_t size) {
    allocations.fetch_add(1, std::memory_order_relaxed);
    return __libc_malloc(size);
}
void* calloc(std::size_t count, std::size_t size) {
    allocations.fetch_add(1, std::memory_order_relaxed);
    return __libc_calloc(count, size);
}
void* realloc(void* old, std::size_t size) {
    allocations.fetch_add(1, std::memory_order_relaxed);
    return __libc_realloc(old, size);
}
}

namespace sluice::test {
namespace {

using namespace std::chrono_literals;

constexpr std::uint64_t kEvents = 8;

class Counts : public testing::Test {
protected:
    void SetUp() override {
        prefill_port_ = free_port();
        decode_port_ = free_port();
        engine_ = std::make_unique<Process>(
            std::vector<std::string>{CANNED_ENGINE, "--prefill", std::to_string(prefill_port_),
                                     "--decode", std::to_string(decode_port_), "--events",
                                     std::to_string(kEvents), "--interval-us", "2000"},
            testing::TempDir() + "/counts-engine.log");
        ASSERT_TRUE(wait_until_ok(decode_port_, "/health", 30));

        const std::string host = "http://127.0.0.1:";
        options_.prefill = {{.url = host + std::to_string(prefill_port_)}};
        options_.decode = {{.url = host + std::to_string(decode_port_)}};
        // The keeper works on the same thread: it does its first round and then leaves us alone.
        options_.keeper.connector = fleet::KvConnector::Nixl;
        options_.keeper.health_interval = 1h;
        const auto first =
            fleet::make_fleet(options_.prefill, options_.decode, options_.keeper.connector);
        ASSERT_TRUE(first) << first.error();
        fleet_ = std::make_unique<fleet::Fleet>(*first);
        shared_ = std::make_unique<pd::Shared>(options_, *fleet_);
        auto worker = app::Worker::make(*shared_, io::probe_uring());
        ASSERT_TRUE(worker) << describe(worker.error());
        worker_ = std::move(*worker);
        shared_->metrics.push_back(&worker_->proxy().metrics());
        const auto listener = worker_->io().listen(*io::Address::from_ip("127.0.0.1", 0), false);
        ASSERT_TRUE(listener);
        address_ = *worker_->io().local_address(*listener);
        worker_->add_listener(*listener);
        resolver_ = std::make_unique<fleet::ThreadResolver>([this] { worker_->io().wake(); });
        worker_->keep_fleet(*resolver_);
        thread_ = std::jthread([this] {
            counter_.store(&allocations);
            worker_->run(0, -1);
        });
        ASSERT_TRUE(wait_until_ok(address_.port(), "/ready", 30));
    }
    void TearDown() override {
        if (!thread_.joinable()) return;
        worker_->ask_to_drain();
        worker_->ask_to_stop();
        thread_.join();
    }

    load::LoadOptions plan(bool stream, const char* prompt_bytes) const {
        load::LoadOptions plan;
        plan.target = address_;
        plan.authority = address_.text();
        plan.api = stream ? json::Api::Chat : json::Api::Completions;
        plan.path = stream ? "/v1/chat/completions" : "/v1/completions";
        plan.stream = stream;
        plan.prompt_bytes = *load::SizeDistribution::parse(prompt_bytes);
        plan.connections = 4;
        plan.requests = 400;
        plan.progress = Duration::zero();
        return plan;
    }

    struct Counted {
        std::uint64_t allocations = 0;
        std::uint64_t sends = 0;
    };
    // Of `plan` run again and again until everything has its size. What each request allocated
    // would show in every run; a pool that a busy machine makes larger shows in one.
    Counted count(const load::LoadOptions& plan) {
        Counted counted;
        for (int run = 0; run < 8; ++run) {
            const Counted before = now();
            const auto result = load::run_load(
                plan, [](std::string_view) {}, never_);
            EXPECT_TRUE(result);
            if (!result) return {};
            EXPECT_EQ(result->tally->succeeded.value(), plan.requests);
            EXPECT_EQ(result->tally->failed(), 0U);
            const Counted after = now();
            counted = {after.allocations - before.allocations, after.sends - before.sends};
            if (run > 0 && counted.allocations == 0) break;
        }
        return counted;
    }
    // The worker shows its sends between turns, so it is made to take one.
    Counted now() {
        for (int turn = 0; turn < 2; ++turn) {
            const std::uint64_t turns = worker_->proxy().metrics().turns.value();
            worker_->io().wake();
            while (worker_->proxy().metrics().turns.value() == turns) std::this_thread::yield();
        }
        return {counter_.load()->load(), worker_->proxy().metrics().sends.value()};
    }

    int prefill_port_ = 0;
    int decode_port_ = 0;
    std::unique_ptr<Process> engine_;
    pd::ProxyOptions options_;
    std::unique_ptr<fleet::Fleet> fleet_;
    std::unique_ptr<pd::Shared> shared_;
    std::unique_ptr<app::Worker> worker_;
    io::Address address_;
    std::unique_ptr<fleet::ThreadResolver> resolver_;
    std::atomic<std::atomic<std::uint64_t>*> counter_{nullptr};
    std::atomic<bool> never_{false};
    std::jthread thread_;
};

TEST_F(Counts, ThisProgramCountsAllocations) {
    const std::uint64_t before = allocations.load();
    std::free(std::malloc(100));
    std::vector<int> some(50);
    EXPECT_GE(allocations.load() - before, 2U + some.size() / 100);
}

// Three messages: to P, to D, to the client.
TEST_F(Counts, PlainRequestAllocatesNothingAndIsSentInOnePieceEachWay) {
    for (const char* prompt_bytes : {"140", "32768", "63000"}) {
        const Counted counted = count(plan(false, prompt_bytes));
        EXPECT_EQ(counted.allocations, 0U) << prompt_bytes;
        EXPECT_EQ(counted.sends, 3 * 400U) << prompt_bytes;
    }
}

TEST_F(Counts, LargePromptAllocatesNothing) {
    load::LoadOptions large = plan(false, "1048576");
    large.requests = 50;
    EXPECT_EQ(count(large).allocations, 0U);
}

TEST_F(Counts, StreamAllocatesNothingAndAnEventIsOneSend) {
    const Counted counted = count(plan(true, "140"));
    EXPECT_EQ(counted.allocations, 0U);
    EXPECT_LE(counted.sends, (2 + kEvents) * 400U);
    EXPECT_GE(counted.sends, 3 * 400U);
}

}  // namespace
}  // namespace sluice::test
