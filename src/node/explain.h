// SPDX-License-Identifier: Apache-2.0
// Why two nodes move their blocks as they do: the transport that is used, why each other one is
// not, and what may be expected of it. Printed by `sluice doctor --kv`.
// Threads: values. Errors: a pair that does not fit is explained as such.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "io/address.h"
#include "kv/message.h"

namespace sluice::node {

struct TransportVerdict {
    std::string transport;
    bool used = false;
    std::string reason;            // why not, or what speaks for it
    double expected_gb_per_s = 0;  // decimal; 0: nobody has measured it
};

struct Explanation {
    kv::Status fit;  // whether the shapes pair, with both shown
    std::vector<TransportVerdict> transports;
    std::string producer, consumer;  // described
    std::uint64_t block_bytes = 0;   // moved between these two for one block of every group
    std::uint32_t ranges = 0;
    std::uint32_t piece_bytes = 0;  // the smallest contiguous piece

    bool ok() const;  // they can exchange blocks
    std::string text() const;
};

Explanation explain(const kv::Hello& producer, const kv::Hello& consumer);

// "10.0.0.2:41000", "[::1]:41000", also with tcp:// before it.
kv::Outcome<io::Address> node_address(std::string_view text);

// Asks a running node who it is. Blocking, with a time-out; for tools.
kv::Outcome<kv::Hello> ask_node(const io::Address& address, const kv::Token& token,
                                Duration timeout);

}  // namespace sluice::node
