// SPDX-License-Identifier: Apache-2.0
// The physical limit for moving KV blocks: what one blocking socket does, and what memcpy does.
//
//   floor_kv --block-bytes N --probe 1   two processes, one persistent TCP connection: the sender
//       gathers a 16-byte header and a block in one writev, the receiver reads the header and then
//       the block into its place; one answer a batch of 128 blocks, two batches in flight
//   floor_kv --block-bytes N --probe 0   memcpy of the same blocks, one thread
//
// Block ids are random over 256 MB on both sides. Prints one line of JSON: decimal GB/s and CPU
// seconds (both ends) per GiB.
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include <chrono>
#include <random>
#include <vector>

#include "common.h"

using namespace sluice::floor_limit;

namespace {

constexpr std::size_t kPool = 256 << 20;
constexpr int kInFlight = 2;

struct Header {
    std::uint64_t block;
    std::uint64_t bytes;
};

double cpu_seconds(int who) {
    rusage used{};
    getrusage(who, &used);
    return static_cast<double>(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
           static_cast<double>(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}
double now() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch())
        .count();
}

char* pool(int seed) {
    void* mapped = mmap(nullptr, kPool, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped == MAP_FAILED) die("mmap");
    std::memset(mapped, seed, kPool);
    return static_cast<char*>(mapped);
}

void read_all(int fd, char* to, std::size_t size) {
    while (size > 0) {
        const ssize_t got = ::recv(fd, to, size, 0);
        if (got <= 0) std::exit(got == 0 ? 0 : 1);
        to += got;
        size -= static_cast<std::size_t>(got);
    }
}

void receive_blocks(int fd, std::size_t batch) {
    char* memory = pool(2);
    for (std::size_t count = 0;;) {
        Header header;
        read_all(fd, reinterpret_cast<char*>(&header), sizeof header);
        read_all(fd, memory + header.block * header.bytes, header.bytes);
        if (++count % batch == 0 && ::send(fd, "k", 1, MSG_NOSIGNAL) != 1) std::exit(1);
    }
}

void print(double bytes, double seconds, double cpu) {
    std::printf("{\"gb_per_s\": %.3f, \"cpu_s_per_gib\": %.4f}\n", bytes / seconds / 1e9,
                cpu / (bytes / (1 << 30)));
}

}  // namespace

int main(int argc, char** argv) {
    auto flags = parse_flags(
        argc, argv, {{"--block-bytes", 65536}, {"--probe", 1}, {"--ms", 1000}, {"--batch", 128}});
    const auto block = static_cast<std::size_t>(flags["--block-bytes"]);
    const std::size_t batch = std::min(static_cast<std::size_t>(flags["--batch"]), kPool / block);
    const double limit = static_cast<double>(flags["--ms"]) / 1e3;
    std::mt19937_64 rng(1);
    const auto any_block = [&] { return rng() % (kPool / block); };

    if (flags["--probe"] == 0) {
        char* from = pool(1);
        char* to = pool(2);
        std::uint64_t copied = 0;
        const double start = now(), cpu = cpu_seconds(RUSAGE_SELF);
        while (now() - start < limit)
            for (std::size_t i = 0; i < batch; ++i, copied += block)
                std::memcpy(to + any_block() * block, from + any_block() * block, block);
        print(static_cast<double>(copied), now() - start, cpu_seconds(RUSAGE_SELF) - cpu);
        return 0;
    }

    const int listener = listen_on(0, 0);
    sockaddr_in bound{};
    socklen_t size = sizeof bound;
    getsockname(listener, reinterpret_cast<sockaddr*>(&bound), &size);
    const pid_t child = fork();
    if (child == 0) {
        const int fd = ::accept(listener, nullptr, nullptr);
        set_no_delay(fd);
        receive_blocks(fd, batch);
    }
    char* memory = pool(1);
    const int fd = connect_to(ntohs(bound.sin_port));
    set_no_delay(fd);
    std::uint64_t sent = 0;
    int in_flight = 0;
    char answer = 0;
    // The receiver fills its pool first; one batch there and back shows that it is ready.
    const auto send_batch = [&] {
        for (std::size_t i = 0; i < batch; ++i) {
            Header header{any_block(), block};
            iovec pieces[] = {{&header, sizeof header}, {memory + any_block() * block, block}};
            std::size_t left = sizeof header + block;
            iovec* at = pieces;
            while (left > 0) {
                const ssize_t done = ::writev(fd, at, static_cast<int>(pieces + 2 - at));
                if (done < 0) die("writev");
                left -= static_cast<std::size_t>(done);
                auto rest = static_cast<std::size_t>(done);
                while (at < pieces + 2 && rest >= at->iov_len) rest -= (at++)->iov_len;
                if (at < pieces + 2) {
                    at->iov_base = static_cast<char*>(at->iov_base) + rest;
                    at->iov_len -= rest;
                }
            }
        }
    };
    send_batch();
    read_all(fd, &answer, 1);
    const double start = now(), own = cpu_seconds(RUSAGE_SELF);
    // The child's CPU before this point (filling its pool) is measured apart: it ends with it.
    clockid_t child_clock{};
    clock_getcpuclockid(child, &child_clock);
    timespec child_start{};
    clock_gettime(child_clock, &child_start);
    while (now() - start < limit || in_flight > 0) {
        while (in_flight < kInFlight && now() - start < limit) {
            send_batch();
            ++in_flight;
        }
        if (in_flight == 0) break;
        read_all(fd, &answer, 1);
        --in_flight;
        sent += batch * block;
    }
    const double seconds = now() - start;
    timespec child_end{};
    clock_gettime(child_clock, &child_end);
    const double theirs = static_cast<double>(child_end.tv_sec - child_start.tv_sec) +
                          static_cast<double>(child_end.tv_nsec - child_start.tv_nsec) / 1e9;
    print(static_cast<double>(sent), seconds, cpu_seconds(RUSAGE_SELF) - own + theirs);
    ::close(fd);
    waitpid(child, nullptr, 0);
    return 0;
}
