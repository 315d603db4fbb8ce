// SPDX-License-Identifier: Apache-2.0
#include "transport/placement.h"

#include "base/assert.h"

namespace sluice::transport {
namespace {

// Where the last byte of a range ends, from its region's base; false if that overflows.
bool end_of(const Range& range, std::uint32_t highest_block, std::uint64_t& end) {
    std::uint64_t blocks = 0, inner = 0, outer = 0;
    return !__builtin_mul_overflow(std::uint64_t{highest_block}, range.block_stride, &blocks) &&
           !__builtin_mul_overflow(std::uint64_t{range.inner.count - 1}, range.inner.stride,
                                   &inner) &&
           !__builtin_mul_overflow(std::uint64_t{range.outer.count - 1}, range.outer.stride,
                                   &outer) &&
           !__builtin_add_overflow(range.offset, blocks, &end) &&
           !__builtin_add_overflow(end, inner, &end) && !__builtin_add_overflow(end, outer, &end) &&
           !__builtin_add_overflow(end, std::uint64_t{range.piece_bytes}, &end);
}

}  // namespace

Result<void> Placement::assign(const Batch& batch, RegionLookup regions) {
    ranges_.clear();
    blocks_.clear();
    bytes_ = units_ = 0;
    if (batch.ranges.empty()) return fail(Errc::ProtocolViolation);
    if (batch.ranges.size() > kRangesMax || batch.blocks.size() > kBlocksMax)
        return fail(Errc::LimitReached);

    // Ranges mostly share their blocks (layers of one group), so the highest id is looked up once.
    std::uint32_t seen_first = 0, seen_count = 0, highest = 0;
    for (const Range& range : batch.ranges) {
        const Region* region = regions(range.region);
        if (region == nullptr || range.piece_bytes == 0 || range.inner.count == 0 ||
            range.outer.count == 0 || range.block_count == 0 ||
            range.first_block > batch.blocks.size() ||
            range.block_count > batch.blocks.size() - range.first_block)
            return fail(Errc::ProtocolViolation);
        if (std::uint64_t{range.inner.count} * range.outer.count > UINT32_MAX)
            return fail(Errc::LimitReached);
        const auto ids = batch.blocks.subspan(range.first_block, range.block_count);
        if (range.first_block != seen_first || range.block_count != seen_count) {
            highest = *std::max_element(ids.begin(), ids.end());
            seen_first = range.first_block;
            seen_count = range.block_count;
        }
        std::uint64_t end = 0;
        if (!end_of(range, highest, end) || end > region->bytes)
            return fail(Errc::ProtocolViolation);

        PlacedRange placed;
        placed.base = region->base + range.offset;
        placed.block_stride = range.block_stride;
        placed.inner = range.inner;
        placed.outer = range.outer;
        placed.piece_bytes = range.piece_bytes;
        placed.first_block = range.first_block;
        placed.block_count = range.block_count;
        placed.block_bytes = range.block_bytes();
        placed.units_per_block =
            static_cast<std::uint32_t>((placed.block_bytes + kUnitBytesMax - 1) / kUnitBytesMax);
        placed.first_unit = units_;
        units_ += placed.units();
        bytes_ += placed.bytes();
        if (units_ > kUnitsMax || placed.block_bytes > (1ULL << 40))
            return fail(Errc::LimitReached);
        ranges_.push_back(placed);
    }
    blocks_.assign(batch.blocks.begin(), batch.blocks.end());
    return {};
}

UnitSpan Placement::units_at(Place place, std::uint64_t bytes) const {
    if (bytes == 0 || place.range >= ranges_.size()) return {};
    const PlacedRange* range = &ranges_[place.range];
    if (place.offset >= range->bytes()) return {};
    const auto unit_in_range = [](const PlacedRange& of, std::uint64_t offset,
                                  std::uint64_t& unit) {
        const std::uint64_t within = offset % of.block_bytes;
        unit = offset / of.block_bytes * of.units_per_block + within / kUnitBytesMax;
        return within % kUnitBytesMax == 0;
    };
    std::uint64_t first = 0, last = 0;
    if (!unit_in_range(*range, place.offset, first)) return {};
    first += range->first_unit;
    while (bytes >= range->bytes() - place.offset) {
        bytes -= range->bytes() - place.offset;
        if (bytes == 0) return {first, range->first_unit + range->units() - first};
        if (++place.range == ranges_.size()) return {};
        place.offset = 0;
        range = &ranges_[place.range];
    }
    if (!unit_in_range(*range, place.offset + bytes, last)) return {};
    return {first, range->first_unit + last - first};
}

Place Placement::place_of_unit(std::uint64_t unit) const {
    if (unit >= units_) return {static_cast<std::uint32_t>(ranges_.size()), 0};
    const auto found =
        std::upper_bound(ranges_.begin(), ranges_.end(), unit,
                         [](std::uint64_t at, const PlacedRange& r) { return at < r.first_unit; });
    const PlacedRange& range = *std::prev(found);
    const std::uint64_t in_range = unit - range.first_unit;
    return {static_cast<std::uint32_t>(std::distance(ranges_.begin(), found)) - 1,
            in_range / range.units_per_block * range.block_bytes +
                in_range % range.units_per_block * kUnitBytesMax};
}

Placement::Cut Placement::cut(Place place, std::uint64_t limit_units,
                              std::uint64_t bytes_max) const {
    Cut result;
    settle(place);
    while (result.units < limit_units && place.range < ranges_.size()) {
        const PlacedRange& range = ranges_[place.range];
        const std::uint64_t unit =
            std::min(kUnitBytesMax, range.block_bytes - place.offset % range.block_bytes);
        if (result.units > 0 && result.bytes + unit > bytes_max) break;
        ++result.units;
        result.bytes += unit;
        place.offset += unit;
        settle(place);
    }
    return result;
}

std::span<std::byte> Placement::next(Place& place, std::uint64_t bytes) const {
    settle(place);
    DCHECK(place.range < ranges_.size());
    const PlacedRange& range = ranges_[place.range];
    const auto block = static_cast<std::uint32_t>(place.offset / range.block_bytes);
    const std::uint64_t within = place.offset - block * range.block_bytes;
    std::byte* address = range.base + blocks_[range.first_block + block] * range.block_stride;
    std::uint64_t in_piece = within;
    if (within >= range.piece_bytes) {  // most blocks are one piece, and divisions are dear
        const std::uint64_t piece = within / range.piece_bytes;
        in_piece = within - piece * range.piece_bytes;
        address += piece / range.inner.count * range.outer.stride +
                   piece % range.inner.count * range.inner.stride;
    }
    address += in_piece;
    const std::uint64_t length = std::min(bytes, range.piece_bytes - in_piece);
    place.offset += length;
    return {address, length};
}

Placement::Described Placement::describe(Place& place, std::uint64_t bytes,
                                         std::span<iovec> out) const {
    Described result;
    while (result.bytes < bytes) {
        Place behind = place;
        const auto memory = next(behind, bytes - result.bytes);
        if (result.entries > 0) {
            iovec& last = out[result.entries - 1];
            if (static_cast<std::byte*>(last.iov_base) + last.iov_len == memory.data()) {
                last.iov_len += memory.size();
                result.bytes += memory.size();
                place = behind;
                continue;
            }
        }
        if (result.entries == out.size()) break;
        out[result.entries++] = {memory.data(), memory.size()};
        result.bytes += memory.size();
        place = behind;
    }
    return result;
}

}  // namespace sluice::transport
