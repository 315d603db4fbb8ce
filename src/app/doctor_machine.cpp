// SPDX-License-Identifier: Apache-2.0
// This machine: kernel, cores, limits, addresses to listen on.
#include <sys/resource.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>

#include "app/doctor.h"
#include "app/doctor_http.h"
#include "base/cpu.h"
#include "base/limits.h"
#include "io/uring/capabilities.h"
#include "io/uring/listener.h"

namespace sluice::app {

namespace {

constexpr std::uint64_t kDescriptorsPerWorker = 16;  // its ring, wake-up, listeners
constexpr std::uint64_t kDescriptorsPerRequest = 3;  // the client's and those of both legs
constexpr std::uint64_t kDescriptorsAtLeast = 256;   // below this, not worth starting

std::string plural(std::uint64_t count, const std::string& noun) {
    return std::to_string(count) + " " + noun + (count == 1 ? "" : "s");
}

std::string mebibytes(std::uint64_t bytes) { return std::to_string(bytes >> 20) + " MiB"; }

Finding examine_uring() {
    const io::UringCapabilities found = io::probe_uring();
    const std::string system = "Linux " + found.kernel;
    if (!found.sufficient())
        return {Verdict::Fail, "io_uring", system, io::explain_missing(found), {}};
    const char* task_run = found.task_run == io::TaskRun::Defer         ? "deferred task run"
                           : found.task_run == io::TaskRun::Cooperative ? "cooperative task run"
                                                                        : "plain task run";
    Finding finding{Verdict::Ok,
                    "io_uring",
                    system + ": " + task_run + ", buffer rings, multishot accept" +
                        (found.registered_ring ? ", registered ring" : ", no registered ring"),
                    {},
                    {}};
    if (found.task_run != io::TaskRun::Defer) {
        finding.verdict = Verdict::Warn;
        finding.advice = "Linux 6.1 or newer costs less processor time for each request";
    }
    return finding;
}

std::uint64_t worker_count(const ProxyCommandLine& line) {
    return line.process.workers != 0 ? line.process.workers : allowed_cpus().size();
}

// The processors that the container's quota amounts to; 0: there is none ("max 100000", which does
// not read as a number).
double cpu_quota() {
    std::ifstream file("/sys/fs/cgroup/cpu.max");
    double quota = 0;
    double period = 0;
    return file >> quota >> period && period > 0 ? quota / period : 0;
}

Finding examine_cpus(const ProxyCommandLine& line) {
    const std::size_t allowed = allowed_cpus().size();
    const std::uint64_t workers = worker_count(line);
    const long online = ::sysconf(_SC_NPROCESSORS_ONLN);
    Finding finding{Verdict::Ok,
                    "cpus",
                    plural(workers, "worker") + " on " + plural(allowed, "allowed core") + " of " +
                        std::to_string(online),
                    {},
                    {}};
    if (workers > allowed) {
        finding.verdict = Verdict::Warn;
        finding.advice =
            "More workers than cores are not pinned and get in each other's way: --workers " +
            std::to_string(allowed);
    } else if (const double quota = cpu_quota();
               quota > 0 && quota < static_cast<double>(workers)) {
        finding.verdict = Verdict::Warn;
        const auto fitting = std::max<std::uint64_t>(1, static_cast<std::uint64_t>(quota));
        finding.text += ", of which the container's quota (cpu.max) gives fewer";
        finding.advice = "Workers beyond it are throttled: --workers " + std::to_string(fitting) +
                         ", or a larger quota";
    }
    return finding;
}

Finding examine_descriptors(const ProxyCommandLine& line) {
    rlimit limit{};
    if (::getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return {
            Verdict::Warn, "nofile", "cannot be read: " + describe({Errc::System, errno}), {}, {}};
    const std::uint64_t workers = worker_count(line);
    const std::uint64_t fixed = workers * (kDescriptorsPerWorker + line.process.listen.size()) + 32;
    const std::uint64_t needed =
        fixed + kDescriptorsPerRequest * line.proxy.in_flight_max + line.proxy.queue_max;
    const bool unlimited = limit.rlim_max == RLIM_INFINITY;
    Finding finding{
        Verdict::Ok,
        "nofile",
        "hard limit " + (unlimited ? "none" : std::to_string(limit.rlim_max)) + ", soft " +
            std::to_string(limit.rlim_cur) + " (the proxy raises it); --max-in-flight " +
            std::to_string(line.proxy.in_flight_max) + " needs up to " + std::to_string(needed),
        {},
        {}};
    if (unlimited || limit.rlim_max >= needed) return finding;
    const std::uint64_t hard = limit.rlim_max;
    if (hard < fixed + kDescriptorsAtLeast) {
        finding.verdict = Verdict::Fail;
        finding.advice =
            "Raise the hard limit (LimitNOFILE= of the service, --ulimit nofile= of the container)";
        return finding;
    }
    const std::uint64_t fitting =
        (hard - fixed - std::min<std::uint64_t>(hard - fixed, line.proxy.queue_max)) /
        kDescriptorsPerRequest;
    finding.verdict = Verdict::Warn;
    finding.advice =
        "Raise the hard limit (LimitNOFILE= of the service, --ulimit nofile= of the container), or "
        "say "
        "--max-in-flight " +
        std::to_string(std::max<std::uint64_t>(fitting, 1));
    return finding;
}

// Since Linux 5.12 rings are charged to the control group, so this matters on no kernel that the
// loop runs on, except where somebody has put the old accounting back; then the probe fails with
// ENOMEM and says so itself.
Finding examine_memlock() {
    rlimit limit{};
    if (::getrlimit(RLIMIT_MEMLOCK, &limit) != 0)
        return {
            Verdict::Warn, "memlock", "cannot be read: " + describe({Errc::System, errno}), {}, {}};
    const std::string shown =
        limit.rlim_cur == RLIM_INFINITY ? "unlimited" : mebibytes(limit.rlim_cur);
    return {Verdict::Ok,
            "memlock",
            shown + "; this kernel does not count io_uring's memory against it",
            {},
            {}};
}

Finding examine_memory(const ProxyCommandLine& line) {
    std::uint64_t present = static_cast<std::uint64_t>(::sysconf(_SC_PHYS_PAGES)) *
                            static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
    std::uint64_t group_limit = 0;
    if (std::ifstream file("/sys/fs/cgroup/memory.max"); file >> group_limit && group_limit != 0)
        present = std::min(present, group_limit);
    const std::uint64_t workers = worker_count(line);
    const std::uint64_t wanted = workers * line.proxy.buffer_bytes;
    Finding finding{Verdict::Ok,
                    "memory",
                    mebibytes(present) + "; " + plural(workers, "worker") + " may use " +
                        mebibytes(wanted) + " for buffers under full load",
                    {},
                    {}};
    if (wanted > present / 10 * 9) {
        finding.verdict = Verdict::Warn;
        finding.advice = "Full load could exhaust it: --buffer-bytes " +
                         std::to_string(std::max<std::uint64_t>(16, present / workers / 2 >> 20)) +
                         "MiB";
    }
    return finding;
}

Finding examine_backlog() {
    int most = 0;
    if (std::ifstream file("/proc/sys/net/core/somaxconn"); !(file >> most))
        return {Verdict::Ok, "somaxconn", "cannot be read here", {}, {}};
    Finding finding{Verdict::Ok, "somaxconn", std::to_string(most), {}, {}};
    if (most < limits::kListenBacklog) {
        finding.verdict = Verdict::Warn;
        finding.advice = "Bursts of new connections may be dropped: sysctl -w net.core.somaxconn=" +
                         std::to_string(limits::kListenBacklog);
    }
    return finding;
}

// Whether a Sluice proxy answers at this address already: asking the doctor beside it is no
// mistake.
bool is_served_by_sluice(const io::Address& address) {
    const auto answer = http_get({.address = address,
                                  .host_header = "localhost",
                                  .path = "/version",
                                  .api_key = {},
                                  .limit = std::chrono::seconds(1)});
    return answer && answer->body.find("\"server\":\"sluice\"") != std::string::npos;
}

Finding examine_listening(const io::Address& address) {
    Finding finding{Verdict::Ok, "listen " + address.text(), "can be bound", {}, {}};
    // Not shared, unlike the proxy: a shared port could be bound beside another proxy of ours, and
    // take half its clients.
    const auto opened = io::open_listener(address, false);
    if (opened) {
        ::close(*opened);
        if (address.is_unix()) ::unlink(address.text().substr(5).c_str());
        return finding;
    }
    finding.verdict = Verdict::Fail;
    finding.text = "cannot be bound: " + describe(opened.error());
    switch (opened.error().os) {
        case EADDRINUSE:
            if (is_served_by_sluice(address)) {
                finding.verdict = Verdict::Warn;
                finding.text = "a proxy like this one serves here already";
                finding.advice =
                    "Stop it before another is started, or choose another --port or --listen";
            } else {
                finding.advice =
                    "Another program listens there (ss -ltnp, ss -lxp shows which); stop it, or "
                    "choose "
                    "another --port or --listen";
            }
            break;
        case EADDRNOTAVAIL:
            finding.advice = "No network interface has this address; 0.0.0.0 or [::] takes all";
            break;
        case EACCES:
            finding.advice =
                address.is_unix()
                    ? "The directory is not writable for this user"
                    : "Ports below 1024 need CAP_NET_BIND_SERVICE; choose another --port";
            break;
        case ENOENT:
            finding.advice = "The directory does not exist";
            break;
        default:
            finding.advice = "Choose another --host, --port or --listen";
            break;
    }
    return finding;
}

}  // namespace

std::vector<Finding> examine_machine(const ProxyCommandLine& line) {
    std::vector<Finding> findings{examine_uring(),           examine_cpus(line),
                                  examine_descriptors(line), examine_memlock(),
                                  examine_memory(line),      examine_backlog()};
    for (const io::Address& address : line.process.listen)
        findings.push_back(examine_listening(address));
    return findings;
}

}  // namespace sluice::app
