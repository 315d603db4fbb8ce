// SPDX-License-Identifier: Apache-2.0
#include "fleet/resolver.h"

#include <netdb.h>

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <mutex>
#include <thread>
#include <utility>

#include "base/cpu.h"

namespace sluice::fleet {

struct ThreadResolver::Shared {
    using Question = std::pair<std::string, std::uint16_t>;

    Shared(std::function<void()> wake_in, Lookup lookup_in)
        : wake(std::move(wake_in)), lookup(std::move(lookup_in)) {}

    // The thread's body. It holds the state itself, so nothing it touches can go away under it.
    static void work(const std::shared_ptr<Shared>& shared);

    std::mutex mutex;
    std::condition_variable changed;
    std::deque<Question> questions;  // the front one is being looked up while `busy`
    std::vector<Answer> answers;
    bool started = false;
    bool busy = false;
    bool stopping = false;
    std::function<void()>
        wake;  // called under the mutex, never after `stopping`: the loop may be gone then
    const Lookup lookup;
    std::thread thread;
};

void ThreadResolver::Shared::work(const std::shared_ptr<Shared>& shared) {
    name_this_thread("sluice-names");
    std::unique_lock lock(shared->mutex);
    while (true) {
        shared->changed.wait(lock, [&] { return shared->stopping || !shared->questions.empty(); });
        if (shared->stopping) return;
        const Question question = shared->questions.front();
        shared->busy = true;
        lock.unlock();
        auto addresses = shared->lookup(question.first, question.second);
        lock.lock();
        shared->busy = false;
        if (shared->stopping) return;
        shared->questions.pop_front();
        Answer answer{question.first, question.second, {}, {Errc::NotResolved}};
        if (addresses)
            answer.addresses = std::move(*addresses);
        else
            answer.error = addresses.error();
        shared->answers.push_back(std::move(answer));
        shared->wake();
    }
}

ThreadResolver::ThreadResolver(std::function<void()> wake, Lookup lookup)
    : shared_(std::make_shared<Shared>(std::move(wake), std::move(lookup))) {}

ThreadResolver::~ThreadResolver() {
    bool stuck = false;
    {
        std::lock_guard lock(shared_->mutex);
        shared_->stopping = true;
        stuck = shared_->busy;
    }
    shared_->changed.notify_all();
    if (!shared_->thread.joinable()) return;
    if (stuck)
        shared_->thread.detach();
    else
        shared_->thread.join();
}

void ThreadResolver::ask(std::string host, std::uint16_t port) {
    std::lock_guard lock(shared_->mutex);
    const auto answer_now = [&](std::vector<io::Address> addresses, Errc why) {
        shared_->answers.push_back({std::move(host), port, std::move(addresses), {why}});
        shared_->wake();
    };
    if (const auto numeric = io::Address::from_ip(host, port))
        return answer_now({*numeric}, Errc::NotResolved);
    const Shared::Question question(host, port);
    if (std::ranges::find(shared_->questions, question) != shared_->questions.end()) return;
    if (shared_->questions.size() >= kQuestionsMax) return answer_now({}, Errc::LimitReached);
    shared_->questions.push_back(question);
    // Started by the first name: most fleets have none.
    if (!std::exchange(shared_->started, true))
        shared_->thread = std::thread([state = shared_] { Shared::work(state); });
    shared_->changed.notify_one();
}

std::vector<Resolver::Answer> ThreadResolver::take_answers() {
    std::lock_guard lock(shared_->mutex);
    return std::exchange(shared_->answers, {});
}

Result<std::vector<io::Address>> look_up_with_getaddrinfo(const std::string& host,
                                                          std::uint16_t port) {
    addrinfo hints{};
    hints.ai_family = AF_UNSPEC;
    hints.ai_socktype = SOCK_STREAM;
    hints.ai_flags = AI_NUMERICSERV;
    addrinfo* found = nullptr;
    const int failure = getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found);
    if (failure == EAI_SYSTEM) return fail(Errc::NotResolved, errno);
    if (failure != 0) return fail(Errc::NotResolved);
    std::vector<io::Address> addresses;
    for (const addrinfo* one = found; one != nullptr; one = one->ai_next)
        if (one->ai_family == AF_INET || one->ai_family == AF_INET6)
            addresses.push_back(io::Address::from_sockaddr(one->ai_addr, one->ai_addrlen));
    freeaddrinfo(found);
    if (addresses.empty()) return fail(Errc::NotResolved);
    const auto before = [](const io::Address& a, const io::Address& b) {
        if (a.family() != b.family()) return a.family() == AF_INET;
        return std::memcmp(a.raw(), b.raw(), a.size()) < 0;
    };
    std::ranges::sort(addresses, before);
    const auto doubles = std::ranges::unique(addresses);
    addresses.erase(doubles.begin(), doubles.end());
    return addresses;
}

}  // namespace sluice::fleet
