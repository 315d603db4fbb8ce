// SPDX-License-Identifier: Apache-2.0
// A short text held in place: no allocation, a length that cannot be exceeded.
//
// What does not fit is a fault of the caller, who has checked the length of anything foreign
// before. Threads: a value. Costs: N bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>

#include "base/assert.h"

namespace sluice {

template <std::size_t N>
class FixedText {
    static_assert(N <= UINT16_MAX);

public:
    FixedText() = default;
    FixedText(std::string_view text) { append(text); }
    FixedText(const char* text) : FixedText(std::string_view(text)) {}
    FixedText(const FixedText& other) : FixedText(other.view()) {}
    FixedText& operator=(const FixedText& other) {
        if (this != &other) assign(other.view());
        return *this;
    }

    void assign(std::string_view text) {
        size_ = 0;
        append(text);
    }
    void append(std::string_view text) {
        ASSERT(text.size() <= N - size_);
        if (!text.empty()) std::memmove(data_ + size_, text.data(), text.size());
        size_ = static_cast<std::uint16_t>(size_ + text.size());
    }
    void push_back(char c) { append(std::string_view(&c, 1)); }
    void clear() { size_ = 0; }

    std::string_view view() const { return {data_, size_}; }
    operator std::string_view() const { return view(); }
    bool empty() const { return size_ == 0; }
    std::size_t size() const { return size_; }

    friend bool operator==(const FixedText& a, const FixedText& b) { return a.view() == b.view(); }
    friend bool operator==(const FixedText& a, std::string_view b) { return a.view() == b; }

private:
    std::uint16_t size_ = 0;
    char data_[N];
};

}  // namespace sluice
