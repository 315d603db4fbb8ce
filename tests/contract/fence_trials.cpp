// SPDX-License-Identifier: Apache-2.0
#include "contract/fence_trials.h"

#include <unistd.h>

#include <algorithm>

#include "base/rng.h"
#include "contract/peer_process.h"

namespace sluice::transport {
namespace {

constexpr std::uint64_t kFresh = 0xF5E5;  // what the reused blocks hold

void spin_for(Duration time) {
    for (const Instant end = MonotonicClock::now() + time; MonotonicClock::now() < end;) {
    }
}

struct Bench {
    Bench(std::string_view name, FenceResult& out)
        : transport(name),
          result(out),
          memory(kPoolBytes),
          node(name, patient(), {.threads = 2, .pin = false, .spin = Duration::zero()}),
          region(*node->register_memory(memory.region())) {}

    bool start_sender() {
        sender = std::make_unique<PeerProcess>(transport, patient());
        const auto asked = node->connect(sender->listen());
        const auto up = asked ? node.wait(Event::PeerUp) : std::nullopt;
        if (!up) {
            ++result.lost;
            return false;
        }
        peer = up->peer;
        return true;
    }

    void trial(Rng& rng, std::uint64_t number);

    std::string_view transport;
    FenceResult& result;
    Memory memory;
    Node node;
    RegionId region;
    std::unique_ptr<PeerProcess> sender;
    PeerId peer;
};

void Bench::trial(Rng& rng, std::uint64_t number) {
    ++result.trials;
    const std::uint32_t sizes[] = {4096, 16384, 32768, 65536, 262144, 524288};
    Shape here;
    here.block_bytes = sizes[rng.below(std::size(sizes))];
    here.blocks = static_cast<std::uint32_t>(
        1 + rng.below(std::min<std::uint64_t>(64, (4 << 20) / here.block_bytes)));
    here.seed = rng();
    Shape there = here;
    there.seed = rng();
    const auto ids = here.ids();
    const Range range = here.range(region);
    const auto ticket = node->open(peer, {{&range, 1}, ids}, {});
    if (!ticket) {
        ++result.lost;
        return;
    }
    Command post;
    post.ask = Ask::Post;
    post.shape = there;
    post.ticket = *ticket;
    post.pattern = number + 1;
    sender->tell(post);

    // A tenth of the senders stop or die at a random moment, before, in or after the transfer.
    const std::uint64_t fate = rng.below(40);
    const bool stops = fate < 3, dies = fate == 3;
    const Duration before_fate = std::chrono::microseconds(rng.below(1500));
    const Duration before_abort =
        std::chrono::microseconds(rng.below(rng.below(8) == 0 ? 12000 : 3000));
    if (stops || dies) spin_for(before_fate);
    if (stops) {
        ++result.stopped;
        sender->stop();
    }
    if (dies) {
        ++result.killed;
        sender->kill();
    }
    spin_for(before_abort);

    const Instant start = MonotonicClock::now();
    node->revoke(*ticket);
    const auto ended = node.wait(Event::Landing);
    const Duration took = MonotonicClock::now() - start;
    if (!ended) {
        ++result.lost;
        return;
    }
    result.slowest = std::max(result.slowest, took);
    result.late_aborts += took > kRevokeBound;
    std::uint32_t landed = 0;
    for (std::uint32_t i = 0; i < here.blocks; ++i) landed += node->block_landed(*ticket, i);
    result.aborted_early += landed == 0;
    result.aborted_midway += landed > 0 && landed < here.blocks;
    node->release(*ticket);
    fill(memory, here, kFresh);  // at once: the blocks are another request's now

    if (stops) {
        spin_for(std::chrono::microseconds(rng.below(500)));
        sender->resume();
    }
    if (dies) {
        sender.reset();
        node->close(peer);  // may have been noticed already
        usleep(2000);
        node.poll();
        node.completions().clear();
        result.stale_bytes += wrong_bytes(memory, here, kFresh);
        start_sender();
        return;
    }
    // What the sender still had to say has been said when its post has ended.
    if (!sender->wait_completion()) ++result.lost;
    result.stale_bytes += wrong_bytes(memory, here, kFresh);
}

}  // namespace

FenceResult fence_trials(std::string_view transport, std::uint64_t trials, std::uint64_t seed) {
    FenceResult result;
    Bench bench(transport, result);
    Rng rng{seed};
    if (!bench.start_sender()) return result;
    for (std::uint64_t i = 0; i < trials && result.lost == 0; ++i) bench.trial(rng, i);
    Command let_go;
    let_go.ask = Ask::Deregister;
    result.leaks += !bench.sender->ask(let_go).ok;
    result.leaks += !bench.node->deregister_memory(bench.region).has_value();
    result.dropped_bytes = bench.node->counters().bytes_dropped;
    return result;
}

FenceResult stop_and_give_up(std::string_view transport, bool stop_receiver, bool with_fin) {
    FenceResult result;
    PeerProcess sender(transport, patient()), receiver(transport, patient());
    Command command;
    command.ask = Ask::Connect;
    sender.listen().copy(command.endpoint, sizeof command.endpoint - 1);
    // `listen` was the sender's; the receiver connects.
    if (!receiver.ask(command).ok) {
        ++result.lost;
        return result;
    }
    const Shape here{256, 64 << 10, 7}, there{256, 64 << 10, 8};
    Answer opened;
    Command post;
    post.ask = Ask::Post;
    post.shape = there;
    // The first two are whole, so that the sockets' windows have grown.
    for (int i = 0; i < 3 && result.lost == 0; ++i) {
        command = {};
        command.ask = Ask::Open;
        command.shape = here;
        opened = receiver.ask(command);
        result.lost += !opened.ok;
        post.ticket = opened.ticket;
        post.pattern = 1;
        if (i == 2) break;
        result.lost +=
            !sender.ask(post).ok || !receiver.wait_completion() || !sender.wait_completion();
    }

    PeerProcess& stopped = stop_receiver ? receiver : sender;
    if (stop_receiver) {
        // As many bytes as the sockets hold wait in the stopped receiver's queue.
        receiver.stop();
        sender.ask(post);
        usleep(200'000);
        if (with_fin) {
            sender.kill();  // its kernel ends the stream behind what was sent
        } else {
            Command revoke;
            revoke.ask = Ask::RevokePost;
            sender.ask(revoke);
            Command close;
            close.ask = Ask::ClosePeer;  // with a reset
            sender.ask(close);
        }
    } else {
        sender.tell(post);
        usleep(300);
        sender.stop();
    }
    // The receiver gives up too: the first thing it does when it runs is to abort and to reuse.
    Command abort;
    abort.ask = Ask::RevokeLanding;
    abort.ticket = opened.ticket;
    receiver.tell(abort);
    Command reuse;
    reuse.ask = Ask::Fill;
    reuse.shape = here;
    reuse.pattern = kFresh;
    receiver.tell(reuse);
    if (!stop_receiver) usleep(50'000);
    stopped.resume();
    usleep(300'000);
    Command count = reuse;
    count.ask = Ask::Wrong;
    const Answer counted = receiver.ask(count);
    result.lost += !counted.ok;
    result.stale_bytes = counted.number;
    ++result.trials;
    return result;
}

}  // namespace sluice::transport
