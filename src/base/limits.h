// SPDX-License-Identifier: Apache-2.0
// Every fixed limit of the loop, HTTP and the proxy, in one place. What an operator may turn is a
// flag (see `sluice proxy --help`); what is here bounds memory and work whatever the flags say.
//
// One exchange holds at most: its head (kHeadBytesMax) and body (--max-body-bytes) until the first
// byte of the answer is out, kHoldbackBytesMax of held-back answer before that, and in each
// direction kSendHighWater + one page in flight after it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/time.h"

namespace sluice::limits {

// -- memory
inline constexpr std::size_t kPageBytes = 16 * 1024;  // one recv lands in one page
inline constexpr std::size_t kBufferSlack = 64;  // readable bytes behind every buffer (simdjson)
inline constexpr std::size_t kBufferBytesMax = 1UL << 30;  // the largest single buffer

// -- io
inline constexpr unsigned kRingEntries = 1024;            // submission queue
inline constexpr unsigned kCompletionEntries = 16384;     // completion queue
inline constexpr unsigned kProvidedPages = 256;           // pages the kernel may fill at any time
inline constexpr std::uint32_t kOperationsMax = 1 << 20;  // in flight per worker
inline constexpr std::size_t kSendSlicesMax = 64;         // of one vectored send
inline constexpr std::size_t kSendHighWater =
    256 * 1024;  // unsent bytes at which the source is no longer read
inline constexpr std::size_t kSendLowWater = 64 * 1024;  // ... and at which it is read again
inline constexpr int kListenBacklog = 4096;
inline constexpr Duration kAcceptPause =
    std::chrono::milliseconds(100);  // after running out of descriptors

// -- http
inline constexpr std::size_t kHeadBytesMax = 64 * 1024;  // request or response line and fields
inline constexpr std::size_t kRequestTargetMax = 8 * 1024;
inline constexpr std::size_t kHeaderFieldsMax = 128;
inline constexpr std::size_t kChunkLineMax = 256;  // chunk size and extensions
inline constexpr std::size_t kTrailerBytesMax = 8 * 1024;
inline constexpr int kInterimResponsesMax = 8;  // 1xx before the real answer
inline constexpr int kLeadingEmptyLinesMax = 4;
inline constexpr std::size_t kPipelinedBytesMax =
    64 * 1024;  // read ahead of the request being served
inline constexpr Duration kLingerTimeout = std::chrono::seconds(2);  // to drain a refused client
inline constexpr std::size_t kLingerBytesMax = 1 << 20;

// -- proxy
inline constexpr std::size_t kHoldbackBytesMax =
    256 * 1024;  // answer kept back until its first content
inline constexpr std::size_t kPartialEventMax =
    256 * 1024;  // an SSE event longer than this is passed in parts
inline constexpr std::size_t kUpstreamErrorBytesMax =
    256 * 1024;                                            // of an error answer kept for the client
inline constexpr std::size_t kPrefillAnswerMax = 4 << 20;  // P's whole answer
inline constexpr std::size_t kInstancesMax = 64;  // of one role; retries keep a bit for each
inline constexpr std::size_t kDataParallelMax = 1024;
inline constexpr std::size_t kIdleConnectionsMax = 1024;  // per worker and instance

}  // namespace sluice::limits
