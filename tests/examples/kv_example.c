/* SPDX-License-Identifier: Apache-2.0
 * The KV data plane in C: a prefill publishes a layer's blocks, a decode pulls them into its own. */
#include <sluice/kv_c.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HEADS = 4, HEAD_SIZE = 64, TOKENS = 16, BLOCKS = 32 };
enum { BLOCK_BYTES = TOKENS * HEADS * HEAD_SIZE * 2 * 2 }; /* bf16, K and V */

static unsigned char prefill_memory[BLOCKS][BLOCK_BYTES];
static unsigned char decode_memory[BLOCKS][BLOCK_BYTES];

static void must(sluice_kv_code code) {
    if (code == SLUICE_KV_OK) return;
    fprintf(stderr, "%s: %s\n", sluice_kv_code_name(code), sluice_kv_error());
    exit(1);
}

static sluice_kv_node* start(uint32_t role, void* memory) {
    sluice_kv_region region = {.struct_bytes = sizeof region,
                               .part = SLUICE_KV_BOTH,
                               .layout = SLUICE_KV_HND,
                               .base = memory,
                               .bytes = (uint64_t)BLOCKS * BLOCK_BYTES,
                               .block_bytes = BLOCK_BYTES,
                               .layer_name = "model.layers.0",
                               .kv_heads = HEADS,
                               .head_size = HEAD_SIZE,
                               .element_bytes = 2};
    sluice_kv_options options = {.struct_bytes = sizeof options,
                                 .role = role,
                                 .kv_heads = HEADS,
                                 .token = "the pool's secret",
                                 .sender_threads = 1};
    sluice_kv_node* node = NULL;
    must(sluice_kv_node_create(&options, &region, 1, &node));
    return node;
}

int main(void) {
    for (int i = 0; i < BLOCKS; ++i) memset(prefill_memory[i], i + 1, BLOCK_BYTES);
    sluice_kv_node* prefill = start(SLUICE_KV_PRODUCER, prefill_memory);
    sluice_kv_node* decode = start(SLUICE_KV_CONSUMER, decode_memory);

    /* The prompt is computed: its KV is in blocks 7, 3 and 12. */
    const uint32_t from[] = {7, 3, 12}, to[] = {20, 21, 5}, count = 3;
    sluice_kv_blocks published = {sizeof published, from, &count, 1};
    must(sluice_kv_publish(prefill, "request-1", &published, UINT32_MAX));

    const char* const workers[] = {sluice_kv_node_address(prefill)};
    sluice_kv_pull_options how = {.struct_bytes = sizeof how,
                                  .transfer = "request-1",
                                  .workers = workers,
                                  .tp_size = 1,
                                  .pp_size = 1,
                                  .blocks = {sizeof(sluice_kv_blocks), to, &count, 1}};
    sluice_kv_pull* pull = NULL;
    must(sluice_kv_pull_start(decode, &how, &pull));
    sluice_kv_result result = {.struct_bytes = sizeof result};
    must(sluice_kv_pull_wait(pull, 10000, &result));
    printf("%llu bytes; block 20 is full of %d, block 5 of %d\n", (unsigned long long)result.bytes,
           decode_memory[20][0], decode_memory[5][BLOCK_BYTES - 1]);
    const int good = decode_memory[20][0] == 8 && decode_memory[5][BLOCK_BYTES - 1] == 13 &&
                     sluice_kv_pull_landed(pull, 0, 2);

    sluice_kv_pull_free(pull);
    sluice_kv_node_destroy(decode);
    sluice_kv_node_destroy(prefill);
    return good ? 0 : 1;
}
