// SPDX-License-Identifier: Apache-2.0
// What one transfer engine tells another about itself in a metadata handshake.
//
//   {"name": "10.0.0.2:15123", "protocol": "tcp", "tcp_data_host": "10.0.0.2", "tcp_data_port":
//   16001,
//    "tcp_proto_version": 2, "buffers": [{"name", "addr", "length"}], "timestamp": "..."}
//
// Before version 2 the member for it is left out. Ours has one more, which engines pass over:
// `sluice_node`, this process's number.
//
// Threads: values. Errors: a clause.
#pragma once

#include <cstdint>
#include <expected>
#include <string>
#include <string_view>

namespace sluice::transport::mooncake {

struct Segment {
    std::string name;       // "host:port of the handshake"; what others cache it by
    std::string data_host;  // empty before 0.3.13: the name's
    std::uint16_t data_port = 0;
    std::uint32_t version = 1;
    std::uint64_t first_address = 0;  // of its first buffer: an address that can be asked for
    std::uint64_t first_bytes = 0;    // 0: no memory is registered
    std::uint64_t node = 0;           // 0: not one of ours
};

inline constexpr std::size_t kSegmentNameMax = 256;

std::string write_segment(const Segment& segment);
std::expected<Segment, const char*> read_segment(std::string_view json);

}  // namespace sluice::transport::mooncake
