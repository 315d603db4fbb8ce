// SPDX-License-Identifier: Apache-2.0
// Our transport and Mooncake's own transfer engine (its wheel, in a process of its own): writes
// both ways, both versions of the wire, and the fence against an engine that is slow, stopped or
// killed.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <numeric>
#include <sstream>
#include <thread>

#include "base/rng.h"
#include "contract/node.h"
#include "transport/mooncake/mooncake_transport.h"

namespace sluice::transport {
namespace {

using std::chrono::milliseconds;

constexpr std::size_t kPool = 64 << 20;
constexpr std::uint32_t kBlock = 32768;
constexpr std::uint32_t kBlocks = kPool / kBlock;

std::string python() {
    const char* environment = std::getenv("SLUICE_REAL_VLLM");
    return std::string(environment != nullptr ? environment : ".deps/real-vllm") + "/bin/python";
}

class Engine {
public:
    explicit Engine(int version) {
        path_ = "/dev/shm/sluice-wheel-" + std::to_string(getpid()) + "-" +
                std::to_string(reinterpret_cast<std::uintptr_t>(this));
        const int fd = ::open(path_.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        EXPECT_GE(fd, 0);
        EXPECT_EQ(ftruncate(fd, kPool), 0);
        memory = static_cast<std::byte*>(
            mmap(nullptr, kPool, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
        ::close(fd);
        int in[2], out[2];
        EXPECT_EQ(pipe2(in, O_CLOEXEC), 0);
        EXPECT_EQ(pipe2(out, O_CLOEXEC), 0);
        const std::string program = python(), bytes = std::to_string(kPool);
        pid_ = fork();
        if (pid_ == 0) {
            dup2(in[0], 0);
            dup2(out[1], 1);
            if (version == 1) setenv("MC_TCP_PROTO", "1", 1);
            setenv("MC_LOG_LEVEL", "ERROR", 1);
            execl(program.c_str(), program.c_str(), "tests/wheel/engine.py", path_.c_str(),
                  bytes.c_str(), nullptr);
            _exit(127);
        }
        ::close(in[0]);
        ::close(out[1]);
        to_ = in[1];
        from_ = out[0];
        std::istringstream said(line(60'000));
        std::uint16_t port = 0;
        said >> port >> address;
        EXPECT_NE(port, 0) << "the engine did not start";
        endpoint = "127.0.0.1:" + std::to_string(port);
    }
    ~Engine() {
        kill();
        ::close(to_);
        ::close(from_);
        munmap(memory, kPool);
        unlink(path_.c_str());
    }
    void tell(const std::string& text) {
        EXPECT_EQ(::write(to_, text.data(), text.size()), static_cast<ssize_t>(text.size()));
    }
    // Empty: nothing came, or it is dead.
    std::string line(int limit_ms) {
        std::string text;
        for (char c = 0;;) {
            pollfd ready{from_, POLLIN, 0};
            if (poll(&ready, 1, limit_ms) <= 0 || ::read(from_, &c, 1) != 1) return "";
            if (c == '\n') return text;
            text += c;
        }
    }
    void stop() { ::kill(pid_, SIGSTOP); }
    void resume() { ::kill(pid_, SIGCONT); }
    void kill() {
        if (pid_ <= 0) return;
        ::kill(pid_, SIGKILL);
        waitpid(pid_, nullptr, 0);
        pid_ = -1;
    }

    std::byte* memory = nullptr;
    std::uint64_t address = 0;
    Endpoint endpoint;

private:
    std::string path_;
    pid_t pid_ = -1;
    int to_ = -1, from_ = -1;
};

// With the version of the wire that the engine is told to speak.
class Wheel : public testing::TestWithParam<int> {
protected:
    Wheel() : memory(kPool) {
        if (!std::filesystem::exists(python())) return;
        engine = std::make_unique<Engine>(GetParam());
        TransportOptions options = patient();
        options.silence_max = std::chrono::seconds(10);
        node =
            std::make_unique<Node>("mooncake", options, SenderOptions{.threads = 2, .pin = false});
        region = *(*node)->register_memory(memory.region());
        endpoint = *(*node)->listen("127.0.0.1:0");
        for (std::size_t i = 0; i < kPool; i += 8) {
            const std::uint64_t a = rng(), b = rng();
            std::memcpy(engine->memory + i, &a, 8);
            std::memcpy(memory.at(i), &b, 8);
        }
    }
    void SetUp() override {
        if (!engine) GTEST_SKIP() << python() << " is not there; scripts/real-vllm setup makes it";
    }
    MooncakeTransport& transport() { return static_cast<MooncakeTransport&>(**node); }

    std::vector<std::uint32_t> shuffled(std::uint32_t count) {
        std::vector<std::uint32_t> ids(kBlocks);
        std::iota(ids.begin(), ids.end(), 0);
        for (std::uint32_t i = 0; i < count; ++i)
            std::swap(ids[i], ids[i + rng.below(kBlocks - i)]);
        ids.resize(count);
        return ids;
    }
    Range range(RegionId of, std::uint32_t count) const {
        return {.region = of, .piece_bytes = kBlock, .block_stride = kBlock, .block_count = count};
    }
    Ticket open(const std::vector<std::uint32_t>& ids) {
        const Range whole = range(region, static_cast<std::uint32_t>(ids.size()));
        return *transport().open_to_any({{&whole, 1}, ids}, {});
    }
    // The engine writes its blocks, `merged` of them at a time.
    void engine_writes(const Ticket& ticket, const std::vector<std::uint32_t>& from,
                       std::size_t merged = 1) {
        std::string line = endpoint;
        const std::uint64_t at = MooncakeTransport::address_of(ticket, 0);
        for (std::size_t i = 0; i < from.size(); i += merged)
            line += " " + std::to_string(std::uint64_t{from[i]} * kBlock) + " " +
                    std::to_string(at + i * kBlock) + " " + std::to_string(merged * kBlock);
        engine->tell(line + "\n");
    }
    PeerId connect() {
        EXPECT_TRUE(transport().connect(engine->endpoint));
        const auto up = node->wait(Event::PeerUp);
        EXPECT_TRUE(up);
        return up ? up->peer : PeerId();
    }
    Result<PostId> write(PeerId peer, const std::vector<std::uint32_t>& from,
                         const std::vector<std::uint32_t>& to, std::uint64_t address) {
        const auto count = static_cast<std::uint32_t>(from.size());
        const Range here = range(region, count), there = range(0, count);
        const RemoteRegion remote{address, kPool};
        return transport().write(peer, {{&here, 1}, from}, {{&there, 1}, to}, {&remote, 1}, {});
    }
    std::span<const std::byte> block(const std::byte* base, std::uint32_t id) const {
        return {base + std::uint64_t{id} * kBlock, kBlock};
    }
    bool same(const std::byte* a, std::uint32_t x, const std::byte* b, std::uint32_t y) const {
        return std::ranges::equal(block(a, x), block(b, y));
    }

    Rng rng{5};
    Memory memory;
    std::unique_ptr<Engine> engine;
    std::unique_ptr<Node> node;
    RegionId region = 0;
    Endpoint endpoint;
};

TEST_P(Wheel, TheEngineWritesIntoOurBlocks) {
    const std::vector<std::byte> before(memory.bytes().begin(), memory.bytes().end());
    const auto to = shuffled(600);
    auto from = shuffled(600);
    const Ticket ticket = open(to);
    engine_writes(ticket, from);
    const auto landed = node->wait(Event::Landing);
    ASSERT_TRUE(landed);
    EXPECT_EQ(landed->status, Status::Landed);
    EXPECT_EQ(engine->line(20'000), "0");
    for (std::size_t i = 0; i < to.size(); ++i) {
        EXPECT_TRUE(same(memory.at(0), to[i], engine->memory, from[i])) << i;
        EXPECT_TRUE((*node)->block_landed(ticket, static_cast<std::uint32_t>(i)));
    }
    for (std::uint32_t id = 0; id < kBlocks; ++id)
        if (std::ranges::find(to, id) == to.end()) {
            EXPECT_TRUE(same(memory.at(0), id, before.data(), id)) << id;
        }
    (*node)->release(ticket);
    // We have heard of it, since it asked us where we are.
    EXPECT_TRUE(node->wait(Event::PeerUp));
    // What is adjacent on its side and in our addresses is one write, scattered here.
    std::iota(from.begin(), from.end(), 100);
    const Ticket merged = open(to);
    engine_writes(merged, from, 50);
    EXPECT_EQ(engine->line(20'000), "0");
    ASSERT_TRUE(node->wait(Event::Landing));
    for (std::size_t i = 0; i < to.size(); ++i)
        EXPECT_TRUE(same(memory.at(0), to[i], engine->memory, from[i])) << i;
    (*node)->release(merged);
}

TEST_P(Wheel, WeWriteIntoTheEngine) {
    const PeerId peer = connect();
    const std::vector<std::byte> before(engine->memory, engine->memory + kPool);
    const auto from = shuffled(700), to = shuffled(700);
    ASSERT_TRUE(write(peer, from, to, engine->address));
    const auto delivered = node->wait(Event::Post);
    ASSERT_TRUE(delivered);
    EXPECT_EQ(delivered->status, Status::Delivered);
    for (std::size_t i = 0; i < to.size(); ++i)
        EXPECT_TRUE(same(engine->memory, to[i], memory.at(0), from[i])) << i;
    for (std::uint32_t id = 0; id < kBlocks; ++id)
        if (std::ranges::find(to, id) == to.end()) {
            EXPECT_TRUE(same(engine->memory, id, before.data(), id)) << id;
        }
}

TEST_P(Wheel, AddressesThatAreNotTheEnginesAreRefused) {
    const PeerId peer = connect();
    ASSERT_TRUE(write(peer, {1}, {0}, engine->address + kPool));
    const auto ended = node->wait(Event::Post);
    ASSERT_TRUE(ended);
    EXPECT_NE(ended->status, Status::Delivered);
    const auto down = node->wait(Event::PeerDown);  // it closes such a connection
    ASSERT_TRUE(down);
    ASSERT_TRUE(write(connect(), {1}, {0}, engine->address));
    const auto again = node->wait(Event::Post);
    ASSERT_TRUE(again);
    EXPECT_EQ(again->status, Status::Delivered);
}

TEST_P(Wheel, ARevokedWriteEndsWhenNothingOfItCanComeAnyMore) {
    const PeerId peer = connect();
    const auto from = shuffled(1500), to = shuffled(1500);
    int midway = 0;
    for (int i = 0; i < 20; ++i) {
        std::memset(engine->memory, 0, kPool);
        const auto post = write(peer, from, to, engine->address);
        ASSERT_TRUE(post);
        std::this_thread::sleep_for(std::chrono::microseconds(500 * i));
        (*node)->revoke(*post);
        const auto ended = node->wait(Event::Post);
        ASSERT_TRUE(ended);
        // Ours at once; and the engine's as well, since what it may still write it has written.
        for (const std::uint32_t id : from)
            std::memset(memory.at(std::size_t{id} * kBlock), i, kBlock);
        const std::vector<std::byte> then(engine->memory, engine->memory + kPool);
        std::this_thread::sleep_for(milliseconds(20));
        EXPECT_EQ(std::memcmp(then.data(), engine->memory, kPool), 0) << i;
        midway += ended->status == Status::Revoked;
    }
    std::printf("%d of 20 revoked amid the bytes\n", midway);
    EXPECT_GT(midway, 0);
}

// Blocks are reused the moment an abort has returned.
TEST_P(Wheel, NothingOfTheEnginesLandsAfterAnAbort) {
    constexpr std::byte kFresh{0xF5};
    constexpr int kAborts = 20;
    std::uint64_t stale = 0, midway = 0;
    for (int i = 0; i < kAborts; ++i) {
        const auto to = shuffled(1000), from = shuffled(1000);
        const Ticket ticket = open(to);
        engine_writes(ticket, from);
        // Until it writes (after a refusal it takes a second to), and a moment longer.
        const std::uint64_t before = (*node)->counters().bytes_landed;
        const Instant limit = MonotonicClock::now() + std::chrono::seconds(10);
        while ((*node)->counters().bytes_landed == before && MonotonicClock::now() < limit)
            node->poll();
        const Instant end = MonotonicClock::now() + std::chrono::microseconds(rng.below(4000));
        while (MonotonicClock::now() < end) node->poll();
        if (i % 4 == 3) engine->stop();
        (*node)->revoke(ticket);
        const auto ended = node->wait(Event::Landing);
        ASSERT_TRUE(ended);
        std::uint32_t landed = 0;
        for (std::uint32_t k = 0; k < 1000; ++k) landed += (*node)->block_landed(ticket, k);
        midway += landed > 0 && landed < 1000;
        (*node)->release(ticket);
        for (const std::uint32_t id : to)
            std::fill_n(memory.at(std::size_t{id} * kBlock), kBlock, kFresh);
        if (i % 4 == 3) {
            std::this_thread::sleep_for(milliseconds(5));
            engine->resume();
        }
        std::string said;
        for (int turn = 0; turn < 40'000 && said.empty(); ++turn) {
            node->poll();  // it may have to connect again
            said = engine->line(1);
        }
        EXPECT_NE(said, "") << "abort " << i;
        for (const std::uint32_t id : to)
            stale += static_cast<std::uint64_t>(std::ranges::count_if(
                block(memory.at(0), id), [](std::byte b) { return b != kFresh; }));
    }
    std::printf("%d aborts, %llu amid the bytes, %llu bytes dropped, %llu stale\n", kAborts,
                static_cast<unsigned long long>(midway),
                static_cast<unsigned long long>((*node)->counters().bytes_dropped),
                static_cast<unsigned long long>(stale));
    EXPECT_EQ(stale, 0u);
    EXPECT_GT(midway, 0u);
    EXPECT_EQ((*node)->counters().violations, 0u);
}

TEST_P(Wheel, AnEngineThatIsKilledIsLostAtOnce) {
    connect();
    const Instant start = MonotonicClock::now();
    engine->kill();
    const auto down = node->wait(Event::PeerDown);
    ASSERT_TRUE(down);
    EXPECT_EQ(down->status, Status::PeerLost);
    std::printf("%.1f ms\n", to_ms(MonotonicClock::now() - start));
}

INSTANTIATE_TEST_SUITE_P(Version, Wheel, testing::Values(1, 2));

}  // namespace
}  // namespace sluice::transport
