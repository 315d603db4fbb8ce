// SPDX-License-Identifier: Apache-2.0
// The ring beside boost's spsc_queue and moodycamel's queue: items a second between two threads,
// one at a time, and the time of a hand-over there and back. scripts/setup --perf installs the
// others; without them their rows are not there. Needs two cores that are otherwise idle.
#include <benchmark/benchmark.h>
#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "base/cpu.h"
#include "base/spsc_ring.h"

#if __has_include(<boost/lockfree/spsc_queue.hpp>)
#include <boost/lockfree/spsc_queue.hpp>
#define HAVE_BOOST 1
#endif
#if __has_include(<concurrentqueue/concurrentqueue.h>)
#include <concurrentqueue/concurrentqueue.h>
#define HAVE_MOODYCAMEL 1
#elif __has_include(<concurrentqueue/moodycamel/concurrentqueue.h>)
#include <concurrentqueue/moodycamel/concurrentqueue.h>
#define HAVE_MOODYCAMEL 1
#endif

namespace {

constexpr std::size_t kCapacity = 1024;

template <std::size_t Bytes>
struct Item {
    std::uint64_t words[Bytes / 8];
};

template <class T>
struct Ours {
    using Value = T;
    sluice::SpscRing<T> ring{kCapacity};
    bool push(const T& item) { return ring.try_push(item); }
    bool pop(T& item) { return ring.try_pop(item); }
};
#ifdef HAVE_BOOST
template <class T>
struct Boost {
    using Value = T;
    boost::lockfree::spsc_queue<T, boost::lockfree::capacity<kCapacity>> queue;
    bool push(const T& item) { return queue.push(item); }
    bool pop(T& item) { return queue.pop(item); }
};
#endif
#ifdef HAVE_MOODYCAMEL
template <class T>
struct Moodycamel {
    using Value = T;
    moodycamel::ConcurrentQueue<T> queue{2 * kCapacity, 1, 0};
    moodycamel::ProducerToken producer{queue};
    bool push(const T& item) { return queue.try_enqueue(producer, item); }
    bool pop(T& item) { return queue.try_dequeue_from_producer(producer, item); }
};
#endif

void relax() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

// Asked once, before anybody is pinned: a thread inherits the one core of a pinned parent, and so
// the parent moves it to its own before it waits for it.
const std::vector<int> cpus = sluice::allowed_cpus();

void pin(pthread_t thread, unsigned which) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpus[which % cpus.size()], &set);
    pthread_setaffinity_np(thread, sizeof set, &set);
}

template <class Queue>
void throughput(benchmark::State& state) {
    constexpr std::uint64_t kItems = 2'000'000;
    double best = 0;
    for (auto _ : state) {
        auto queue = std::make_unique<Queue>();
        std::atomic<bool> go{false};
        std::thread producer([&] {
            typename Queue::Value item{};
            while (!go.load(std::memory_order_acquire)) relax();
            for (std::uint64_t i = 0; i < kItems; ++i) {
                item.words[0] = i;
                while (!queue->push(item)) relax();
            }
        });
        pin(producer.native_handle(), 1);
        pin(pthread_self(), 0);
        typename Queue::Value item{};
        const auto start = std::chrono::steady_clock::now();
        go.store(true, std::memory_order_release);
        for (std::uint64_t i = 0; i < kItems; ++i) {
            while (!queue->pop(item)) relax();
            if (item.words[0] != i) state.SkipWithError("wrong item");
        }
        const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
        producer.join();
        state.SetIterationTime(took.count());
        best = std::max(best, kItems / took.count());
    }
    state.counters["best_items_per_s"] = best;
}

template <class Queue>
void hand_over(benchmark::State& state) {
    constexpr std::size_t kTrips = 100'000;
    std::vector<double> ns;
    for (auto _ : state) {
        auto there = std::make_unique<Queue>(), back = std::make_unique<Queue>();
        std::thread other([&] {
            typename Queue::Value item{};
            for (std::size_t i = 0; i < kTrips; ++i) {
                while (!there->pop(item)) relax();
                while (!back->push(item)) relax();
            }
        });
        pin(other.native_handle(), 1);
        pin(pthread_self(), 0);
        typename Queue::Value item{};
        double sum = 0;
        for (std::size_t i = 0; i < kTrips; ++i) {
            const auto start = std::chrono::steady_clock::now();
            while (!there->push(item)) relax();
            while (!back->pop(item)) relax();
            const std::chrono::duration<double, std::nano> took =
                std::chrono::steady_clock::now() - start;
            ns.push_back(took.count());
            sum += took.count();
        }
        other.join();
        state.SetIterationTime(sum / 1e9);
    }
    std::sort(ns.begin(), ns.end());
    state.counters["p50_ns_there_and_back"] = ns[ns.size() / 2];
    state.counters["p99_ns_there_and_back"] = ns[ns.size() * 99 / 100];
}

#define ROWS(queue)                                                         \
    BENCHMARK(throughput<queue<Item<8>>>)->UseManualTime()->Iterations(7);  \
    BENCHMARK(throughput<queue<Item<64>>>)->UseManualTime()->Iterations(7); \
    BENCHMARK(hand_over<queue<Item<64>>>)->UseManualTime()->Iterations(5)

ROWS(Ours);
#ifdef HAVE_BOOST
ROWS(Boost);
#endif
#ifdef HAVE_MOODYCAMEL
ROWS(Moodycamel);
#endif

}  // namespace
