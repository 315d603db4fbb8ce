// SPDX-License-Identifier: Apache-2.0
/*
 * The KV data plane for C, and for everything that can call C. What it does, its shapes, threads and
 * limits are described in kv.h; this is the same, function by function.
 *
 * Every struct that is passed in begins with struct_bytes: set it to sizeof the struct, so that a
 * later library knows what an older caller has. Members that are zero mean their default. Functions
 * answer a sluice_kv_code; sluice_kv_error() has the sentence of this thread's last one that was not
 * SLUICE_KV_OK. No exception leaves the library. Texts are UTF-8, ended by a zero byte, and copied.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SLUICE_KV_ABI_VERSION 1u

typedef struct sluice_kv_node sluice_kv_node;
typedef struct sluice_kv_pull sluice_kv_pull;

/* The same numbers as sluice::kv::Code. */
typedef enum sluice_kv_code {
    SLUICE_KV_OK = 0,
    SLUICE_KV_BAD_REGION = 1,
    SLUICE_KV_BAD_OPTIONS = 2,
    SLUICE_KV_BAD_ROLE = 3,
    SLUICE_KV_BAD_BLOCKS = 4,
    SLUICE_KV_TOO_FEW_BLOCKS = 5,
    SLUICE_KV_VERSION_MISMATCH = 6,
    SLUICE_KV_SHAPE_MISMATCH = 7,
    SLUICE_KV_WRONG_TOKEN = 8,
    SLUICE_KV_ALREADY_LIVE = 9,
    SLUICE_KV_NOT_PUBLISHED = 10,
    SLUICE_KV_LIMIT_REACHED = 11,
    SLUICE_KV_TIMEOUT = 12,
    SLUICE_KV_PEER_LOST = 13,
    SLUICE_KV_PEER_RESTARTED = 14,
    SLUICE_KV_PEER_FAILED = 15,
    SLUICE_KV_ABORTED = 16,
    SLUICE_KV_EXPIRED = 17,
    SLUICE_KV_CLOSED = 18,
    SLUICE_KV_SYSTEM = 19,
    SLUICE_KV_PENDING = 1000 /* a pull has not ended yet */
} sluice_kv_code;

enum { SLUICE_KV_HOST = 0, SLUICE_KV_DEVICE = 1 };                    /* memory */
enum { SLUICE_KV_KEY = 0, SLUICE_KV_VALUE = 1, SLUICE_KV_BOTH = 2 };  /* part */
enum { SLUICE_KV_HND = 0, SLUICE_KV_NHD = 1 };                        /* layout */
enum { SLUICE_KV_PRODUCER = 0, SLUICE_KV_CONSUMER = 1, SLUICE_KV_PRODUCER_AND_CONSUMER = 2 };
enum { SLUICE_KV_PULLED = 0, SLUICE_KV_RELEASED = 1, SLUICE_KV_LEASE_EXPIRED = 2 };

typedef struct sluice_kv_region {
    size_t struct_bytes;
    uint32_t memory, part, layout;
    void* base;     /* of block 0 */
    uint64_t bytes; /* a multiple of block_stride */
    uint32_t block_bytes;
    uint32_t block_stride; /* 0: block_bytes */
    uint32_t layer;
    const char* layer_name;
    uint32_t group;
    uint32_t kv_heads; /* held by this rank */
    uint32_t head_size;
    uint32_t element_bytes;
    uint32_t shared; /* 1: memory_fd is a memfd that other processes of this host may map */
    int32_t memory_fd;
    uint64_t memory_fd_offset;
} sluice_kv_region;

typedef struct sluice_kv_options {
    size_t struct_bytes;
    uint32_t role;
    const char* engine_id;
    uint32_t tp_rank, tp_size, pp_rank, pp_size, dp_rank; /* a size of 0 means 1 */
    uint32_t kv_heads;                                    /* of the whole model */
    const char* token;                                    /* at most 32 bytes */
    const char* host;                                     /* NULL: 127.0.0.1 */
    uint16_t port;                                        /* 0: one that the kernel picks */
    const char* transports;                               /* "tcp,shm"; NULL: all that work */
    uint32_t sender_threads;                              /* 0: 10, but never more than the cores */
    uint32_t abort_timeout_ms;                            /* 0: 480,000 */
    /* A lease has ended: its blocks may be reused. On the node's thread; end: SLUICE_KV_PULLED ... */
    void (*on_lease_ended)(void* context, const char* transfer, uint32_t end);
    void* context;
} sluice_kv_options;

/* The blocks of a request: `counts[g]` ids of each of `groups` groups, one group after another. */
typedef struct sluice_kv_blocks {
    size_t struct_bytes;
    const uint32_t* ids;
    const uint32_t* counts;
    uint32_t groups;
} sluice_kv_blocks;

typedef struct sluice_kv_pull_options {
    size_t struct_bytes;
    const char* transfer;
    const char* engine_id; /* of the producer; NULL: whoever answers */
    /* Control addresses "10.0.0.2:41000": tp_size x pp_size, pp ranks of tp rank 0 first. */
    const char* const* workers;
    uint32_t tp_size, pp_size;
    sluice_kv_blocks blocks;
    uint32_t deadline_ms; /* 0: 540,000 */
    uint32_t urgency;     /* 0 normal, 1 background, 2 urgent */
} sluice_kv_pull_options;

typedef struct sluice_kv_result {
    size_t struct_bytes;
    sluice_kv_code code;
    uint64_t bytes;
    uint64_t until_known_ns; /* until the producer had published */
    uint64_t took_ns;
} sluice_kv_result;

uint32_t sluice_kv_abi_version(void);
const char* sluice_kv_error(void);             /* until this thread's next call; never NULL */
const char* sluice_kv_code_name(sluice_kv_code code);

sluice_kv_code sluice_kv_node_create(const sluice_kv_options* options,
                                     const sluice_kv_region* regions, size_t region_count,
                                     sluice_kv_node** node);
/* Every pull ends first, fenced. Not from a callback. NULL is nothing. */
void sluice_kv_node_destroy(sluice_kv_node* node);
const char* sluice_kv_node_address(const sluice_kv_node* node); /* while the node lives */

/* layers_end: layers below it are computed; UINT32_MAX: all. */
sluice_kv_code sluice_kv_publish(sluice_kv_node* node, const char* transfer,
                                 const sluice_kv_blocks* blocks, uint32_t layers_end);
sluice_kv_code sluice_kv_more_layers(sluice_kv_node* node, const char* transfer,
                                     uint32_t layers_end);
sluice_kv_code sluice_kv_release(sluice_kv_node* node, const char* transfer);

sluice_kv_code sluice_kv_pull_start(sluice_kv_node* node, const sluice_kv_pull_options* options,
                                    sluice_kv_pull** pull);
/* SLUICE_KV_PENDING if it has not ended by then; otherwise how it ended, also in `result`. */
sluice_kv_code sluice_kv_pull_wait(sluice_kv_pull* pull, uint32_t timeout_ms,
                                   sluice_kv_result* result);
/* Ends it, and returns when no byte of it can land any more. */
sluice_kv_code sluice_kv_pull_abort(sluice_kv_pull* pull, sluice_kv_result* result);
/* 1 if the i-th of the group's blocks has landed; of a pull that has ended. */
int sluice_kv_pull_landed(const sluice_kv_pull* pull, uint32_t group, uint32_t i);
void sluice_kv_pull_free(sluice_kv_pull* pull); /* it goes on if it has not ended */

/* Prometheus text. Answers its length without the zero byte; writes as much of it as fits. */
size_t sluice_kv_metrics(const sluice_kv_node* node, char* text, size_t capacity);

#ifdef __cplusplus
}
#endif
