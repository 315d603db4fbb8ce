// SPDX-License-Identifier: Apache-2.0
// What the log says of one request: a record of fixed size that a worker fills and the log's thread
// writes as a line of JSON.
//
// Threads: any; a value. Costs: filling one copies half a kilobyte; append_access_line() about a
// microsecond, on the log's thread.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "pd/metrics.h"
#include "pd/timeline.h"

namespace sluice::pd {

// A text cut to `Max` bytes, never in the middle of a UTF-8 sequence.
template <std::size_t Max>
class BoundedText {
public:
    void set(std::string_view text) {
        std::size_t size = std::min(text.size(), Max);
        while (size < text.size() && size > 0 &&
               (static_cast<unsigned char>(text[size]) & 0xc0) == 0x80)
            --size;
        size_ = static_cast<std::uint8_t>(size);
        std::memcpy(bytes_, text.data(), size);
    }
    std::string_view view() const { return {bytes_, size_}; }

private:
    static_assert(Max <= 255);
    std::uint8_t size_ = 0;
    char bytes_[Max];  // only the first size_ mean anything
};

inline constexpr std::size_t kLoggedModelMax = 80;
inline constexpr std::size_t kLoggedPathMax = 60;
inline constexpr std::size_t kRequestIdMax = 200;

struct AccessRecord {
    Timeline timeline;
    Instant ended{};
    std::uint32_t sample = 1;  // how many requests like it this one stands for
    Outcome outcome{};
    bool stream = false;
    BoundedText<kRequestIdMax> request_id;
    BoundedText<kLoggedModelMax> model;
    BoundedText<kLoggedPathMax> path;
};
static_assert(std::is_trivially_copyable_v<AccessRecord>);
static_assert(sizeof(AccessRecord) <= 512);

// What a record only has numbers for, and what turns the loops' time into the wall's.
struct AccessContext {
    std::vector<std::string> instances[2];   // URLs by role
    std::chrono::nanoseconds wall_offset{};  // wall clock minus loop clock
};

// One line of JSON with its line end.
void append_access_line(std::string& out, const AccessRecord& record, const AccessContext& context);

}  // namespace sluice::pd
