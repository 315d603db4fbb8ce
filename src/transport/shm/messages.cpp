// SPDX-License-Identifier: Apache-2.0
#include "transport/shm/messages.h"

#include <cstring>
#include <type_traits>

namespace sluice::transport {
namespace {

// Images have no padding: what is written is what was set.
struct GrantImage {
    std::uint64_t epoch, first_unit, units;
    std::uint32_t cell, first_range, ranges, blocks, priority, zero;
};
static_assert(sizeof(GrantImage) == 48 && std::has_unique_object_representations_v<GrantImage>);

struct RangeImage {
    std::uint64_t offset, block_stride, inner_stride, outer_stride;
    std::uint32_t region, piece_bytes, inner_count, outer_count, first_block, block_count;
};
static_assert(sizeof(RangeImage) == 56 && std::has_unique_object_representations_v<RangeImage>);

struct RegionImage {
    std::uint64_t offset, bytes;
    std::uint32_t id, descriptor;
};
static_assert(sizeof(RegionImage) == 24 && std::has_unique_object_representations_v<RegionImage>);

template <class T>
void put(std::vector<std::byte>& out, const T& image) {
    const std::size_t at = out.size();
    out.resize(at + sizeof image);
    std::memcpy(out.data() + at, &image, sizeof image);
}
template <class T>
T take(std::span<const std::byte>& from) {
    T image;
    std::memcpy(&image, from.data(), sizeof image);
    from = from.subspan(sizeof image);
    return image;
}

}  // namespace

std::vector<std::byte> write_regions(std::span<const SharedRegion> regions) {
    std::vector<std::byte> out;
    for (const SharedRegion& region : regions)
        put(out, RegionImage{region.offset, region.bytes, region.id, region.descriptor});
    // A message is never empty, so that one who shares nothing says so.
    put(out, std::uint64_t{regions.size()});
    return out;
}

std::optional<std::vector<SharedRegion>> read_regions(std::span<const std::byte> message) {
    if (message.size() < 8 || (message.size() - 8) % sizeof(RegionImage) != 0) return std::nullopt;
    const std::size_t count = (message.size() - 8) / sizeof(RegionImage);
    if (count > kRegionsMax) return std::nullopt;
    std::vector<SharedRegion> regions;
    for (std::size_t i = 0; i < count; ++i) {
        const auto image = take<RegionImage>(message);
        if (image.id >= kRegionsMax || image.descriptor >= kSharedDescriptorsMax)
            return std::nullopt;
        regions.push_back({image.id, image.descriptor, image.offset, image.bytes});
    }
    if (take<std::uint64_t>(message) != count) return std::nullopt;
    return regions;
}

void write_grant(const Grant& grant, const Batch& batch, std::vector<std::byte>& out) {
    out.clear();
    put(out, GrantImage{grant.epoch, grant.first_unit, grant.units, grant.cell, grant.first_range,
                        static_cast<std::uint32_t>(batch.ranges.size()),
                        static_cast<std::uint32_t>(batch.blocks.size()),
                        static_cast<std::uint32_t>(grant.priority), 0});
    for (const Range& range : batch.ranges)
        put(out, RangeImage{range.offset, range.block_stride, range.inner.stride,
                            range.outer.stride, range.region, range.piece_bytes, range.inner.count,
                            range.outer.count, range.first_block, range.block_count});
    const auto ids = std::as_bytes(batch.blocks);
    out.insert(out.end(), ids.begin(), ids.end());
}

bool read_grant(std::span<const std::byte> message, Grant& grant, std::vector<Range>& ranges,
                std::vector<std::uint32_t>& blocks) {
    if (message.size() < sizeof(GrantImage)) return false;
    const auto image = take<GrantImage>(message);
    if (image.ranges == 0 || image.ranges > kRangesMax || image.blocks > kBlocksMax ||
        image.cell >= kPostsMax || image.priority > static_cast<std::uint32_t>(Priority::Urgent) ||
        image.zero != 0 || image.units == 0 || image.first_unit > kUnitsMax ||
        image.units > kUnitsMax ||
        message.size() != std::size_t{image.ranges} * sizeof(RangeImage) +
                              std::size_t{image.blocks} * sizeof(std::uint32_t))
        return false;
    grant = {image.epoch,      image.cell,  image.first_range,
             image.first_unit, image.units, static_cast<Priority>(image.priority)};
    ranges.clear();
    for (std::uint32_t i = 0; i < image.ranges; ++i) {
        const auto range = take<RangeImage>(message);
        ranges.push_back({range.region,
                          range.piece_bytes,
                          range.offset,
                          range.block_stride,
                          {range.inner_count, range.inner_stride},
                          {range.outer_count, range.outer_stride},
                          range.first_block,
                          range.block_count});
    }
    blocks.resize(image.blocks);
    if (!blocks.empty()) std::memcpy(blocks.data(), message.data(), message.size());
    return true;
}

}  // namespace sluice::transport
