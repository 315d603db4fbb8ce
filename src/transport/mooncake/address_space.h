// SPDX-License-Identifier: Apache-2.0
// The addresses that we tell others to write to. None of them is a real one, and none is given out
// twice: that is the fence of a wire that has no epochs.
//
// Mooncake's requests name what they write by address alone, and the engine that sends them looks
// nothing up. So each landing gets a run of addresses of its own, counted up from a place that is
// drawn at the start; a write finds its landing by them, and one that comes when the landing has
// closed, however late and from whoever, finds none. There are 2^61 bytes of them: 2^27 landings of
// 16 GiB.
//
//   a landing's epoch = its first address | shift   range k begins at first + (k << shift)
//   the window's first 2^32 addresses are asked for, never written: Read of one byte at window + n
//   says "I am alive, and to you I am peer n" (n = 0: a stranger)
//
// Threads: take, open, close: the owner; the rest any. Owns: the table. Costs: find() looks at as
// many slots as are in use, once a write. Errors: take() answers 0 when none are left.
#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <optional>

#include "transport/placement.h"

namespace sluice::transport::mooncake {

class AddressSpace {
public:
    static constexpr std::uint64_t kBegin = std::uint64_t{1} << 60;
    static constexpr std::uint64_t kEnd = std::uint64_t{1} << 62;
    static constexpr std::uint64_t kAlive = std::uint64_t{1} << 32;  // addresses that say so

    explicit AddressSpace(std::uint64_t seed);

    // -- the owner
    std::uint64_t take(const Placement& placement);
    void open(std::uint32_t slot, std::uint64_t epoch, const Placement& placement);
    void close(std::uint32_t slot);

    // -- any thread
    struct Found {
        std::uint32_t slot = 0;
        std::uint64_t epoch = 0;
    };
    // Whose it is now, or was a moment ago: the landing's gate and placement decide.
    std::optional<Found> find(std::uint64_t address) const;
    // Some landing's, open or closed: who writes there is late and not astray.
    bool was_given_out(std::uint64_t address, std::uint64_t bytes) const;

    static std::uint64_t first_of(std::uint64_t epoch) { return epoch & ~std::uint64_t{63}; }
    static std::uint64_t address_of(std::uint64_t epoch, std::uint32_t range,
                                    std::uint64_t offset) {
        return first_of(epoch) + (std::uint64_t{range} << shift_of(epoch)) + offset;
    }
    static Place place_of(std::uint64_t epoch, std::uint64_t address) {
        const std::uint64_t within = address - first_of(epoch);
        return {static_cast<std::uint32_t>(within >> shift_of(epoch)),
                within & ((std::uint64_t{1} << shift_of(epoch)) - 1)};
    }

private:
    static unsigned shift_of(std::uint64_t epoch) { return epoch & 63; }

    struct Entry {
        std::atomic<std::uint64_t> epoch{0};
        std::atomic<std::uint64_t> end{0};
    };
    std::uint64_t first_ = 0;
    std::atomic<std::uint64_t> next_{0};
    std::unique_ptr<Entry[]> entries_;    // kLandingsMax
    std::atomic<std::uint32_t> used_{0};  // entries from here on have never been open
};

}  // namespace sluice::transport::mooncake
