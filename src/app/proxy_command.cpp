// SPDX-License-Identifier: Apache-2.0
#include "app/proxy_command.h"

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <thread>

#include "app/proxy_flags.h"
#include "app/worker.h"
#include "base/cpu.h"
#include "base/version.h"
#include "fleet/resolver.h"
#include "io/uring/listener.h"

namespace sluice::app {

namespace {

using namespace std::chrono_literals;

constexpr Duration kStopTimeout = 5s;  // for what is cut off after --drain-timeout
constexpr Duration kPoll = 20ms;       // how often the main thread looks while it waits for workers

// Clients may take six tenths of the descriptors, so that a crowd of idle ones leaves room for
// upstream connections.
std::uint32_t connections_within(std::uint64_t descriptors, std::size_t workers,
                                 std::uint32_t wanted) {
    constexpr std::uint64_t kOwn = 64;  // rings, event descriptors, listeners, the log
    constexpr std::uint64_t kLeast = 8;
    const std::uint64_t usable = descriptors > kOwn ? (descriptors - kOwn) * 6 / 10 : 0;
    return static_cast<std::uint32_t>(
        std::min<std::uint64_t>(wanted, std::max(kLeast, usable / workers)));
}

// Signals are taken by the main thread alone, with sigtimedwait.
class Signals {
public:
    // SIGHUP, which otherwise ends the process, is taken only if there is a file to open again.
    explicit Signals(pd::AccessLog* log) : log_(log) {
        sigemptyset(&set_);
        sigaddset(&set_, SIGTERM);
        sigaddset(&set_, SIGINT);
        if (log_ != nullptr) sigaddset(&set_, SIGHUP);
        sigprocmask(SIG_BLOCK, &set_, nullptr);
        signal(SIGPIPE, SIG_IGN);
    }

    // True if one came within `wait` that asks to end.
    bool wait(Duration wait) const {
        timespec timeout{};
        timeout.tv_sec = wait / 1s;
        timeout.tv_nsec = (wait % 1s).count();
        const int signal = sigtimedwait(&set_, nullptr, &timeout);
        if (signal != SIGHUP) return signal > 0;
        obs::log_info("opening the access log again");
        log_->reopen();
        return false;
    }

private:
    pd::AccessLog* log_;
    sigset_t set_;
};

std::vector<std::string> urls_of(const std::vector<fleet::InstanceSpec>& specs) {
    std::vector<std::string> urls;
    for (const fleet::InstanceSpec& spec : specs) urls.push_back(spec.url);
    return urls;
}

std::unique_ptr<pd::AccessLog> open_access_log(const pd::AccessLogOptions& log,
                                               const pd::ProxyOptions& proxy) {
    if (log.path == "none") return nullptr;
    auto opened = pd::AccessLog::open(log, urls_of(proxy.prefill), urls_of(proxy.decode));
    if (!opened) throw std::runtime_error("--access-log: " + opened.error());
    return std::move(*opened);
}

// Every worker gets its own listener of a TCP address, and the kernel spreads connections; a unix
// path has one listener that all of them accept on.
Result<void> listen_on(const std::vector<io::Address>& addresses,
                       std::vector<std::unique_ptr<Worker>>& workers) {
    for (const io::Address& address : addresses) {
        int first = -1;
        for (auto& worker : workers) {
            int fd = -1;
            if (address.is_unix() && first >= 0) {
                fd = ::dup(first);
                if (fd < 0) return fail_errno();
            } else {
                const auto opened = io::open_listener(address, workers.size() > 1);
                if (!opened) {
                    obs::log_error("cannot listen on " + address.text() + ": " +
                                   describe(opened.error()) + "; is another program using it?");
                    return std::unexpected(opened.error());
                }
                fd = *opened;
            }
            if (first < 0) first = fd;
            worker->add_listener(fd);
        }
        obs::log_info("listening on " + address.text());
    }
    return {};
}

bool all_finished(const std::vector<std::unique_ptr<Worker>>& workers) {
    for (const auto& worker : workers)
        if (!worker->finished()) return false;
    return true;
}

// Waits for the workers, at most so long; a second signal cuts it short.
bool wait_for_workers(const std::vector<std::unique_ptr<Worker>>& workers, const Signals& signals,
                      Duration limit) {
    for (const Instant end = MonotonicClock::now() + limit; MonotonicClock::now() < end;) {
        if (all_finished(workers)) return true;
        if (signals.wait(kPoll)) return false;
    }
    return all_finished(workers);
}

void describe_fleet(const pd::ProxyOptions& options) {
    std::string line = std::to_string(options.prefill.size()) + " prefill (";
    for (const auto& spec : options.prefill) line += spec.url + " ";
    line += ") and " + std::to_string(options.decode.size()) + " decode instances (";
    for (const auto& spec : options.decode) line += spec.url + " ";
    obs::log_info(line + ")");
}

int serve(pd::ProxyOptions options, const ProcessOptions& process) {
    options.keeper.log = [](std::string_view line) { obs::log_info(line); };
    options.relay.log = [](std::string_view line) { obs::log_warning(line); };
    const auto first = fleet::make_fleet(options.prefill, options.decode, options.keeper.connector);
    if (!first) throw std::runtime_error(first.error());

    const std::unique_ptr<pd::AccessLog> access_log = open_access_log(process.access_log, options);
    const Signals signals(process.access_log.path == "-" ? nullptr : access_log.get());
    const std::uint64_t descriptors = raise_descriptor_limit();
    const io::UringCapabilities capabilities = io::probe_uring();
    if (!capabilities.sufficient()) {
        obs::log_error(io::explain_missing(capabilities));
        return 1;
    }

    const std::vector<int> cpus = allowed_cpus();
    const std::size_t count = process.workers == 0 ? cpus.size() : process.workers;
    options.connections_max = connections_within(descriptors, count, options.connections_max);
    fleet::Fleet fleet(*first);
    std::vector<std::unique_ptr<Worker>> workers;
    const auto wake_all = [&workers] {
        for (auto& worker : workers) worker->io().wake();
    };
    options.keeper.on_published = wake_all;  // a sleeping worker would not see it
    fleet::ThreadResolver resolver(wake_all);
    pd::Shared shared(options, fleet, count);
    shared.access_log = access_log.get();
    for (std::size_t i = 0; i < count; ++i) {
        auto worker = Worker::make(shared, capabilities);
        if (!worker) {
            obs::log_error("cannot set up worker " + std::to_string(i) + ": " +
                           describe(worker.error()) + "; `sluice doctor` says more");
            return 1;
        }
        shared.metrics.push_back(&(*worker)->proxy().metrics());
        workers.push_back(std::move(*worker));
    }
    if (!listen_on(process.listen, workers))
        _exit(1);  // the workers have listeners and no threads to end them
    workers[0]->keep_fleet(resolver);

    describe_fleet(options);
    obs::log_info("sluice " + std::string(kVersion) + ", " + std::to_string(count) +
                  " worker(s), kernel " + capabilities.kernel);
    if (access_log != nullptr) access_log->start();
    std::vector<std::jthread> threads;
    for (std::size_t i = 0; i < count; ++i) {
        const int cpu = process.pin && count <= cpus.size() ? cpus[i] : -1;
        threads.emplace_back(
            [&worker = *workers[i], i, cpu] { worker.run(static_cast<int>(i), cpu); });
    }

    while (!signals.wait(3600s)) {
    }
    obs::log_info("draining: no new connections, open requests have " +
                  std::to_string(to_seconds(options.drain_timeout)) + " s");
    shared.draining.store(true);
    for (auto& worker : workers) worker->ask_to_drain();
    if (!wait_for_workers(workers, signals, options.drain_timeout)) {
        obs::log_warning("cutting off " + std::to_string(shared.admission.in_flight()) +
                         " request(s)");
        for (auto& worker : workers) worker->ask_to_stop();
        if (!wait_for_workers(workers, signals, kStopTimeout)) {
            obs::log_error("a worker does not stop");
            if (access_log != nullptr) access_log->stop();
            _exit(1);
        }
    }
    threads.clear();
    if (access_log != nullptr) access_log->stop();
    for (const io::Address& address : process.listen)
        if (address.is_unix()) ::unlink(address.text().substr(5).c_str());
    obs::log_info("stopped");
    return 0;
}

}  // namespace

int run_proxy_command(int argc, char** argv) {
    ProxyCommandLine line =
        parse_proxy_command_line("sluice proxy",
                                 "Takes OpenAI-style requests, has a prefill instance compute the "
                                 "prompt and a decode instance "
                                 "stream the answer.",
                                 argc, argv);
    obs::start_log(line.process.log);
    if (line.process.check_only) {
        const auto fleet =
            fleet::make_fleet(line.proxy.prefill, line.proxy.decode, line.proxy.keeper.connector);
        if (!fleet) throw std::runtime_error(fleet.error());
        std::fputs(line.effective.c_str(), stdout);
        for (const io::Address& address : line.process.listen)
            std::printf("# listen   %s\n", address.text().c_str());
        for (const auto& instance : (*fleet)->prefill)
            std::printf("# prefill  %s  bootstrap %s\n", instance.url.c_str(),
                        instance.bootstrap_url.empty() ? "none" : instance.bootstrap_url.c_str());
        for (const auto& instance : (*fleet)->decode)
            std::printf("# decode   %s\n", instance.url.c_str());
        std::puts("# the configuration is valid");
        return 0;
    }
    return serve(std::move(line.proxy), line.process);
}

}  // namespace sluice::app
