// SPDX-License-Identifier: Apache-2.0
// What two processes of one host tell each other over their unix socket (payloads of frames).
//
//   Regions   once, with the descriptors: which memory I share, and the page of my posts' fences
//   Grant     one part of a post: my blocks and which of them to take; valid while the post's cell
//             holds this epoch
//
// Threads: values. Errors: nothing that does not fit is read; addresses are checked by Placement.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <vector>

#include "transport/transport.h"

namespace sluice::transport {

inline constexpr std::size_t kSharedDescriptorsMax = 200;

struct SharedRegion {
    std::uint32_t id = 0;
    std::uint32_t descriptor = 0;  // of those that came with the message
    std::uint64_t offset = 0;
    std::uint64_t bytes = 0;
};
// The fences' page is descriptor 0.
std::vector<std::byte> write_regions(std::span<const SharedRegion> regions);
std::optional<std::vector<SharedRegion>> read_regions(std::span<const std::byte> message);

struct Grant {
    std::uint64_t epoch = 0;  // of the post; what its cell holds
    std::uint32_t cell = 0;
    std::uint32_t first_range = 0;  // of the landing
    std::uint64_t first_unit = 0;   // of the post
    std::uint64_t units = 0;
    Priority priority = Priority::Normal;
};
void write_grant(const Grant& grant, const Batch& batch, std::vector<std::byte>& out);
// Into vectors that keep their memory. False: it is no grant.
bool read_grant(std::span<const std::byte> message, Grant& grant, std::vector<Range>& ranges,
                std::vector<std::uint32_t>& blocks);

}  // namespace sluice::transport
