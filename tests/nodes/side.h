// SPDX-License-Identifier: Apache-2.0
// One end of the data plane as an engine has it: a node of the public API over a pool that other
// processes can map. The test has one; the other is in a process of its own (peer.h).
#pragma once

#include <sluice/kv.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <string>

namespace sluice::kv::test {

inline constexpr std::uint32_t kLayers = 4;
inline constexpr std::uint32_t kBlocks = 64;
#ifdef SLUICE_SLOW_BUILD
inline constexpr std::uint32_t kHeadSize = 64;
#else
inline constexpr std::uint32_t kHeadSize = 256;
#endif
inline constexpr std::uint32_t kBlockBytes = 16 * 4 * kHeadSize * 2 * 2;  // 16 tokens, 4 heads
inline constexpr std::uint64_t kPoolBytes = std::uint64_t{kLayers} * kBlocks * kBlockBytes;
inline constexpr char kToken[] = "secret";

class Side {
public:
    Side(Role role, const std::string& transport, std::uint16_t port = 0);
    ~Side();
    Side(const Side&) = delete;
    Side& operator=(const Side&) = delete;

    Node& operator*() { return *node_; }
    Node* operator->() { return node_.get(); }

    // The blocks of a transfer. Both ends name as many, in orders that merge nowhere.
    static BlocksByGroup producer_blocks(std::uint32_t first, std::uint32_t count);
    static BlocksByGroup consumer_blocks(std::uint32_t first, std::uint32_t count);

    void fill(std::uint64_t pattern);       // every byte is its place's, of that pattern
    void clear() const;                     // every byte 0xCD
    std::uint64_t bytes_not_clear() const;  // in words of 8
    std::uint64_t leases_ended() const { return leases_ended_.load(); }
    // Of the i-th blocks of a transfer, in all layers: bytes that are not what a producer that was
    // filled with `pattern` had there.
    std::uint64_t wrong(std::uint32_t first, std::uint32_t i, std::uint64_t pattern) const;
    std::uint64_t metric(const std::string& line_without_value) const;

private:
    std::byte* block(std::uint32_t layer, std::uint32_t id) const {
        return base_ + (std::uint64_t{layer} * kBlocks + id) * kBlockBytes;
    }

    std::atomic<std::uint64_t> leases_ended_{0};
    int fd_ = -1;
    std::byte* base_ = nullptr;
    std::unique_ptr<Node> node_;
};

// Where the TCP data plane of this process's only node listens: the kernel knows.
int tcp_data_port(const std::string& control_address);

}  // namespace sluice::kv::test
