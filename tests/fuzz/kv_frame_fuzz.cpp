// SPDX-License-Identifier: Apache-2.0
// Hello, frame header and the places that a frame names: whatever the bytes, nothing outside the
// region is named, and what is written is read back the same.
#include <cstring>

#include "base/assert.h"
#include "transport/placement.h"
#include "transport/shm/messages.h"
#include "transport/stream/frame.h"

using namespace sluice;
using namespace sluice::transport;

namespace {

constexpr std::size_t kBytes = 1 << 16;
std::byte memory[kBytes];
const Region region{memory, kBytes, MemoryKind::Host, -1, 0};

struct Regions {
    const Region* find(RegionId id) { return id == 0 ? &region : nullptr; }
} regions;

void check_inside(const Placement& placement, Place place, std::uint64_t bytes) {
    std::uint64_t seen = 0;
    for (int i = 0; seen < bytes && i < 4096; ++i) {
        const auto piece = placement.next(place, bytes - seen);
        ASSERT(!piece.empty() && piece.data() >= memory &&
               piece.data() + piece.size() <= memory + kBytes);
        seen += piece.size();
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const auto input = std::as_bytes(std::span(data, size));
    if (size >= kHelloBytes) {
        HelloBytes bytes;
        std::memcpy(bytes.data(), data, kHelloBytes);
        if (const auto hello = read_hello(bytes)) {
            const auto again = read_hello(write_hello(*hello));
            ASSERT(again && again->node == hello->node && same_token(again->token, hello->token));
        }
    }
    // With a CRC made right, so that what is behind it is reached.
    if (size >= kHeaderBytes) {
        FrameHeader header;
        std::memcpy(&header, data, kHeaderBytes);
        [[maybe_unused]] const bool as_it_came = check(header);
        seal(header);
        if (check(header)) {
            const std::uint32_t ids[] = {3, 0, 2};
            const Range ranges[] = {{.region = 0,
                                     .piece_bytes = 100,
                                     .block_stride = 4096,
                                     .inner = {4, 200},
                                     .block_count = 3},
                                    {.region = 0,
                                     .piece_bytes = 4096,
                                     .block_stride = 8192,
                                     .first_block = 1,
                                     .block_count = 2}};
            static Placement placement;
            ASSERT(placement.assign({ranges, ids}, RegionLookup::to<&Regions::find>(regions)));
            const Place place{header.range, header.offset};
            const UnitSpan units = placement.units_at(place, header.length);
            ASSERT(units.first + units.count <= placement.units());
            if (units.count > 0) check_inside(placement, place, header.length);
        }
    }
    static Grant grant;
    static std::vector<Range> ranges;
    static std::vector<std::uint32_t> blocks;
    if (read_grant(input, grant, ranges, blocks)) {
        std::vector<std::byte> again;
        write_grant(grant, {ranges, blocks}, again);
        ASSERT(again.size() == size && std::memcmp(again.data(), data, size) == 0);
        static Placement placement;
        if (placement.assign({ranges, blocks}, RegionLookup::to<&Regions::find>(regions)) &&
            grant.first_unit + grant.units <= placement.units()) {
            const Place place = placement.place_of_unit(grant.first_unit);
            const auto cut = placement.cut(place, grant.units, 1 << 16);
            check_inside(placement, place, cut.bytes);
        }
    }
    [[maybe_unused]] const auto shared = read_regions(input);
    return 0;
}
