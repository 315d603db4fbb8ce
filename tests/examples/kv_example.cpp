// SPDX-License-Identifier: Apache-2.0
// The KV data plane in C++: a prefill publishes blocks of two layers, a decode pulls them into its
// own. Both are nodes of this process; on two machines only `host` differs.
#include <sluice/kv.h>

#include <cstdio>
#include <string>
#include <vector>

using namespace sluice::kv;

constexpr std::uint32_t kLayers = 2, kHeads = 4, kHeadSize = 64, kTokens = 16, kBlocks = 32;
constexpr std::uint32_t kBlockBytes = kTokens * kHeads * kHeadSize * 2 * 2;  // bf16, K and V

// One tensor a layer, with K and V side by side, as vLLM has them.
std::vector<Region> regions_in(std::vector<std::vector<unsigned char>>& memory) {
    std::vector<Region> regions(kLayers);
    memory.assign(kLayers, std::vector<unsigned char>(kBlockBytes * kBlocks));
    for (std::uint32_t layer = 0; layer < kLayers; ++layer) {
        regions[layer].base = memory[layer].data();
        regions[layer].bytes = memory[layer].size();
        regions[layer].block_bytes = kBlockBytes;
        regions[layer].layer = layer;
        regions[layer].layer_name = "model.layers." + std::to_string(layer);
        regions[layer].kv_heads = kHeads;
        regions[layer].head_size = kHeadSize;
        regions[layer].element_bytes = 2;
    }
    return regions;
}

int main() {
    std::vector<std::vector<unsigned char>> p_memory, d_memory;
    const auto p_regions = regions_in(p_memory), d_regions = regions_in(d_memory);
    for (auto& layer : p_memory)
        for (std::size_t i = 0; i < layer.size(); ++i)
            layer[i] = static_cast<unsigned char>(i / kBlockBytes + 1);

    Options options;
    options.kv_heads = kHeads;
    options.token = "the pool's secret";
    options.sender_threads = 1;
    options.role = Role::Producer;
    const auto prefill = Node::create(options, p_regions);
    options.role = Role::Consumer;
    const auto decode = Node::create(options, d_regions);
    if (!prefill || !decode) {
        std::fprintf(stderr, "%s\n", (prefill ? decode : prefill).error().sentence.c_str());
        return 1;
    }

    // The prompt is computed: its KV is in blocks 7, 3 and 12.
    if (const Status status = (*prefill)->publish("request-1", {{7, 3, 12}}); !status.ok()) {
        std::fprintf(stderr, "%s\n", status.sentence.c_str());
        return 1;
    }
    const auto pull = (*decode)->pull("request-1", {"", {{(*prefill)->address()}}}, {{20, 21, 5}});
    const auto result = pull ? pull->wait_for(std::chrono::seconds(10)) : std::nullopt;
    if (!result || !result->status.ok()) {
        std::fprintf(stderr, "%s\n",
                     result ? result->status.sentence.c_str() : "the pull has not ended");
        return 1;
    }
    std::printf("%llu bytes over %s; block 20 is full of %d, block 5 of %d\n",
                static_cast<unsigned long long>(result->bytes), result->transport.c_str(),
                d_memory[1][20 * kBlockBytes], d_memory[1][5 * kBlockBytes]);
    return d_memory[1][20 * kBlockBytes] == 8 && d_memory[0][5 * kBlockBytes] == 13 ? 0 : 1;
}
