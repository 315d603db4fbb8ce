// SPDX-License-Identifier: Apache-2.0
#include "kv/plan.h"

#include <algorithm>
#include <map>
#include <tuple>

namespace sluice::kv {

namespace {

using transport::Repeat;

std::string number(std::uint64_t value) { return std::to_string(value); }

Status mismatch(const Shape& producer, const Shape& consumer, const std::string& what) {
    return {Code::ShapeMismatch, what + ". The producer has " + describe(producer) +
                                     "; the consumer has " + describe(consumer)};
}

bool one_divides_the_other(std::uint32_t a, std::uint32_t b) {
    return a != 0 && b != 0 && (a % b == 0 || b % a == 0);
}

Status unequal_sizes(std::uint32_t producer, std::uint32_t consumer) {
    return {Code::ShapeMismatch, "a producer of tp_size " + number(producer) +
                                     " and a consumer of tp_size " + number(consumer) +
                                     " do not pair: one must divide the other"};
}

// How `heads` lie in a block: `contiguous` if both sides have them as one piece, else row by row
// where the layouts differ, else token by token.
enum class Cut : std::uint8_t { Whole, Tokens, Rows };

Cut cut_of(const Geometry& a, const Geometry& b, HeadSpan heads) {
    if (a.layout != b.layout)
        // One token, or one head on both sides: the order does not matter.
        return a.block_tokens() == 1 || (a.heads == 1 && b.heads == 1) ? Cut::Whole : Cut::Rows;
    if (a.layout == Layout::Hnd || a.block_tokens() == 1) return Cut::Whole;
    return heads.size() == a.heads && heads.size() == b.heads ? Cut::Whole : Cut::Tokens;
}

transport::Range range_of(const Geometry& side, std::uint32_t region, std::uint32_t first_held,
                          HeadSpan heads, Cut cut) {
    transport::Range range;
    range.region = region;
    range.block_stride = side.block_stride;
    const std::uint32_t row = side.row_bytes;
    const std::uint32_t tokens = side.block_tokens();
    const bool hnd = side.layout == Layout::Hnd;
    const std::uint64_t head_stride = hnd ? std::uint64_t{tokens} * row : row;
    const std::uint64_t token_stride = hnd ? row : std::uint64_t{side.heads} * row;
    range.offset = (heads.first - first_held) * head_stride;
    switch (cut) {
        case Cut::Whole:
            range.piece_bytes = heads.size() * tokens * row;
            break;
        case Cut::Tokens:
            range.piece_bytes = heads.size() * row;
            range.inner = {tokens, token_stride};
            break;
        case Cut::Rows:
            range.piece_bytes = row;
            range.inner = {tokens, token_stride};
            range.outer = {heads.size(), head_stride};
            break;
    }
    return range;
}

struct Pair {
    std::uint32_t producer = 0;
    std::uint32_t consumer = 0;
};

Outcome<std::vector<Pair>> pair_regions(const Shape& producer, const Shape& consumer) {
    std::map<std::pair<std::string_view, Part>, std::uint32_t> by_name;
    for (std::uint32_t i = 0; i < producer.regions.size(); ++i)
        by_name.emplace(
            std::pair{std::string_view(producer.regions[i].layer_name), producer.regions[i].part},
            i);
    std::vector<Pair> pairs;
    for (std::uint32_t i = 0; i < consumer.regions.size(); ++i) {
        const Geometry& want = consumer.regions[i];
        const auto found = by_name.find({want.layer_name, want.part});
        if (found == by_name.end()) {
            const auto other = by_name.lower_bound({want.layer_name, Part::Key});
            if (other != by_name.end() && other->first.first == want.layer_name)
                return std::unexpected(
                    mismatch(producer, consumer,
                             "layer \"" + want.layer_name +
                                 "\" has K and V in one region on one side only"));
            continue;  // another pipeline rank's
        }
        const Geometry& have = producer.regions[found->second];
        if (have.row_bytes != want.row_bytes || have.block_tokens() != want.block_tokens() ||
            have.group != want.group)
            return std::unexpected(mismatch(
                producer, consumer,
                "layer \"" + want.layer_name + "\" has rows of " + number(have.row_bytes) +
                    " bytes, " + number(have.block_tokens()) + " tokens a block, group " +
                    number(have.group) + " at the producer, and " + number(want.row_bytes) + ", " +
                    number(want.block_tokens()) + ", " + number(want.group) + " at the consumer"));
        pairs.push_back({found->second, i});
    }
    std::ranges::sort(pairs, {}, [&](const Pair& pair) {
        const Geometry& g = producer.regions[pair.producer];
        return std::tuple(g.layer, g.part, pair.producer);
    });
    return pairs;
}

}  // namespace

Outcome<std::vector<Source>> sources_of(const Rank& consumer, std::uint32_t producer_tp_size,
                                        std::uint32_t kv_heads) {
    if (!one_divides_the_other(producer_tp_size, consumer.tp_size))
        return std::unexpected(unequal_sizes(producer_tp_size, consumer.tp_size));
    const HeadSpan wanted = heads_of(consumer.tp_rank, consumer.tp_size, kv_heads);
    std::vector<Source> sources;
    if (producer_tp_size <= consumer.tp_size) {
        sources.push_back({consumer.tp_rank / (consumer.tp_size / producer_tp_size), wanted});
        return sources;
    }
    const std::uint32_t each = producer_tp_size / consumer.tp_size;
    std::uint32_t next = wanted.first;  // heads below it are taken
    for (std::uint32_t i = 0; i < each; ++i) {
        const std::uint32_t rank = consumer.tp_rank * each + i;
        HeadSpan held = heads_of(rank, producer_tp_size, kv_heads);
        held.first = std::max(held.first, next);
        held.end = std::min(held.end, wanted.end);
        if (held.first >= held.end) held = {};  // a replica of what is taken already
        next = std::max(next, held.end);
        sources.push_back({rank, held});
    }
    return sources;
}

Outcome<std::uint32_t> pullers_of(const Rank& producer, const Rank& consumer) {
    if (!one_divides_the_other(producer.tp_size, consumer.tp_size))
        return std::unexpected(unequal_sizes(producer.tp_size, consumer.tp_size));
    return std::max(1U, consumer.tp_size / producer.tp_size) * consumer.pp_size;
}

Outcome<Route> make_route(const Shape& producer, const Shape& consumer) {
    if (producer.kv_heads != consumer.kv_heads)
        return std::unexpected(mismatch(producer, consumer, "the models differ in their KV heads"));
    const auto sources = sources_of(consumer.rank, producer.rank.tp_size, consumer.kv_heads);
    if (!sources) return std::unexpected(mismatch(producer, consumer, sources.error().sentence));
    const auto mine = std::ranges::find(*sources, producer.rank.tp_rank, &Source::tp_rank);
    if (mine == sources->end())
        return std::unexpected(mismatch(
            producer, consumer, "these two tensor parallel ranks have nothing to exchange"));
    const auto pairs = pair_regions(producer, consumer);
    if (!pairs) return std::unexpected(pairs.error());
    const bool pipelined = producer.rank.pp_size > 1 || consumer.rank.pp_size > 1;
    if (!pipelined && pairs->size() != consumer.regions.size())
        return std::unexpected(
            mismatch(producer, consumer, "the consumer has layers that the producer has not"));
    Route route;
    route.heads = mine->heads;
    const std::size_t groups = std::max(producer.groups(), consumer.groups());
    route.block_bytes.resize(groups, 0);
    route.producer_blocks.resize(groups, 0);
    route.consumer_blocks.resize(groups, 0);
    for (const Geometry& one : producer.regions) route.producer_blocks[one.group] = one.blocks;
    for (const Geometry& one : consumer.regions) route.consumer_blocks[one.group] = one.blocks;
    if (route.heads.size() == 0) return route;
    const std::uint32_t from =
        heads_of(producer.rank.tp_rank, producer.rank.tp_size, producer.kv_heads).first;
    const std::uint32_t to =
        heads_of(consumer.rank.tp_rank, consumer.rank.tp_size, consumer.kv_heads).first;
    for (const Pair& pair : *pairs) {
        const Geometry& have = producer.regions[pair.producer];
        const Geometry& want = consumer.regions[pair.consumer];
        const Cut cut = cut_of(have, want, route.heads);
        RangePair made;
        made.producer = range_of(have, pair.producer, from, route.heads, cut);
        made.consumer = range_of(want, pair.consumer, to, route.heads, cut);
        made.group = have.group;
        made.layer = have.layer;
        route.block_bytes[made.group] += made.producer.block_bytes();
        route.pairs.push_back(made);
    }
    route.coverage = std::uint64_t{route.pairs.size()} * route.heads.size();
    return route;
}

std::uint64_t coverage_wanted(const Shape& consumer) {
    return std::uint64_t{consumer.regions.size()} *
           heads_of(consumer.rank.tp_rank, consumer.rank.tp_size, consumer.kv_heads).size();
}

std::uint32_t first_pair(const Route& route, std::uint32_t layer) {
    return static_cast<std::uint32_t>(
        std::ranges::lower_bound(route.pairs, layer, {}, &RangePair::layer) - route.pairs.begin());
}

Counts counts_of(const BlocksByGroup& blocks) {
    Counts counts;
    for (const auto& group : blocks) counts.push_back(static_cast<std::uint32_t>(group.size()));
    return counts;
}

namespace {

Status too_many_blocks(std::uint64_t total) {
    return {Code::LimitReached, "a transfer of " + number(total) +
                                    " blocks; kTransferBlocksMax is " +
                                    number(limits::kTransferBlocksMax)};
}

// The last `count` of `ids`, appended. How many runs of neighbours they are; none: an id is not
// below `bound`.
std::optional<std::uint64_t> append_last(std::span<const BlockId> ids, std::uint32_t count,
                                         std::uint32_t bound, std::vector<BlockId>& out) {
    std::uint64_t runs = 0;
    std::uint64_t next = UINT64_MAX;
    BlockId highest = 0;
    for (const BlockId id : ids.last(count)) {
        runs += id == next ? 0 : 1;
        next = std::uint64_t{id} + 1;
        highest = std::max(highest, id);
    }
    if (count != 0 && highest >= bound) return std::nullopt;
    out.insert(out.end(), ids.end() - count, ids.end());
    return runs;
}

}  // namespace

Outcome<Half> make_half(const Route& route, Side side, const BlocksByGroup& blocks,
                        const Counts& counts) {
    const bool producer = side == Side::Producer;
    const std::size_t groups = route.block_bytes.size();
    const auto& bounds = producer ? route.producer_blocks : route.consumer_blocks;
    if (blocks.size() > groups || counts.size() > groups)
        return refuse(Code::BadBlocks, "block ids for " +
                                           number(std::max(blocks.size(), counts.size())) +
                                           " groups; the model has " + number(groups));
    std::uint64_t total = 0;
    for (const std::uint32_t count : counts) total += count;
    if (total > limits::kTransferBlocksMax) return std::unexpected(too_many_blocks(total));

    Half half;
    half.blocks.reserve(total);
    std::vector<std::uint32_t> first(groups, 0);
    std::vector<std::uint64_t> runs(groups, 0);
    for (std::size_t group = 0; group < counts.size(); ++group) {
        const std::span<const BlockId> ids =
            group < blocks.size() ? blocks[group] : std::span<const BlockId>();
        first[group] = static_cast<std::uint32_t>(half.blocks.size());
        if (ids.size() < counts[group])
            return refuse(Code::TooFewBlocks, "the consumer wants " + number(counts[group]) +
                                                  " blocks of group " + number(group) +
                                                  ", the producer published " + number(ids.size()));
        const auto found = append_last(ids, counts[group], bounds[group], half.blocks);
        if (!found)
            return refuse(Code::BadBlocks, "a block id of group " + number(group) +
                                               " is not below the region's " +
                                               number(bounds[group]) + " blocks");
        runs[group] = *found;
        half.bytes += route.block_bytes[group] * counts[group];
    }
    half.ranges.reserve(route.pairs.size());
    for (const RangePair& pair : route.pairs) {
        transport::Range& range =
            half.ranges.emplace_back(producer ? pair.producer : pair.consumer);
        range.first_block = first[pair.group];
        range.block_count = pair.group < counts.size() ? counts[pair.group] : 0;
        const std::uint64_t pieces = std::uint64_t{range.block_count} * range.pieces();
        const bool gapless = range.pieces() == 1 && range.piece_bytes == range.block_stride;
        half.pieces += pieces;
        half.merged += gapless ? runs[pair.group] : pieces;
    }
    return half;
}

Status check_blocks(const Shape& shape, const BlocksByGroup& blocks) {
    if (blocks.size() > shape.groups())
        return {Code::BadBlocks, "block ids for " + number(blocks.size()) +
                                     " groups; the model has " + number(shape.groups())};
    std::uint64_t total = 0;
    for (const auto& group : blocks) total += group.size();
    if (total > limits::kTransferBlocksMax) return too_many_blocks(total);
    for (std::size_t group = 0; group < blocks.size(); ++group) {
        const auto region = std::ranges::find(shape.regions, group, &Geometry::group);
        const auto highest = std::ranges::max_element(blocks[group]);
        if (highest != blocks[group].end() && *highest >= region->blocks)
            return {Code::BadBlocks, "block " + number(*highest) + " of group " + number(group) +
                                         " is not below the region's " + number(region->blocks) +
                                         " blocks"};
    }
    return {};
}

}  // namespace sluice::kv
