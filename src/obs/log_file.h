// SPDX-License-Identifier: Apache-2.0
// A file, pipe or standard output that lines are appended to by one thread which may wait, but
// never for ever.
//
// What cannot be written is given up: at once if the file system refuses, and at a time that
// another thread may set if a pipe's reader does not read. Threads: one. Owns: the descriptor, its
// own even for standard output, so that its flags are nobody else's. Errors: open() says why in
// words.
#pragma once

#include <atomic>
#include <expected>
#include <string>
#include <string_view>

#include "base/time.h"

namespace sluice::obs {

class LogFile {
public:
    // `path`: "-" is standard output.
    static std::expected<LogFile, std::string> open(const std::string& path);
    LogFile(LogFile&& other) noexcept;
    LogFile& operator=(LogFile&& other) noexcept;
    ~LogFile();

    // Opens the path again, for rotation; on failure goes on with the file it has.
    std::expected<void, std::string> reopen();

    // Writes all of it, waiting for a slow reader until `give_up`, which may change meanwhile. The
    // answer is how many bytes were written.
    std::size_t write(std::string_view bytes, const std::atomic<Instant>& give_up);

private:
    LogFile(std::string path, int fd) : path_(std::move(path)), fd_(fd) {}
    std::string path_;
    int fd_ = -1;
};

}  // namespace sluice::obs
