// SPDX-License-Identifier: Apache-2.0
// What an operation in flight holds for the kernel: its buffers, its address, its vector. Private
// to uring_io.
#pragma once

#include <sys/socket.h>
#include <sys/uio.h>

#include <memory>

#include "base/limits.h"
#include "io/io.h"

namespace sluice::io {

// A vectored send in flight: what the kernel reads, and what keeps it alive.
struct SendState {
    msghdr message{};
    iovec vectors[limits::kSendSlicesMax];
    BufferRef held[limits::kSendSlicesMax];
    std::size_t count = 0;
    std::size_t bytes = 0;
};

struct Operation {
    OpKind kind{};
    Socket socket = kNoSocket;
    OpTarget* target = nullptr;
    BufferRef buffer;  // receive_into
    std::uint32_t offset = 0;
    std::uint32_t size = 0;
    bool starved = false;    // waits for a page
    bool cancelled = false;  // ... and is no longer wanted
    Address peer;            // connect
    std::unique_ptr<SendState> sending;
};

}  // namespace sluice::io
