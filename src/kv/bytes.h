// SPDX-License-Identifier: Apache-2.0
// Writing and reading small binary messages: little-endian numbers, variable-length numbers (7 bits
// a byte, low first), counted byte strings.
//
// A reader never goes beyond its bytes: after the first thing that is not there it answers zeroes
// and is !ok(), so callers check once at the end. Threads: one. Owns: the writer its bytes.
#pragma once

#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

namespace sluice::kv {

class ByteWriter {
public:
    std::string bytes;

    void u8(std::uint8_t value) { bytes.push_back(static_cast<char>(value)); }
    void u16(std::uint16_t value) { fixed(value, 2); }
    void u32(std::uint32_t value) { fixed(value, 4); }
    void u64(std::uint64_t value) { fixed(value, 8); }
    void varint(std::uint64_t value) {
        while (value >= 0x80) {
            u8(static_cast<std::uint8_t>(value) | 0x80);
            value >>= 7;
        }
        u8(static_cast<std::uint8_t>(value));
    }
    void text(std::string_view value) {
        varint(value.size());
        bytes.append(value);
    }

private:
    void fixed(std::uint64_t value, int size) {
        for (int i = 0; i < size; ++i) u8(static_cast<std::uint8_t>(value >> (8 * i)));
    }
};

class ByteReader {
public:
    explicit ByteReader(std::string_view bytes) : bytes_(bytes) {}

    bool ok() const { return ok_; }
    bool at_end() const { return ok_ && bytes_.empty(); }
    std::size_t left() const { return bytes_.size(); }
    void fail() {
        ok_ = false;
        bytes_ = {};
    }

    std::uint8_t u8() { return static_cast<std::uint8_t>(fixed(1)); }
    std::uint16_t u16() { return static_cast<std::uint16_t>(fixed(2)); }
    std::uint32_t u32() { return static_cast<std::uint32_t>(fixed(4)); }
    std::uint64_t u64() { return fixed(8); }

    // Only the shortest form is a number, so that a message has one spelling.
    std::uint64_t varint() {
        std::uint64_t value = 0;
        for (unsigned shift = 0; shift < 64; shift += 7) {
            const std::uint8_t byte = u8();
            if (!ok_) return 0;
            const std::uint64_t bits = byte & 0x7f;
            if (shift == 63 && bits > 1) break;
            value |= bits << shift;
            if (byte < 0x80) {
                if (byte == 0 && shift != 0) break;
                return value;
            }
        }
        fail();
        return 0;
    }
    // A number that is at most `most`.
    std::uint64_t varint(std::uint64_t most) {
        const std::uint64_t value = varint();
        if (value <= most) return value;
        fail();
        return 0;
    }
    std::uint32_t varint32() { return static_cast<std::uint32_t>(varint(UINT32_MAX)); }
    std::string_view text(std::size_t most) {
        const std::uint64_t size = varint(most);
        if (size > bytes_.size()) fail();
        if (!ok_) return {};
        const std::string_view value = bytes_.substr(0, size);
        bytes_.remove_prefix(size);
        return value;
    }

private:
    std::uint64_t fixed(std::size_t size) {
        if (bytes_.size() < size) {
            fail();
            return 0;
        }
        std::uint64_t value = 0;
        for (std::size_t i = 0; i < size; ++i)
            value |= std::uint64_t{static_cast<unsigned char>(bytes_[i])} << (8 * i);
        bytes_.remove_prefix(size);
        return value;
    }

    std::string_view bytes_;
    bool ok_ = true;
};

}  // namespace sluice::kv
