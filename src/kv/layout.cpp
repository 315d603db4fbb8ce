// SPDX-License-Identifier: Apache-2.0
#include "kv/layout.h"

#include <algorithm>
#include <set>
#include <tuple>

namespace sluice::kv {

namespace {

std::string number(std::uint64_t value) { return std::to_string(value); }

std::string region_name(std::size_t index, std::string_view layer_name) {
    return "region " + number(index) + " (\"" +
           std::string(layer_name.substr(0, limits::kLayerNameBytesMax)) + "\")";
}

std::unexpected<Status> bad(std::size_t index, std::string_view layer_name,
                            const std::string& what) {
    return refuse(Code::BadRegion, region_name(index, layer_name) + ": " + what);
}

Outcome<Geometry> geometry_of(const Region& region, std::size_t index) {
    const auto wrong = [&](const std::string& what) { return bad(index, region.layer_name, what); };
    if (region.base == nullptr) return wrong("its base is null");
    if (region.head_size == 0 || region.element_bytes == 0 || region.kv_heads == 0)
        return wrong("kv_heads, head_size and element_bytes must be at least 1");
    const std::uint64_t parts = region.part == Part::KeyValue ? 2 : 1;
    const std::uint64_t row = parts * region.head_size * region.element_bytes;
    const std::uint32_t stride =
        region.block_stride == 0 ? region.block_bytes : region.block_stride;
    if (row > limits::kBlockBytesMax)
        return wrong("a row of " + number(row) + " bytes is too long");
    if (region.block_bytes == 0) return wrong("block_bytes is 0");
    if (stride < region.block_bytes)
        return wrong("block_stride " + number(stride) + " is less than block_bytes " +
                     number(region.block_bytes));
    if (region.bytes % stride != 0)
        return wrong("its " + number(region.bytes) + " bytes are not a multiple of the block's " +
                     number(stride));
    Geometry geometry;
    geometry.part = region.part;
    geometry.layout = region.layout;
    geometry.block_bytes = region.block_bytes;
    geometry.block_stride = stride;
    geometry.layer = region.layer;
    geometry.group = region.group;
    geometry.heads = region.kv_heads;
    geometry.row_bytes = static_cast<std::uint32_t>(row);
    geometry.layer_name = region.layer_name;
    const std::uint64_t blocks = region.bytes / stride;
    if (blocks > limits::kBlocksMax)
        return refuse(Code::LimitReached, region_name(index, region.layer_name) + " has " +
                                              number(blocks) + " blocks; kBlocksMax is " +
                                              number(limits::kBlocksMax));
    geometry.blocks = static_cast<std::uint32_t>(blocks);
    return geometry;
}

Status check_rank(const Rank& rank, std::uint32_t kv_heads) {
    const auto wrong = [](std::string what) { return Status{Code::BadOptions, std::move(what)}; };
    for (const auto& [name, at, size] : {std::tuple{"tp", rank.tp_rank, rank.tp_size},
                                         std::tuple{"pp", rank.pp_rank, rank.pp_size}}) {
        if (size == 0 || size > limits::kParallelMax)
            return wrong(std::string(name) + "_size is " + number(size) + "; allowed: 1 to " +
                         number(limits::kParallelMax));
        if (at >= size)
            return wrong(std::string(name) + "_rank " + number(at) + " is not below " + name +
                         "_size " + number(size));
    }
    if (kv_heads == 0) return wrong("the model's kv_heads must be at least 1");
    const bool even =
        rank.tp_size <= kv_heads ? kv_heads % rank.tp_size == 0 : rank.tp_size % kv_heads == 0;
    if (!even)
        return wrong(number(kv_heads) + " KV heads cannot be divided among, or replicated over, " +
                     number(rank.tp_size) + " tensor parallel ranks");
    return {};
}

Status check_geometry(const Geometry& one, std::size_t index) {
    const auto wrong = [&](Code code, const std::string& what) {
        return Status{code, region_name(index, one.layer_name) + ": " + what};
    };
    if (one.layer_name.empty() || one.layer_name.size() > limits::kLayerNameBytesMax)
        return wrong(Code::BadRegion, "its layer name must have 1 to " +
                                          number(limits::kLayerNameBytesMax) + " bytes");
    if (one.group >= limits::kGroupsMax)
        return wrong(Code::LimitReached, "its group is " + number(one.group) + "; kGroupsMax is " +
                                             number(limits::kGroupsMax));
    if (one.heads == 0 || one.row_bytes == 0 || one.block_bytes == 0)
        return wrong(Code::BadRegion, "heads, rows and blocks must not be empty");
    if (one.block_bytes > limits::kBlockBytesMax)
        return wrong(Code::LimitReached, "a block of " + number(one.block_bytes) +
                                             " bytes; kBlockBytesMax is " +
                                             number(limits::kBlockBytesMax));
    if (one.block_stride < one.block_bytes) return wrong(Code::BadRegion, "its blocks overlap");
    if (one.blocks == 0) return wrong(Code::BadRegion, "it has no block");
    if (one.blocks > limits::kBlocksMax)
        return wrong(Code::LimitReached, "it has more than kBlocksMax blocks");
    const std::uint64_t token_bytes = std::uint64_t{one.heads} * one.row_bytes;
    if (one.block_bytes % token_bytes != 0)
        return wrong(Code::BadRegion, "a block of " + number(one.block_bytes) +
                                          " bytes is not a multiple of a token's " +
                                          number(token_bytes) + " (" + number(one.heads) +
                                          " heads x " + number(one.row_bytes) + " bytes)");
    return {};
}

}  // namespace

const char* name_of(Code code) {
    constexpr const char* kNames[] = {
        "Ok",           "BadRegion",       "BadOptions",    "BadRole",    "BadBlocks",
        "TooFewBlocks", "VersionMismatch", "ShapeMismatch", "WrongToken", "AlreadyLive",
        "NotPublished", "LimitReached",    "Timeout",       "PeerLost",   "PeerRestarted",
        "PeerFailed",   "Aborted",         "Expired",       "Closed",     "System"};
    const auto index = static_cast<std::size_t>(code);
    return index < std::size(kNames) ? kNames[index] : "Unknown";
}

std::size_t Shape::groups() const {
    std::size_t count = 0;
    for (const Geometry& one : regions) count = std::max<std::size_t>(count, one.group + 1);
    return count;
}

HeadSpan heads_of(std::uint32_t tp_rank, std::uint32_t tp_size, std::uint32_t kv_heads) {
    if (tp_size <= kv_heads) {
        const std::uint32_t each = kv_heads / tp_size;
        return {tp_rank * each, (tp_rank + 1) * each};
    }
    const std::uint32_t head = tp_rank / (tp_size / kv_heads);
    return {head, head + 1};
}

Status check_shape(const Shape& shape) {
    if (const Status status = check_rank(shape.rank, shape.kv_heads); !status.ok()) return status;
    if (shape.regions.empty()) return {Code::BadRegion, "no region is registered"};
    if (shape.regions.size() > limits::kRegionsMax)
        return {Code::LimitReached, number(shape.regions.size()) + " regions; kRegionsMax is " +
                                        number(limits::kRegionsMax)};
    const std::uint32_t held =
        heads_of(shape.rank.tp_rank, shape.rank.tp_size, shape.kv_heads).size();
    std::set<std::pair<std::string_view, Part>> seen;
    std::vector<std::uint32_t> blocks(limits::kGroupsMax, 0);
    std::vector<std::uint32_t> tokens(limits::kGroupsMax, 0);
    for (std::size_t i = 0; i < shape.regions.size(); ++i) {
        const Geometry& one = shape.regions[i];
        if (const Status status = check_geometry(one, i); !status.ok()) return status;
        const auto wrong = [&](const std::string& what) {
            return Status{Code::BadRegion, region_name(i, one.layer_name) + ": " + what};
        };
        if (one.heads != held)
            return wrong("it has " + number(one.heads) + " KV heads; of the model's " +
                         number(shape.kv_heads) + ", a rank of tp_size " +
                         number(shape.rank.tp_size) + " holds " + number(held));
        if (!seen.insert({one.layer_name, one.part}).second)
            return wrong("the same part of this layer is registered twice");
        if (one.part != Part::KeyValue ? seen.contains({one.layer_name, Part::KeyValue})
                                       : seen.contains({one.layer_name, Part::Key}) ||
                                             seen.contains({one.layer_name, Part::Value}))
            return wrong("its layer has a region for both parts as well");
        std::uint32_t& group_blocks = blocks[one.group];
        std::uint32_t& group_tokens = tokens[one.group];
        if (group_blocks == 0) {
            group_blocks = one.blocks;
            group_tokens = one.block_tokens();
        }
        if (group_blocks != one.blocks || group_tokens != one.block_tokens())
            return wrong("it has " + number(one.blocks) + " blocks of " +
                         number(one.block_tokens()) + " tokens; others of its group have " +
                         number(group_blocks) + " of " + number(group_tokens));
    }
    for (std::size_t group = 0; group < shape.groups(); ++group)
        if (blocks[group] == 0)
            return {Code::BadRegion, "group " + number(group) + " has no region"};
    return {};
}

Outcome<Shape> shape_of(std::span<const Region> regions, const Rank& rank, std::uint32_t kv_heads) {
    Shape shape;
    shape.rank = rank;
    shape.kv_heads = kv_heads;
    if (regions.size() > limits::kRegionsMax)
        return refuse(Code::LimitReached, number(regions.size()) + " regions; kRegionsMax is " +
                                              number(limits::kRegionsMax));
    for (std::size_t i = 0; i < regions.size(); ++i) {
        auto geometry = geometry_of(regions[i], i);
        if (!geometry) return std::unexpected(std::move(geometry.error()));
        shape.regions.push_back(std::move(*geometry));
    }
    if (Status status = check_shape(shape); !status.ok()) return std::unexpected(std::move(status));
    return shape;
}

std::string describe(const Shape& shape) {
    std::set<std::string_view> layers;
    bool hnd = false, nhd = false, joint = false, apart = false;
    for (const Geometry& one : shape.regions) {
        layers.insert(one.layer_name);
        (one.layout == Layout::Hnd ? hnd : nhd) = true;
        (one.part == Part::KeyValue ? joint : apart) = true;
    }
    std::string text = "tp " + number(shape.rank.tp_rank) + "/" + number(shape.rank.tp_size) +
                       ", pp " + number(shape.rank.pp_rank) + "/" + number(shape.rank.pp_size) +
                       ", " + number(layers.size()) + " layers";
    text += joint && apart ? " of mixed regions"
            : joint        ? " with K+V in one region"
                           : " with K and V apart";
    text += ", " + number(shape.kv_heads) + " KV heads";
    if (!shape.regions.empty()) {
        const Geometry& first = shape.regions.front();
        text += " (" + number(first.heads) + " here), " + number(first.row_bytes) +
                " bytes a token and head, " + number(first.block_tokens()) + " tokens a block";
    }
    text += hnd && nhd ? ", HND and NHD" : hnd ? ", HND" : ", NHD";
    if (shape.groups() > 1) text += ", " + number(shape.groups()) + " groups";
    return text;
}

}  // namespace sluice::kv
