// SPDX-License-Identifier: Apache-2.0
#include "mooncake/msgpack.h"

namespace sluice::mooncake {

std::uint64_t MsgpackReader::big_endian(std::size_t at, std::size_t count) const {
    std::uint64_t value = 0;
    for (std::size_t i = 0; i < count; ++i)
        value = value << 8 | static_cast<std::uint8_t>(bytes_[at + i]);
    return value;
}

std::optional<MsgpackReader::Header> MsgpackReader::header() const {
    if (failed_ || at_ >= bytes_.size()) return std::nullopt;
    const auto code = static_cast<std::uint8_t>(bytes_[at_]);
    Header h;
    h.bytes = 1;
    // A number of `count` bytes behind the code.
    const auto behind = [&](std::size_t count) -> std::optional<std::uint64_t> {
        if (bytes_.size() - at_ - 1 < count) return std::nullopt;
        h.bytes = 1 + count;
        return big_endian(at_ + 1, count);
    };
    const auto sized = [&](Kind kind, std::uint64_t count, std::size_t more = 0) {
        h.kind = kind;
        h.value = count;
        if (kind == Kind::Array) h.inside = count;
        if (kind == Kind::Map) h.inside = 2 * count;
        if (kind == Kind::String || kind == Kind::Binary || kind == Kind::Extension)
            h.payload = static_cast<std::size_t>(count) + more;
    };
    const auto counted = [&](Kind kind, std::size_t width, std::size_t more = 0) {
        const auto count = behind(width);
        if (count) sized(kind, *count, more);
        return count.has_value();
    };
    bool whole = true;
    if (code <= 0x7f) {
        h.kind = Kind::Unsigned;
        h.value = code;
    } else if (code <= 0x8f) {
        sized(Kind::Map, code & 15U);
    } else if (code <= 0x9f) {
        sized(Kind::Array, code & 15U);
    } else if (code <= 0xbf) {
        sized(Kind::String, code & 31U);
    } else if (code >= 0xe0) {
        h.kind = Kind::Negative;
    } else {
        switch (code) {
            case 0xc0:
                h.kind = Kind::Nil;
                break;
            case 0xc2:
            case 0xc3:
                h.kind = Kind::Bool;
                break;
            case 0xc4:
            case 0xc5:
            case 0xc6:
                whole = counted(Kind::Binary, 1UL << (code - 0xc4));
                break;
            case 0xc7:
            case 0xc8:
            case 0xc9:
                whole = counted(Kind::Extension, 1UL << (code - 0xc7), 1);
                break;
            case 0xca:
            case 0xcb:
                h.kind = Kind::Float;
                h.payload = code == 0xca ? 4 : 8;
                break;
            case 0xcc:
            case 0xcd:
            case 0xce:
            case 0xcf: {
                const auto value = behind(1UL << (code - 0xcc));
                whole = value.has_value();
                h.kind = Kind::Unsigned;
                h.value = value.value_or(0);
                break;
            }
            case 0xd0:
            case 0xd1:
            case 0xd2:
            case 0xd3: {
                const std::size_t width = 1UL << (code - 0xd0);
                const auto value = behind(width);
                whole = value.has_value();
                // A signed form may hold a number that is not negative.
                const bool negative = whole && (*value >> (8 * width - 1) & 1) != 0;
                h.kind = negative ? Kind::Negative : Kind::Unsigned;
                h.value = value.value_or(0);
                break;
            }
            case 0xd4:
            case 0xd5:
            case 0xd6:
            case 0xd7:
            case 0xd8:
                sized(Kind::Extension, 1UL << (code - 0xd4), 1);
                break;
            case 0xd9:
            case 0xda:
            case 0xdb:
                whole = counted(Kind::String, 1UL << (code - 0xd9));
                break;
            case 0xdc:
            case 0xdd:
                whole = counted(Kind::Array, code == 0xdc ? 2 : 4);
                break;
            case 0xde:
            case 0xdf:
                whole = counted(Kind::Map, code == 0xde ? 2 : 4);
                break;
            default:
                return std::nullopt;
        }
    }
    // Every value inside has a byte at least.
    const std::size_t left = bytes_.size() - at_;
    if (!whole || h.bytes > left || h.payload > left - h.bytes ||
        h.inside > left - h.bytes - h.payload)
        return std::nullopt;
    return h;
}

MsgpackReader::Kind MsgpackReader::peek() const {
    const auto h = header();
    return h ? h->kind : Kind::Invalid;
}

std::optional<MsgpackReader::Header> MsgpackReader::take(Kind kind) {
    const auto h = header();
    if (!h || h->kind != kind) {
        failed_ = true;
        return std::nullopt;
    }
    at_ += h->bytes;
    return h;
}

std::optional<std::uint32_t> MsgpackReader::map() {
    const auto h = take(Kind::Map);
    return h ? std::optional(static_cast<std::uint32_t>(h->value)) : std::nullopt;
}

std::optional<std::uint32_t> MsgpackReader::array() {
    const auto h = take(Kind::Array);
    return h ? std::optional(static_cast<std::uint32_t>(h->value)) : std::nullopt;
}

std::optional<std::string_view> MsgpackReader::string() {
    const auto h = take(Kind::String);
    if (!h) return std::nullopt;
    const std::string_view text = bytes_.substr(at_, h->payload);
    at_ += h->payload;
    return text;
}

std::optional<std::uint64_t> MsgpackReader::unsigned_number() {
    const auto h = take(Kind::Unsigned);
    return h ? std::optional(h->value) : std::nullopt;
}

std::optional<std::string_view> MsgpackReader::skip() {
    const std::size_t start = at_;
    for (std::uint64_t left = 1; left > 0;) {
        const auto h = header();
        // What is still to come needs a byte each, too; so `left` cannot run away.
        if (!h || left - 1 + h->inside > bytes_.size()) {
            failed_ = true;
            return std::nullopt;
        }
        at_ += h->bytes + h->payload;
        left += h->inside;
        --left;
    }
    return bytes_.substr(start, at_ - start);
}

// -- writer

void MsgpackWriter::big_endian(std::uint64_t value, int bytes) {
    for (int shift = 8 * (bytes - 1); shift >= 0; shift -= 8)
        out_.push_back(static_cast<char>(value >> shift & 255));
}

void MsgpackWriter::sized(std::uint8_t small, std::uint8_t small_max, int code8, int code16,
                          int code32, std::size_t count) {
    if (count <= small_max) {
        out_.push_back(static_cast<char>(small | count));
    } else if (code8 != 0 && count <= 0xff) {
        out_.push_back(static_cast<char>(code8));
        big_endian(count, 1);
    } else if (count <= 0xffff) {
        out_.push_back(static_cast<char>(code16));
        big_endian(count, 2);
    } else {
        out_.push_back(static_cast<char>(code32));
        big_endian(count, 4);
    }
}

MsgpackWriter& MsgpackWriter::map(std::size_t pairs) {
    sized(0x80, 15, 0, 0xde, 0xdf, pairs);
    return *this;
}

MsgpackWriter& MsgpackWriter::array(std::size_t elements) {
    sized(0x90, 15, 0, 0xdc, 0xdd, elements);
    return *this;
}

MsgpackWriter& MsgpackWriter::string(std::string_view text) {
    sized(0xa0, 31, 0xd9, 0xda, 0xdb, text.size());
    out_.append(text);
    return *this;
}

MsgpackWriter& MsgpackWriter::number(std::uint64_t value) {
    if (value <= 0x7f) {
        out_.push_back(static_cast<char>(value));
        return *this;
    }
    const int power = value <= 0xff ? 0 : value <= 0xffff ? 1 : value <= 0xffffffff ? 2 : 3;
    out_.push_back(static_cast<char>(0xcc + power));
    big_endian(value, 1 << power);
    return *this;
}

}  // namespace sluice::mooncake
