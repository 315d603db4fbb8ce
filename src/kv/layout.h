// SPDX-License-Identifier: Apache-2.0
// What a node's regions look like, checked, and as much of it as a peer has to know.
//
// A Geometry is a region without its address; a Shape is all of a node's geometries and what is
// true of the whole model. Shapes are exchanged in the hello; two that do not fit are refused with
// both written out. Threads: values. Errors: a Status with a sentence.
#pragma once

#include <span>
#include <string>
#include <vector>

#include <sluice/kv_types.h>

#include "kv/limits.h"

namespace sluice::kv {

struct Geometry {
    Part part = Part::KeyValue;
    Layout layout = Layout::Hnd;
    std::uint32_t block_bytes = 0;
    std::uint32_t block_stride = 0;
    std::uint32_t blocks = 0;
    std::uint32_t layer = 0;
    std::uint32_t group = 0;
    std::uint32_t heads = 0;
    std::uint32_t row_bytes = 0;  // of one token of one head
    std::string layer_name;

    std::uint32_t block_tokens() const { return block_bytes / (heads * row_bytes); }
    friend bool operator==(const Geometry&, const Geometry&) = default;
};

struct Shape {
    Rank rank;
    std::uint32_t kv_heads = 0;  // of the whole model
    std::vector<Geometry> regions;

    std::size_t groups() const;
    friend bool operator==(const Shape&, const Shape&) = default;
};

// The heads [first, end) of the model that a rank holds. With more ranks than heads, tp_size /
// kv_heads neighbours hold the same one.
struct HeadSpan {
    std::uint32_t first = 0;
    std::uint32_t end = 0;
    std::uint32_t size() const { return end - first; }
    friend bool operator==(const HeadSpan&, const HeadSpan&) = default;
};
HeadSpan heads_of(std::uint32_t tp_rank, std::uint32_t tp_size, std::uint32_t kv_heads);

// Checks each region for itself and all of them together.
Outcome<Shape> shape_of(std::span<const Region> regions, const Rank& rank, std::uint32_t kv_heads);
// As shape_of does, of a shape that a peer sent.
Status check_shape(const Shape& shape);

// "tp 0/2, pp 0/1, 28 layers of K+V regions, 8 KV heads in all, 4 here, 256 bytes a row, 16 tokens
// a block, HND"
std::string describe(const Shape& shape);

}  // namespace sluice::kv
