// SPDX-License-Identifier: Apache-2.0
// An immutable value that one thread replaces and others read: the fleet, mainly.
//
// The writer publishes a new value; each reader owns a Reader and calls refresh() at a quiescent
// point of its loop (between turns), which costs one relaxed load while nothing has changed. The
// value a reader got stays alive until that reader's next refresh, so references into it are valid
// for the whole turn. Threads: publish() from any one thread at a time; a Reader belongs to one
// thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>

namespace sluice {

template <class T>
class Snapshot {
public:
    explicit Snapshot(std::shared_ptr<const T> first) : current_(std::move(first)) {}

    void publish(std::shared_ptr<const T> next) {
        std::lock_guard lock(mutex_);
        current_ = std::move(next);
        version_.fetch_add(1, std::memory_order_release);
    }

    std::shared_ptr<const T> load() const {
        std::lock_guard lock(mutex_);
        return current_;
    }

    class Reader {
    public:
        explicit Reader(const Snapshot& source)
            : source_(source),
              version_(source.version_.load(std::memory_order_acquire)),
              value_(source.load()) {}

        // True if the value changed.
        bool refresh() {
            const auto version = source_.version_.load(std::memory_order_acquire);
            if (version == version_) return false;
            version_ = version;
            value_ = source_.load();
            return true;
        }
        const T& operator*() const { return *value_; }
        const T* operator->() const { return value_.get(); }
        // Keeps the value alive beyond the next refresh.
        const std::shared_ptr<const T>& hold() const { return value_; }

    private:
        const Snapshot& source_;
        std::uint64_t version_;
        std::shared_ptr<const T> value_;
    };

private:
    mutable std::mutex mutex_;  // control plane only: held for a pointer copy
    std::shared_ptr<const T> current_;
    std::atomic<std::uint64_t> version_{0};
};

}  // namespace sluice
