// SPDX-License-Identifier: Apache-2.0
// What vLLM's Mooncake workers say to each other over the side channel, 0.16 to 0.33: D's pull
// (MooncakeXferMetadata) and P's responses to it (MooncakeXferResponse). Both are MessagePack maps
// by member name; members at their default are left out, unknown ones are ignored.
//
//   pull      {req_blocks: {d_req_id: [transfer_id, blocks]}, remote_hostname, remote_port,
//              remote_tp_size, remote_tp_rank, ... addresses and layout of D}
//   response  {status: 0 FINISH | 1 CONTINUE | 2 ERROR | 3 LAYOUT_MISS, ok_reqs, err_reqs, err_msg,
//              layout_id}
// `blocks` is a list of lists, one for each KV group, and a flat list in 0.16. A pull gets any
// number of CONTINUE and one FINISH or ERROR.
//
// Messages are read as views and forwarded with single members changed: everything else, known or
// not, stays byte for byte. Threads: any. Owns: views into the message's bytes. Costs: one pass.
// Errors: a clause.
#pragma once

#include <cstdint>
#include <expected>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace sluice::mooncake {

// A layout of 128 layers with names and lengths, and the block ids of a step's requests, are some
// hundred KiB.
inline constexpr std::size_t kMessageBytesMax = 8 << 20;
inline constexpr std::size_t kMembersMax = 64;
inline constexpr std::size_t kItemsMax = 4096;  // requests of one pull
inline constexpr std::size_t kIdBytesMax = 512;

struct Member {
    std::string_view key;
    std::string_view raw;  // the value
};

struct PullItem {
    std::string_view request;   // D's id
    std::string_view transfer;  // ours
    std::string_view blocks;    // raw
};

// How many block ids a PullItem has in its largest group; none: P may free its own.
std::uint32_t block_count(std::string_view blocks);
std::vector<std::uint32_t> block_ids(std::string_view blocks);  // of the first group

struct Pull {
    std::vector<Member> members;  // all, in their order
    std::vector<PullItem> items;
    std::string_view host;
    std::uint32_t port = 0;
    std::uint32_t tp_rank = 0;
    std::uint32_t tp_size = 1;
    std::uint32_t pp_size = 1;

    std::string_view member(std::string_view key) const;  // raw, or empty
};

enum class Status : std::uint8_t { Finish = 0, Continue = 1, Error = 2, LayoutMiss = 3 };

struct Response {
    std::vector<Member> members;
    Status status = Status::Finish;
    std::vector<std::string_view> ok;
    std::vector<std::string_view> failed;
    std::string_view message;
};

std::expected<Pull, const char*> read_pull(std::string_view bytes);
std::expected<Response, const char*> read_response(std::string_view bytes);

// The same pull for these of its requests only.
std::string write_pull(const Pull& pull, std::span<const PullItem> items);
// The same pull for one request of the sender's own naming, which wants no block: P frees what it
// holds for the transfer.
std::string write_empty_pull(const Pull& like, std::string_view request, std::string_view transfer);
// The same response with another status, and without a layout_id: who passes it on has not stored
// the layout that it would vouch for.
std::string write_response(const Response& response, Status status);
std::string write_response(Status status, std::span<const std::string_view> ok,
                           std::span<const std::string_view> failed, std::string_view message);

}  // namespace sluice::mooncake
