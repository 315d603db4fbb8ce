// SPDX-License-Identifier: Apache-2.0
// Every fixed limit of the KV data plane above its transports, in one place. Whoever hits one is
// told so by name.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/time.h"

namespace sluice::kv::limits {

// -- layout
inline constexpr std::size_t kRegionsMax = 1024;        // of one node
inline constexpr std::size_t kGroupsMax = 16;           // KV cache groups
inline constexpr std::size_t kLayerNameBytesMax = 256;  // "model.layers.61.self_attn.attn" has 30
inline constexpr std::uint32_t kBlocksMax = 1U << 26;   // of one region
inline constexpr std::uint32_t kBlockBytesMax = 1U << 30;
inline constexpr std::uint32_t kParallelMax = 1024;  // tensor or pipeline ranks

// -- one transfer
inline constexpr std::size_t kTransferIdBytesMax = 256;
inline constexpr std::size_t kTransferBlocksMax = 1U << 20;  // 16 M tokens at 16 a block

// -- one node
inline constexpr std::size_t kLeasesMax = 65536;        // published and not ended
inline constexpr std::size_t kWaitingPullsMax = 16384;  // pulls before their publish
inline constexpr std::size_t kPullsMax = 65536;         // as a consumer, not ended
inline constexpr std::size_t kPeersMax = 1024;
inline constexpr std::size_t kCommandsMax = 4096;  // handed to the node's thread, not yet taken

// -- messages
inline constexpr std::size_t kMessageBytesMax = 1U << 20;  // a hello of kRegionsMax regions
inline constexpr std::size_t kTokenBytesMax = 256;
inline constexpr std::size_t kEngineIdBytesMax = 256;
inline constexpr std::size_t kSentenceBytesMax = 1024;
inline constexpr std::size_t kUnsentBytesMax = 4U << 20;  // of one control connection

// -- time
inline constexpr Duration kHeartbeat = std::chrono::milliseconds(250);
inline constexpr Duration kSilenceMax = std::chrono::milliseconds(1000);  // a peer is lost
inline constexpr Duration kHelloTimeout = std::chrono::seconds(2);
inline constexpr Duration kAbortBound = std::chrono::milliseconds(50);

}  // namespace sluice::kv::limits
