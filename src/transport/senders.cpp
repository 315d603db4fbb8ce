// SPDX-License-Identifier: Apache-2.0
#include "transport/senders.h"

#include <pthread.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <thread>

#include "base/cpu.h"
#include "base/event_fd.h"
#include "base/spsc_ring.h"

namespace sluice::transport {
namespace {

constexpr int kReadyMax = 64;
constexpr std::size_t kJobsPerRound = 64;
constexpr unsigned kRoundsBetweenLooks = 4;  // at the sockets, while lanes have work
constexpr int kIdleWaitMs = 1000;            // without lanes
constexpr int kTickMs = static_cast<int>(kTickEvery / std::chrono::milliseconds(1));

void relax() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

}  // namespace

class Senders::Thread final : public LaneHost {
public:
    Thread(unsigned number, const SenderOptions& options, int cpu, Waker& owner)
        : options_(options),
          cpu_(cpu),
          number_(number),
          owner_(owner),
          waker_(Delegate<void()>::to<&EventFd::set>(kick_)) {}
    ~Thread() {
        if (thread_.joinable()) {
            LaneJob stop{};
            stop.kind = JobKind::Stop;
            while (!give(stop)) std::this_thread::yield();  // it takes jobs as long as it runs
            thread_.join();
        }
        if (epoll_ >= 0) ::close(epoll_);
    }

    Result<void> start() {
        auto event = EventFd::create();
        if (!event) return std::unexpected(event.error());
        kick_ = std::move(*event);
        epoll_ = epoll_create1(EPOLL_CLOEXEC);
        if (epoll_ < 0) return fail_errno();
        epoll_event watch{};
        watch.events = EPOLLIN | EPOLLET;
        watch.data.ptr = nullptr;
        if (epoll_ctl(epoll_, EPOLL_CTL_ADD, kick_.fd(), &watch) != 0) return fail_errno();
        spilled_.reserve(64);
        runnable_.reserve(64);
        stepping_.reserve(64);
        thread_ = std::thread([this] { run(); });
        return {};
    }

    // -- the owner
    bool give(const LaneJob& job) {
        if (!jobs_.try_push(job)) return false;
        waker_.notify();
        return true;
    }
    std::size_t poll() {
        return events_.consume(
            [](LaneEvent&& event) {
                if (event.target != nullptr) event.target->on_event(event);
            },
            kEventsMax);
    }
    bool idle() { return events_.empty(); }
    std::size_t depth() const { return jobs_.approximate_size(); }
    int cpu() const { return options_.pin ? cpu_ : -1; }
    std::uint64_t cpu_ns() {
        clockid_t clock{};
        timespec spent{};
        if (pthread_getcpuclockid(thread_.native_handle(), &clock) != 0) return 0;
        clock_gettime(clock, &spent);
        return static_cast<std::uint64_t>(spent.tv_sec) * 1'000'000'000 +
               static_cast<std::uint64_t>(spent.tv_nsec);
    }

    // -- LaneHost
    void emit(const LaneEvent& event) override {
        if (!spilled_.empty() || !events_.try_push(event)) spilled_.push_back(event);
        emitted_ = true;
    }
    void want_step(Lane& lane) override {
        if (lane.runnable) return;
        lane.runnable = true;
        runnable_.push_back(&lane);
    }
    Instant now() const override { return now_; }

private:
    void run() {
        // A core that we may not use is no reason not to work.
        if (options_.pin) [[maybe_unused]]
            const auto pinned = pin_to_cpu(cpu_);
        name_this_thread(("kv-sender-" + std::to_string(number_)).c_str());
        now_ = last_job_ = last_tick_ = MonotonicClock::now();
        unsigned rounds = 0;
        while (!stopping_) {
            now_ = MonotonicClock::now();
            const bool jobs =
                jobs_.consume([this](LaneJob&& job) { take(job); }, kJobsPerRound) > 0;
            if (jobs) last_job_ = now_;
            step_lanes();
            publish();
            if (now_ - last_tick_ >= kTickEvery) tick();
            if (!runnable_.empty() || !spilled_.empty()) {
                if (++rounds % kRoundsBetweenLooks == 0) look(0);
            } else if (jobs || now_ - last_job_ < options_.spin) {
                relax();
            } else {
                sleep();
            }
        }
    }

    void take(const LaneJob& job) {
        switch (job.kind) {
            case JobKind::Stop:
                stopping_ = true;
                return;
            case JobKind::Echo: {
                LaneEvent event{};
                event.kind = EventKind::Echo;
                event.user = job.user;
                event.target = job.target;
                emit(event);
                return;
            }
            case JobKind::Adopt: {
                lanes_.push_back(*job.lane);
                if (job.lane->fd() >= 0) watch(*job.lane);
                job.lane->adopt(*this);
                return;
            }
            case JobKind::Close: {
                Lane& lane = *job.lane;
                if (lane.fd() >= 0) epoll_ctl(epoll_, EPOLL_CTL_DEL, lane.fd(), nullptr);
                lane.unlink();
                std::erase(runnable_, &lane);
                lane.take(job);  // says Gone; the owner may delete it from here on
                return;
            }
            default:
                job.lane->take(job);
        }
    }

    void watch(Lane& lane) {
        epoll_event interest{};
        interest.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;
        interest.data.ptr = &lane;
        epoll_ctl(epoll_, EPOLL_CTL_ADD, lane.fd(), &interest);
    }

    void step_lanes() {
        stepping_.swap(runnable_);
        for (Lane* lane : stepping_) {
            lane->runnable = false;
            if (lane->step()) want_step(*lane);
        }
        stepping_.clear();
    }

    void publish() {
        std::size_t moved = 0;
        while (moved < spilled_.size() && events_.try_push(spilled_[moved])) ++moved;
        if (moved > 0)
            spilled_.erase(spilled_.begin(), spilled_.begin() + static_cast<std::ptrdiff_t>(moved));
        if (emitted_) owner_.notify();
        emitted_ = !spilled_.empty();
    }

    void sleep() {
        waker_.prepare_to_sleep();
        const int wait_ms = lanes_.empty() ? kIdleWaitMs : kTickMs;
        if (jobs_.empty()) look(wait_ms);
        waker_.awake();
    }

    void look(int wait_ms) {
        epoll_event ready[kReadyMax];
        const int count = epoll_wait(epoll_, ready, kReadyMax, wait_ms);
        if (wait_ms != 0) now_ = MonotonicClock::now();
        for (int i = 0; i < count; ++i) {
            auto* lane = static_cast<Lane*>(ready[i].data.ptr);
            if (lane != nullptr) lane->on_ready(ready[i].events);
        }
    }

    void tick() {
        last_tick_ = now_;
        for (Lane* lane = lanes_.front(); lane != nullptr; lane = lanes_.after(*lane)) lane->tick();
    }

    const SenderOptions options_;
    const int cpu_;
    const unsigned number_;
    Waker& owner_;
    EventFd kick_;
    Waker waker_;
    SpscRing<LaneJob> jobs_{kJobsMax};
    SpscRing<LaneEvent> events_{kEventsMax};

    int epoll_ = -1;
    bool stopping_ = false;
    bool emitted_ = false;
    Instant now_, last_job_, last_tick_;
    IntrusiveList<Lane> lanes_;
    std::vector<Lane*> runnable_, stepping_;
    // Events beyond kEventsMax: bounded by the parts and lanes that the owner has given.
    std::vector<LaneEvent> spilled_;
    std::thread thread_;
};

Senders::Senders() = default;
Senders::~Senders() = default;

Result<std::unique_ptr<Senders>> Senders::start(const SenderOptions& options, Waker& owner) {
    const std::vector<int> allowed = allowed_cpus();
    unsigned count = options.threads;
    if (count == 0) count = std::min(kSendersDefault, static_cast<unsigned>(allowed.size()));
    if (count > kSendersMax) return fail(Errc::LimitReached);
    const std::vector<int>& cpus = options.cpus.empty() ? allowed : options.cpus;
    auto senders = std::unique_ptr<Senders>(new Senders);
    for (unsigned i = 0; i < count; ++i) {
        senders->threads_.push_back(
            std::make_unique<Thread>(i, options, cpus[i % cpus.size()], owner));
        TRY(senders->threads_.back()->start());
    }
    return senders;
}

int Senders::cpu_of(unsigned thread) const { return threads_[thread]->cpu(); }
bool Senders::give(unsigned thread, const LaneJob& job) { return threads_[thread]->give(job); }

std::size_t Senders::poll() {
    std::size_t count = 0;
    for (const auto& thread : threads_) count += thread->poll();
    return count;
}
bool Senders::idle() const {
    return std::all_of(threads_.begin(), threads_.end(), [](const auto& t) { return t->idle(); });
}
std::size_t Senders::queue_depth(unsigned thread) const { return threads_[thread]->depth(); }
std::uint64_t Senders::cpu_ns(unsigned thread) const { return threads_[thread]->cpu_ns(); }

}  // namespace sluice::transport
