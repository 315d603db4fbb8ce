// SPDX-License-Identifier: Apache-2.0
// One line of JSON a request, written off the data plane.
//
// A worker puts a record of fixed size into a ring of its own; one thread takes them out a few
// times a second, formats them and writes. Nobody wakes that thread: it looks. When a ring is full,
// since the disk or the reader is slow, records are dropped and counted; a worker never waits and
// makes no system call. Requests that ended well may be sampled, one in N; all others are always
// logged.
//
// Threads: add_writer() before start(); each Writer its worker; reopen() and the counters any.
// Owns: rings of 2 MiB a worker, the file, the thread. Errors: open() says why in words.
#pragma once

#include <condition_variable>
#include <expected>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/spsc_ring.h"
#include "obs/log_file.h"
#include "pd/access_record.h"

namespace sluice::pd {

struct AccessLogOptions {
    std::string path = "none";  // "-": standard output
    std::uint32_t sample = 1;   // one in so many of the requests that ended well
};

class AccessLog {
public:
    // Each look at the rings comes this long after the one before, or up to kLookMax when nothing
    // was there.
    static constexpr Duration kLookMin = std::chrono::milliseconds(5);
    static constexpr Duration kLookMax = std::chrono::milliseconds(40);
    static constexpr std::size_t kRingRecords = 4096;
    static constexpr Duration kStopMax =
        std::chrono::seconds(2);  // a stalled reader gets, at the end

    // One worker's end.
    class Writer {
    public:
        explicit Writer(std::uint32_t sample) : sample_(sample), ring_(kRingRecords) {}

        // Whether this request is to be logged, and if so how many it stands for; else 0.
        std::uint32_t wanted(Outcome outcome) {
            if (outcome != Outcome::Ok || sample_ == 1) return 1;
            if (++turn_ < sample_) return 0;
            turn_ = 0;
            return sample_;
        }
        // False: dropped.
        bool put(const AccessRecord& record) { return ring_.try_push(record); }

    private:
        friend class AccessLog;
        std::uint32_t sample_;
        std::uint32_t turn_ = 0;
        SpscRing<AccessRecord> ring_;
    };

    static std::expected<std::unique_ptr<AccessLog>, std::string> open(
        const AccessLogOptions& options, std::vector<std::string> prefills,
        std::vector<std::string> decodes);
    ~AccessLog() { stop(); }

    Writer& add_writer();
    void start();
    // Opens the file again under its name: somebody moved it away.
    void reopen();
    // Writes what is in the rings, at most for a bounded time, and ends the thread.
    void stop();

    std::uint64_t lines() const { return lines_.value(); }
    std::uint64_t lost() const { return lost_.value(); }  // could not be written

private:
    AccessLog(const AccessLogOptions& options, obs::LogFile file)
        : options_(options), file_(std::move(file)) {}
    void run(const std::stop_token& stop);
    std::size_t work_off();
    void flush();

    AccessLogOptions options_;
    obs::LogFile file_;
    AccessContext context_;
    std::vector<std::unique_ptr<Writer>> writers_;
    std::string text_;  // lines formatted and not yet written
    std::uint64_t text_lines_ = 0;
    bool complained_ = false;
    bool torn_ = false;  // the file ends in the middle of a line
    obs::Counter lines_;
    obs::Counter lost_;
    std::atomic<bool> reopen_wanted_{false};
    std::atomic<Instant> give_up_{kNever};
    std::mutex mutex_;
    std::condition_variable_any wake_;
    std::jthread thread_;
};

}  // namespace sluice::pd
