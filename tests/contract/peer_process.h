// SPDX-License-Identifier: Apache-2.0
// A node in a process of its own, which a test drives, stops and kills.
//
// The test binary starts itself with --peer; commands and answers are one packet each over a socket
// pair. Blocks are named by a seed, their content by a pattern, so that a packet describes a batch.
#pragma once

#include <sys/types.h>

#include <deque>
#include <optional>
#include <string_view>
#include <vector>

#include "contract/node.h"

namespace sluice::transport {

inline constexpr std::size_t kPoolBytes = 32 << 20;

// `blocks` blocks of `block_bytes`, in an order that `seed` decides, with their content.
struct Shape {
    std::uint32_t blocks = 1;
    std::uint32_t block_bytes = 4096;
    std::uint64_t seed = 0;

    std::vector<std::uint32_t> ids() const;
    Range range(RegionId region) const {
        return {.region = region,
                .piece_bytes = block_bytes,
                .block_stride = block_bytes,
                .block_count = blocks};
    }
    std::uint64_t bytes() const { return std::uint64_t{blocks} * block_bytes; }
};
void fill(const Memory& memory, const Shape& shape, std::uint64_t pattern);
// Bytes of the block that are not the pattern's.
std::uint64_t wrong_in_block(const Memory& memory, const Shape& shape, std::uint32_t index,
                             std::uint32_t id, std::uint64_t pattern);
std::uint64_t wrong_bytes(const Memory& memory, const Shape& shape, std::uint64_t pattern);

enum class Ask : std::uint8_t {
    Listen,
    Connect,
    Open,
    Post,
    RevokeLanding,
    RevokePost,
    ClosePeer,
    Fill,
    Wrong,
    Deregister,
    Quit
};
struct Command {
    Ask ask{};
    bool with_reset = false;
    Shape shape;
    Ticket ticket;
    std::uint64_t pattern = 0;
    char endpoint[108] = {};
};
struct Answer {
    bool ok = false;
    bool completion = false;  // nobody asked: a landing or post has ended
    Completion what;
    Ticket ticket;
    std::uint64_t number = 0;
    char endpoint[108] = {};
};

class PeerProcess {
public:
    PeerProcess(std::string_view transport, const TransportOptions& options);
    ~PeerProcess();
    PeerProcess(const PeerProcess&) = delete;
    PeerProcess& operator=(const PeerProcess&) = delete;

    // Without an answer, after a limit or from one that is dead: not ok.
    Answer ask(const Command& command);
    void tell(const Command& command);  // its answer is skipped
    std::optional<Completion> wait_completion(Duration limit = std::chrono::seconds(20));

    void stop();
    void resume();
    void kill();
    Endpoint listen();

private:
    bool receive(Answer& answer, Duration limit);

    pid_t pid_ = -1;
    int socket_ = -1;
    bool stopped_ = false;
    std::uint32_t skip_ = 0;
    Endpoint endpoint_;
    std::deque<Completion> completions_;
};

int run_peer(int argc, char** argv);

}  // namespace sluice::transport
