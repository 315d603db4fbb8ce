// SPDX-License-Identifier: Apache-2.0
// Moves KV blocks between two processes over one of our transports and says what it costs.
//
//   kvbench --transport tcp|shm --block-bytes N --blocks N --regions N --in-flight N --ms N
//
// A request is `blocks` blocks of each of `regions` regions, ids shuffled on both sides, so that
// nothing merges. The receiver opens a landing and asks the sender over a socket pair, as a pull
// does. Every block is compared with its source at the end. Prints one line of JSON; perf/kv/run
// makes the table.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <numeric>
#include <string>
#include <vector>

#include "base/cpu.h"
#include "base/event_fd.h"
#include "base/rng.h"
#include "transport/table.h"

using namespace sluice;
using namespace sluice::transport;

namespace {

constexpr std::size_t kPool = 256 << 20;

struct Options {
    std::string transport = "tcp";
    std::uint64_t block_bytes = 65536, blocks = 128, regions = 1, in_flight = 2, ms = 1000;
    std::uint64_t threads = 1, lanes = 1, checksum = 0, frame = 512 << 10;
};

struct Request {  // receiver -> sender
    Ticket ticket;
    std::uint64_t number = 0;
    bool end = false;
};
struct Cpu {  // sender -> receiver
    double seconds = 0;
};

double cpu_seconds() {
    rusage used{};
    getrusage(RUSAGE_SELF, &used);
    return static_cast<double>(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
           static_cast<double>(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

std::byte* pool_of(int fd) {
    if (ftruncate(fd, kPool) != 0 || fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK) != 0) std::abort();
    void* mapped = mmap(nullptr, kPool, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
    if (mapped == MAP_FAILED) std::abort();
    return static_cast<std::byte*>(mapped);
}

// Which blocks of a region each of the requests takes: shares of one shuffled pool.
struct Layout {
    Layout(const Options& options, std::uint64_t seed) {
        region_bytes = kPool / options.regions / options.block_bytes * options.block_bytes;
        std::vector<std::uint32_t> all(region_bytes / options.block_bytes);
        std::iota(all.begin(), all.end(), 0);
        Rng rng{seed};
        for (std::size_t i = all.size(); i-- > 1;) std::swap(all[i], all[rng.below(i + 1)]);
        per_request = std::min<std::size_t>(options.blocks, all.size());
        for (std::size_t at = 0; at + per_request <= all.size(); at += per_request)
            requests.emplace_back(all.begin() + static_cast<std::ptrdiff_t>(at),
                                  all.begin() + static_cast<std::ptrdiff_t>(at + per_request));
        for (std::uint64_t i = 0; i < options.regions; ++i)
            ranges.push_back({.region = 0,
                              .piece_bytes = static_cast<std::uint32_t>(options.block_bytes),
                              .offset = i * region_bytes,
                              .block_stride = options.block_bytes,
                              .block_count = static_cast<std::uint32_t>(per_request)});
    }
    Batch batch(std::uint64_t number) const { return {ranges, requests[number % requests.size()]}; }
    std::uint64_t request_bytes() const { return ranges.size() * ranges[0].bytes(); }

    std::uint64_t region_bytes = 0;
    std::size_t per_request = 0;
    std::vector<std::vector<std::uint32_t>> requests;
    std::vector<Range> ranges;
};

class End {
public:
    explicit End(const Options& options)
        : kick_(*EventFd::create()), waker_(Delegate<void()>::to<&EventFd::set>(kick_)) {
        SenderOptions senders;
        senders.threads = static_cast<unsigned>(options.threads);
        senders.pin = false;
        senders.spin = Duration::zero();
        threads_ = std::move(*Senders::start(senders, waker_));
        TransportOptions how;
        how.node = random_seed() | 1;
        how.lanes_per_peer = static_cast<unsigned>(options.lanes);
        how.checksum = options.checksum != 0;
        how.frame_bytes_max = static_cast<std::uint32_t>(options.frame);
        how.silence_max = std::chrono::seconds(60);
        transport = find_transport(options.transport)->make(*threads_, how);
    }
    // One completion; waits up to `limit` for it.
    bool next(Completion& out, Duration limit) {
        for (const Instant end = MonotonicClock::now() + limit;;) {
            const Instant now = MonotonicClock::now();
            if (transport->poll(now, {&out, 1}) == 1) return true;
            if (now >= end) return false;
            waker_.prepare_to_sleep();
            if (threads_->idle())
                kick_.wait(std::min(end, std::max(now, transport->next_deadline())) - now);
            waker_.awake();
        }
    }

private:
    EventFd kick_;
    Waker waker_;
    std::unique_ptr<Senders> threads_;

public:
    std::unique_ptr<Transport> transport;
};

void send_side(const Options& options, int control, int memory_fd) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    std::byte* memory = pool_of(memory_fd);
    Rng rng{1};
    for (std::size_t i = 0; i < kPool; i += 8) {
        const std::uint64_t value = rng();
        std::memcpy(memory + i, &value, 8);
    }
    End end(options);
    (void)end.transport->register_memory({memory, kPool, MemoryKind::Host, memory_fd, 0});
    const Endpoint where = options.transport == "shm"
                               ? "/tmp/sluice-kvbench-" + std::to_string(getpid()) + ".sock"
                               : "127.0.0.1:0";
    const Endpoint endpoint = *end.transport->listen(where);
    ::send(control, endpoint.c_str(), endpoint.size() + 1, 0);
    Completion done;
    while (!end.next(done, std::chrono::seconds(10)) || done.event != Event::PeerUp) {
    }
    const PeerId peer = done.peer;
    const Layout layout(options, 100);
    Request request;
    while (::recv(control, &request, sizeof request, 0) == sizeof request) {
        if (request.end) {
            const Cpu cpu{cpu_seconds()};
            ::send(control, &cpu, sizeof cpu, 0);
            continue;
        }
        while (end.next(done, Duration::zero())) {
        }
        if (!end.transport->post(peer, request.ticket, layout.batch(request.number), {}))
            std::abort();
    }
    _exit(0);
}

double percentile(std::vector<double>& values, double share) {
    std::sort(values.begin(), values.end());
    return values[static_cast<std::size_t>(share * static_cast<double>(values.size() - 1))];
}

}  // namespace

int main(int argc, char** argv) {
    Options options;
    std::map<std::string, std::uint64_t*> numbers{{"--block-bytes", &options.block_bytes},
                                                  {"--blocks", &options.blocks},
                                                  {"--regions", &options.regions},
                                                  {"--in-flight", &options.in_flight},
                                                  {"--ms", &options.ms},
                                                  {"--threads", &options.threads},
                                                  {"--lanes", &options.lanes},
                                                  {"--checksum", &options.checksum},
                                                  {"--frame", &options.frame}};
    for (int i = 1; i + 1 < argc; i += 2) {
        const std::string flag = argv[i];
        if (flag == "--transport") {
            options.transport = argv[i + 1];
        } else if (numbers.contains(flag)) {
            *numbers[flag] = std::strtoull(argv[i + 1], nullptr, 10);
        } else {
            std::fprintf(stderr, "kvbench: unknown flag %s\n", argv[i]);
            return 2;
        }
    }
    if (find_transport(options.transport) == nullptr) {
        std::fprintf(stderr, "kvbench: no transport '%s'; there are:", options.transport.c_str());
        for (const TransportKind& kind : transports())
            std::fprintf(stderr, " %s", std::string(kind.capabilities.name).c_str());
        std::fprintf(stderr, "\n");
        return 2;
    }
    int control[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, control) != 0) return 1;
    const int source_fd = memfd_create("source", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    const int target_fd = memfd_create("target", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    const pid_t child = fork();
    if (child == 0) {
        ::close(control[0]);
        send_side(options, control[1], source_fd);
    }
    ::close(control[1]);
    std::byte* memory = pool_of(target_fd);
    End end(options);
    (void)end.transport->register_memory({memory, kPool, MemoryKind::Host, target_fd, 0});
    char endpoint[128];
    if (::recv(control[0], endpoint, sizeof endpoint, 0) <= 0) return 1;
    const auto asked = end.transport->connect(endpoint);
    Completion done;
    if (!asked || !end.next(done, std::chrono::seconds(10)) || done.event != Event::PeerUp) {
        std::fprintf(stderr, "kvbench: no connection\n");
        return 1;
    }
    const PeerId peer = done.peer;
    const Layout layout(options, 200);
    std::vector<Instant> started;
    std::vector<double> took_us, prep_us;
    std::uint64_t next = 0, moved = 0;
    const auto begin = [&] {
        const Instant start = MonotonicClock::now();
        const auto ticket = end.transport->open(peer, layout.batch(next), {.user = started.size()});
        if (!ticket) std::abort();
        Request request;
        request.ticket = *ticket;
        request.number = next++;
        ::send(control[0], &request, sizeof request, 0);
        prep_us.push_back(to_ms(MonotonicClock::now() - start) * 1e3);
        started.push_back(start);
    };
    const auto finish = [&] {
        if (!end.next(done, std::chrono::seconds(20)) || done.status != Status::Landed) {
            std::fprintf(stderr, "kvbench: a transfer failed\n");
            std::exit(1);
        }
        end.transport->release(done.ticket);
        took_us.push_back(to_ms(MonotonicClock::now() - started[done.user]) * 1e3);
    };
    const auto their_cpu = [&] {
        Request question;
        question.end = true;
        ::send(control[0], &question, sizeof question, 0);
        Cpu cpu;
        if (::recv(control[0], &cpu, sizeof cpu, 0) != sizeof cpu) std::exit(1);
        return cpu.seconds;
    };
    for (std::size_t i = 0; i < layout.requests.size(); ++i) {  // every block once: warm and whole
        begin();
        finish();
    }
    const std::uint64_t whole = next;
    took_us.clear();
    prep_us.clear();
    started.clear();
    const double cpu = cpu_seconds() + their_cpu();
    const Instant start = MonotonicClock::now();
    const Duration limit = std::chrono::milliseconds(options.ms);
    std::uint64_t in_flight = 0;
    while (MonotonicClock::now() - start < limit || in_flight > 0) {
        while (in_flight < options.in_flight && MonotonicClock::now() - start < limit) {
            begin();
            ++in_flight;
        }
        finish();
        --in_flight;
        moved += layout.request_bytes();
    }
    const double seconds = to_seconds(MonotonicClock::now() - start);
    const double spent = cpu_seconds() + their_cpu() - cpu;

    // Both layouts are known here: each block is compared with the one it was made from.
    const Layout source_layout(options, 100);
    void* source = mmap(nullptr, kPool, PROT_READ, MAP_SHARED, source_fd, 0);
    bool exact = source != MAP_FAILED && whole == layout.requests.size();
    for (std::size_t r = 0; exact && r < layout.requests.size(); ++r)
        for (std::uint64_t region = 0; region < options.regions; ++region)
            for (std::size_t i = 0; i < layout.per_request; ++i)
                exact = exact &&
                        std::memcmp(static_cast<std::byte*>(source) + region * layout.region_bytes +
                                        source_layout.requests[r][i] * options.block_bytes,
                                    memory + region * layout.region_bytes +
                                        layout.requests[r][i] * options.block_bytes,
                                    options.block_bytes) == 0;
    const double gib = static_cast<double>(moved) / (1 << 30);
    std::printf(
        "{\"gb_per_s\": %.3f, \"cpu_s_per_gib\": %.4f, \"p50_us\": %.1f, \"p99_us\": %.1f, "
        "\"prep_p50_us\": %.1f, \"requests\": %zu, \"request_bytes\": %llu, "
        "\"exact\": %s}\n",
        static_cast<double>(moved) / seconds / 1e9, spent / gib, percentile(took_us, 0.5),
        percentile(took_us, 0.99), percentile(prep_us, 0.5), took_us.size(),
        static_cast<unsigned long long>(layout.request_bytes()), exact ? "true" : "false");
    ::close(control[0]);
    waitpid(child, nullptr, 0);
    return exact ? 0 : 1;
}
