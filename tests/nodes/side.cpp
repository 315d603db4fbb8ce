// SPDX-License-Identifier: Apache-2.0
#include "nodes/side.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstring>

#include "base/assert.h"

namespace sluice::kv::test {
namespace {

constexpr int kDescriptorsLookedAt = 256;
constexpr std::uint64_t kClear = 0xCDCDCDCDCDCDCDCD;

std::uint64_t word(std::uint64_t pattern, std::uint32_t layer, std::uint32_t id, std::uint64_t at) {
    return pattern * 0x9E3779B97F4A7C15u ^ std::uint64_t{layer} << 56 ^ std::uint64_t{id} << 40 ^
           at;
}

}  // namespace

Side::Side(Role role, const std::string& transport, std::uint16_t port) {
    fd_ = memfd_create("pool", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    ASSERT(fd_ >= 0 && ftruncate(fd_, kPoolBytes) == 0 &&
           fcntl(fd_, F_ADD_SEALS, F_SEAL_SHRINK) == 0);
    void* mapped = mmap(nullptr, kPoolBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd_, 0);
    ASSERT(mapped != MAP_FAILED);
    base_ = static_cast<std::byte*>(mapped);
    clear();
    std::vector<Region> regions(kLayers);
    for (std::uint32_t layer = 0; layer < kLayers; ++layer) {
        Region& region = regions[layer];
        region.base = block(layer, 0);
        region.bytes = std::uint64_t{kBlocks} * kBlockBytes;
        region.block_bytes = kBlockBytes;
        region.layer = layer;
        region.layer_name = "layers." + std::to_string(layer);
        region.kv_heads = 4;
        region.head_size = kHeadSize;
        region.element_bytes = 2;
        region.memory_fd = fd_;
        region.memory_fd_offset = std::uint64_t{layer} * kBlocks * kBlockBytes;
    }
    Options options;
    options.role = role;
    options.engine_id = role == Role::Producer ? "p" : "c";
    options.kv_heads = 4;
    options.token = kToken;
    options.port = port;
    options.transports = {transport};
    options.sender_threads = 2;
    options.on_lease_ended = [this](const std::string&, const BlocksByGroup&, LeaseEnding) {
        leases_ended_.fetch_add(1);
    };
    auto node = Node::create(options, regions);
    if (!node) std::fprintf(stderr, "%s\n", node.error().sentence.c_str());
    ASSERT(node.has_value());
    node_ = std::move(*node);
}

Side::~Side() {
    node_.reset();
    munmap(base_, kPoolBytes);
    ::close(fd_);
}

BlocksByGroup Side::producer_blocks(std::uint32_t first, std::uint32_t count) {
    BlocksByGroup blocks(1);
    for (std::uint32_t i = 0; i < count; ++i) blocks[0].push_back(kBlocks - 1 - first - i);
    return blocks;
}
BlocksByGroup Side::consumer_blocks(std::uint32_t first, std::uint32_t count) {
    BlocksByGroup blocks(1);
    for (std::uint32_t i = 0; i < count; ++i) blocks[0].push_back((first + i) * 7 % kBlocks);
    return blocks;
}

void Side::fill(std::uint64_t pattern) {
    for (std::uint32_t layer = 0; layer < kLayers; ++layer)
        for (std::uint32_t id = 0; id < kBlocks; ++id)
            for (std::uint64_t at = 0; at < kBlockBytes; at += 8) {
                const std::uint64_t value = word(pattern, layer, id, at);
                std::memcpy(block(layer, id) + at, &value, 8);
            }
}

void Side::clear() const { std::memset(base_, 0xCD, kPoolBytes); }

// May look while bytes are landing, to see that they do.
__attribute__((no_sanitize("thread"))) std::uint64_t Side::bytes_not_clear() const {
    std::uint64_t count = 0;
    for (std::uint64_t i = 0; i < kPoolBytes; i += 8) {
        std::uint64_t word = 0;
        __builtin_memcpy(&word, base_ + i, 8);
        if (word != kClear) count += 8;
    }
    return count;
}

std::uint64_t Side::wrong(std::uint32_t first, std::uint32_t i, std::uint64_t pattern) const {
    const BlockId from = producer_blocks(first + i, 1)[0][0];
    const BlockId to = consumer_blocks(first + i, 1)[0][0];
    std::uint64_t count = 0;
    for (std::uint32_t layer = 0; layer < kLayers; ++layer)
        for (std::uint64_t at = 0; at < kBlockBytes; at += 8) {
            const std::uint64_t value = word(pattern, layer, from, at);
            if (std::memcmp(block(layer, to) + at, &value, 8) != 0) count += 8;
        }
    return count;
}

std::uint64_t Side::metric(const std::string& line_without_value) const {
    const std::string text = node_->metrics();
    const std::size_t at = text.find("\n" + line_without_value + " ");
    if (at == std::string::npos) return UINT64_MAX;
    return std::strtoull(text.c_str() + at + line_without_value.size() + 2, nullptr, 10);
}

int tcp_data_port(const std::string& control_address) {
    const int control = std::stoi(control_address.substr(control_address.rfind(':') + 1));
    for (int fd = 0; fd < kDescriptorsLookedAt; ++fd) {
        int listening = 0;
        socklen_t size = sizeof listening;
        sockaddr_in bound{};
        if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &size) != 0 || listening == 0)
            continue;
        size = sizeof bound;
        if (getsockname(fd, reinterpret_cast<sockaddr*>(&bound), &size) != 0 ||
            bound.sin_family != AF_INET)
            continue;
        if (ntohs(bound.sin_port) != control) return ntohs(bound.sin_port);
    }
    return -1;
}

}  // namespace sluice::kv::test
