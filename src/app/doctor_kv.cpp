// SPDX-License-Identifier: Apache-2.0
#include "app/doctor_kv.h"

#include <optional>

#include "node/explain.h"

namespace sluice::app {

namespace {

constexpr std::chrono::seconds kAskTimeout{2};

}  // namespace

KvReport examine_kv_pair(const std::vector<std::string>& nodes, const std::string& token) {
    if (nodes.size() != 2)
        return {false, "--kv takes two addresses: a producer's and a consumer's\n"};
    kv::Token wire{};
    if (token.size() > wire.size())
        return {false, "--kv-token has more than " + std::to_string(wire.size()) + " bytes\n"};
    for (std::size_t i = 0; i < token.size(); ++i) wire[i] = static_cast<std::byte>(token[i]);
    std::vector<kv::Hello> peers;
    for (const std::string& text : nodes) {
        const auto address = node::node_address(text);
        if (!address) return {false, address.error().sentence + "\n"};
        auto hello = node::ask_node(*address, wire, kAskTimeout);
        if (!hello)
            return {false, text + ": " + name_of(hello.error().code) + ": " +
                               hello.error().sentence + "\n"};
        peers.push_back(std::move(*hello));
    }
    const node::Explanation made = node::explain(peers[0], peers[1]);
    return {made.ok(), made.text()};
}

}  // namespace sluice::app
