// SPDX-License-Identifier: Apache-2.0
// MessagePack, as much of it as the side channel needs: a reader that walks a value where it lies,
// and a writer into a string.
//
// Own code and not msgpack-cxx: a message is forwarded with one member changed and all others, also
// those of releases to come, byte for byte as they were, which a reader that gives the raw extent
// of every value does for free; and there is no tree to bound, since nothing is built. Threads:
// any. Owns: the reader nothing, its views are into the text. Costs: one pass. Errors: a failed
// call leaves the reader failed(), and every later call fails as well. Nothing recurses: a value is
// skipped by counting what is still to come, and a count that the bytes left cannot hold is
// refused.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace sluice::mooncake {

class MsgpackReader {
public:
    enum class Kind : std::uint8_t {
        Nil,
        Bool,
        Unsigned,
        Negative,
        Float,
        String,
        Binary,
        Array,
        Map,
        Extension,
        Invalid,  // the reserved byte 0xc1, or the end
    };

    explicit MsgpackReader(std::string_view bytes) : bytes_(bytes) {}

    bool failed() const { return failed_; }
    bool at_end() const { return at_ == bytes_.size(); }
    Kind peek() const;

    // The value at the reader's place, which moves behind it. Of another kind: failed.
    std::optional<std::uint32_t> map();  // so many pairs follow
    std::optional<std::uint32_t> array();
    std::optional<std::string_view> string();
    std::optional<std::uint64_t> unsigned_number();
    // Whatever it is, with everything inside: its bytes.
    std::optional<std::string_view> skip();

private:
    struct Header {
        Kind kind = Kind::Invalid;
        std::uint64_t value = 0;   // elements, pairs, bytes, or the number itself
        std::size_t bytes = 0;     // of the header
        std::size_t payload = 0;   // bytes behind it that belong to the value itself
        std::uint64_t inside = 0;  // values behind it that belong to it
    };
    std::optional<Header> header() const;
    std::optional<Header> take(Kind kind);
    std::uint64_t big_endian(std::size_t at, std::size_t count) const;

    std::string_view bytes_;
    std::size_t at_ = 0;
    bool failed_ = false;
};

class MsgpackWriter {
public:
    explicit MsgpackWriter(std::string& out) : out_(out) {}

    MsgpackWriter& map(std::size_t pairs);
    MsgpackWriter& array(std::size_t elements);
    MsgpackWriter& string(std::string_view text);
    MsgpackWriter& number(std::uint64_t value);
    MsgpackWriter& raw(std::string_view value) {
        out_.append(value);
        return *this;
    }

private:
    void sized(std::uint8_t small, std::uint8_t small_max, int code8, int code16, int code32,
               std::size_t count);
    void big_endian(std::uint64_t value, int bytes);

    std::string& out_;
};

}  // namespace sluice::mooncake
