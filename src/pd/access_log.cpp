// SPDX-License-Identifier: Apache-2.0
#include "pd/access_log.h"

#include <algorithm>

#include "base/cpu.h"
#include "obs/log.h"

namespace sluice::pd {

namespace {

constexpr std::size_t kWriteBytes = 64 * 1024;  // written when so much is formatted
constexpr std::size_t kRecordsAtOnce = 256;     // taken from a ring before its slots are given back
constexpr std::size_t kLineBytesMax = 6 * 1024;  // of a record whose every byte is escaped

}  // namespace

std::expected<std::unique_ptr<AccessLog>, std::string> AccessLog::open(
    const AccessLogOptions& options, std::vector<std::string> prefills,
    std::vector<std::string> decodes) {
    auto file = obs::LogFile::open(options.path);
    if (!file) return std::unexpected(file.error());
    std::unique_ptr<AccessLog> log(new AccessLog(options, std::move(*file)));
    log->context_.instances[static_cast<std::size_t>(fleet::Role::Prefill)] = std::move(prefills);
    log->context_.instances[static_cast<std::size_t>(fleet::Role::Decode)] = std::move(decodes);
    log->text_.reserve(kWriteBytes + kLineBytesMax);
    return log;
}

AccessLog::Writer& AccessLog::add_writer() {
    return *writers_.emplace_back(std::make_unique<Writer>(options_.sample));
}

void AccessLog::start() {
    thread_ = std::jthread([this](const std::stop_token& stop) {
        name_this_thread("sluice-log");
        run(stop);
    });
}

void AccessLog::reopen() {
    reopen_wanted_.store(true, std::memory_order_release);
    wake_.notify_one();
}

void AccessLog::stop() {
    if (!thread_.joinable()) return;
    give_up_.store(MonotonicClock::now() + kStopMax, std::memory_order_relaxed);
    thread_.request_stop();
    thread_.join();
}

void AccessLog::run(const std::stop_token& stop) {
    Duration look = kLookMin;
    while (true) {
        const bool last = stop.stop_requested();
        if (reopen_wanted_.exchange(false, std::memory_order_acq_rel))
            if (const auto reopened = file_.reopen(); !reopened)
                obs::log_error("access log: " + reopened.error() + "; going on with the old file");
        // After the last look the workers have ended, or are given up with what they still put.
        const std::size_t taken = work_off();
        if (last) return;
        look = taken > 0 ? kLookMin : std::min(look * 2, kLookMax);
        std::unique_lock lock(mutex_);
        wake_.wait_for(lock, stop, look,
                       [this] { return reopen_wanted_.load(std::memory_order_acquire); });
    }
}

std::size_t AccessLog::work_off() {
    context_.wall_offset = std::chrono::system_clock::now().time_since_epoch() -
                           MonotonicClock::now().time_since_epoch();
    std::size_t total = 0;
    for (const auto& writer : writers_) {
        // No more than was there at first, so that a busy worker does not keep the others waiting.
        for (std::size_t left = writer->ring_.approximate_size(); left > 0;) {
            const std::size_t count = writer->ring_.consume(
                [this](AccessRecord&& record) {
                    append_access_line(text_, record, context_);
                    ++text_lines_;
                    if (text_.size() >= kWriteBytes) flush();
                },
                std::min(left, kRecordsAtOnce));
            if (count == 0) break;
            total += count;
            left -= count;
        }
    }
    flush();
    return total;
}

void AccessLog::flush() {
    if (text_.empty()) return;
    // A torn line, counted as lost, gets its end.
    const bool mended = std::exchange(torn_, false);
    if (mended) text_.insert(text_.begin(), '\n');
    const std::size_t written = file_.write(text_, give_up_);
    torn_ = written > 0 ? text_[written - 1] != '\n' : mended;
    const auto ends = static_cast<std::uint64_t>(
        std::count(text_.begin(), text_.begin() + static_cast<std::ptrdiff_t>(written), '\n'));
    const std::uint64_t whole = mended && written > 0 ? ends - 1 : ends;
    lines_.add(whole);
    if (whole < text_lines_) {
        lost_.add(text_lines_ - whole);
        if (!complained_)
            obs::log_error("access log: lines are lost, \"" + options_.path +
                           "\" cannot be written (full disk, or nobody reads it)");
    }
    complained_ = whole < text_lines_;
    text_.clear();
    text_lines_ = 0;
}

}  // namespace sluice::pd
