// SPDX-License-Identifier: Apache-2.0
// The C ABI (include/sluice/kv_c.h) over the C++ API.
#include <sluice/kv.h>
#include <sluice/kv_c.h>

#include <algorithm>
#include <cstring>
#include <exception>

namespace kv = sluice::kv;

struct sluice_kv_node {
    std::unique_ptr<kv::Node> node;
};
struct sluice_kv_pull {
    kv::PullHandle handle;
    std::optional<kv::PullResult> result;
};

namespace {

static_assert(SLUICE_KV_SYSTEM == static_cast<int>(kv::Code::System));
static_assert(SLUICE_KV_SHAPE_MISMATCH == static_cast<int>(kv::Code::ShapeMismatch));
static_assert(SLUICE_KV_BOTH == static_cast<int>(kv::Part::KeyValue));
static_assert(SLUICE_KV_PRODUCER_AND_CONSUMER == static_cast<int>(kv::Role::Both));
static_assert(SLUICE_KV_LEASE_EXPIRED == static_cast<int>(kv::LeaseEnding::Expired));

thread_local std::string last_error;

sluice_kv_code code_of(const kv::Status& status) {
    if (!status.ok()) last_error = status.sentence;
    return static_cast<sluice_kv_code>(status.code);
}
sluice_kv_code bad(const char* what) { return code_of({kv::Code::BadOptions, what}); }

// Nothing that C++ throws (it can only be for lack of memory) leaves.
template <class F>
sluice_kv_code guarded(F&& work) noexcept {
    try {
        return work();
    } catch (const std::exception& failed) {
        try {
            last_error = failed.what();
        } catch (...) {
        }
        return SLUICE_KV_SYSTEM;
    }
}

// What the caller has of a struct; the rest is zero. False: it is no such struct.
template <class T>
bool take(const T* given, T& taken) {
    if (given == nullptr || given->struct_bytes < sizeof(std::size_t)) return false;
    std::memset(static_cast<void*>(&taken), 0, sizeof(T));
    std::memcpy(static_cast<void*>(&taken), given, std::min(given->struct_bytes, sizeof(T)));
    return true;
}

const char* text(const char* given) { return given == nullptr ? "" : given; }

bool read_blocks(const sluice_kv_blocks* given, kv::BlocksByGroup& blocks) {
    sluice_kv_blocks taken;
    if (!take(given, taken) || taken.groups > 64) return false;
    if (taken.groups > 0 && taken.counts == nullptr) return false;
    const std::uint32_t* ids = taken.ids;
    for (std::uint32_t g = 0; g < taken.groups; ++g) {
        if (taken.counts[g] > 0 && ids == nullptr) return false;
        blocks.emplace_back(ids, ids + taken.counts[g]);
        ids += taken.counts[g];
    }
    return true;
}

bool read_region(const sluice_kv_region* given, kv::Region& region) {
    sluice_kv_region taken;
    if (!take(given, taken) || taken.memory > SLUICE_KV_DEVICE || taken.part > SLUICE_KV_BOTH ||
        taken.layout > SLUICE_KV_NHD)
        return false;
    region.memory = static_cast<kv::MemoryKind>(taken.memory);
    region.part = static_cast<kv::Part>(taken.part);
    region.layout = static_cast<kv::Layout>(taken.layout);
    region.base = taken.base;
    region.bytes = taken.bytes;
    region.block_bytes = taken.block_bytes;
    region.block_stride = taken.block_stride;
    region.layer = taken.layer;
    region.layer_name = text(taken.layer_name);
    region.group = taken.group;
    region.kv_heads = taken.kv_heads;
    region.head_size = taken.head_size;
    region.element_bytes = taken.element_bytes;
    region.memory_fd = taken.shared != 0 ? taken.memory_fd : -1;
    region.memory_fd_offset = taken.memory_fd_offset;
    return true;
}

std::vector<std::string> split(const char* list) {
    std::vector<std::string> words;
    for (std::string_view left = text(list); !left.empty();) {
        const std::size_t end = std::min(left.find(','), left.size());
        words.emplace_back(left.substr(0, end));
        left.remove_prefix(std::min(end + 1, left.size()));
    }
    return words;
}

kv::Options options_of(const sluice_kv_options& given) {
    kv::Options options;
    options.role = static_cast<kv::Role>(given.role);
    options.engine_id = text(given.engine_id);
    options.rank = {given.tp_rank, std::max(given.tp_size, 1U), given.pp_rank,
                    std::max(given.pp_size, 1U), given.dp_rank};
    options.kv_heads = given.kv_heads;
    options.token = text(given.token);
    if (given.host != nullptr) options.host = given.host;
    options.port = given.port;
    options.transports = split(given.transports);
    options.sender_threads = given.sender_threads;
    if (given.abort_timeout_ms != 0)
        options.abort_timeout = std::chrono::milliseconds(given.abort_timeout_ms);
    if (given.on_lease_ended != nullptr)
        options.on_lease_ended = [call = given.on_lease_ended, context = given.context](
                                     const std::string& transfer, const kv::BlocksByGroup&,
                                     kv::LeaseEnding end) {
            call(context, transfer.c_str(), static_cast<std::uint32_t>(end));
        };
    return options;
}

sluice_kv_code tell(sluice_kv_pull& pull, sluice_kv_result* out) {
    const kv::PullResult& result = *pull.result;
    if (out != nullptr && out->struct_bytes >= sizeof(std::size_t)) {
        sluice_kv_result told;
        std::memset(&told, 0, sizeof told);
        told.struct_bytes = out->struct_bytes;
        told.code = static_cast<sluice_kv_code>(result.status.code);
        told.bytes = result.bytes;
        told.until_known_ns = static_cast<std::uint64_t>(result.until_known.count());
        told.took_ns = static_cast<std::uint64_t>(result.took.count());
        std::memcpy(out, &told, std::min(out->struct_bytes, sizeof told));
    }
    return code_of(result.status);
}

}  // namespace

extern "C" {

uint32_t sluice_kv_abi_version(void) { return SLUICE_KV_ABI_VERSION; }
const char* sluice_kv_error(void) { return last_error.c_str(); }
const char* sluice_kv_code_name(sluice_kv_code code) {
    return code == SLUICE_KV_PENDING ? "Pending" : kv::name_of(static_cast<kv::Code>(code));
}

sluice_kv_code sluice_kv_node_create(const sluice_kv_options* options,
                                     const sluice_kv_region* regions, size_t region_count,
                                     sluice_kv_node** node) {
    return guarded([&] {
        sluice_kv_options taken;
        if (node == nullptr) return bad("node is NULL");
        *node = nullptr;
        if (!take(options, taken) || taken.role > SLUICE_KV_PRODUCER_AND_CONSUMER)
            return bad("options are NULL, without struct_bytes, or of an unknown role");
        if (regions == nullptr && region_count > 0) return bad("regions is NULL");
        std::vector<kv::Region> all(region_count);
        const auto* at = reinterpret_cast<const unsigned char*>(regions);
        for (kv::Region& region : all) {
            // The caller's array has the caller's size of the struct.
            const auto* each = reinterpret_cast<const sluice_kv_region*>(at);
            if (!read_region(each, region))
                return bad(
                    "a region is without struct_bytes or has an unknown memory, part or layout");
            at += each->struct_bytes;
        }
        auto made = kv::Node::create(options_of(taken), all);
        if (!made) return code_of(made.error());
        *node = new sluice_kv_node{std::move(*made)};
        return SLUICE_KV_OK;
    });
}

void sluice_kv_node_destroy(sluice_kv_node* node) { delete node; }

const char* sluice_kv_node_address(const sluice_kv_node* node) {
    return node == nullptr ? "" : node->node->address().c_str();
}

sluice_kv_code sluice_kv_publish(sluice_kv_node* node, const char* transfer,
                                 const sluice_kv_blocks* blocks, uint32_t layers_end) {
    return guarded([&] {
        kv::BlocksByGroup ids;
        if (node == nullptr || !read_blocks(blocks, ids)) return bad("node or blocks are missing");
        return code_of(node->node->publish(text(transfer), std::move(ids), layers_end));
    });
}

sluice_kv_code sluice_kv_more_layers(sluice_kv_node* node, const char* transfer,
                                     uint32_t layers_end) {
    return guarded([&] {
        if (node == nullptr) return bad("node is NULL");
        return code_of(node->node->more_layers(text(transfer), layers_end));
    });
}

sluice_kv_code sluice_kv_release(sluice_kv_node* node, const char* transfer) {
    return guarded([&] {
        if (node == nullptr) return bad("node is NULL");
        node->node->release(text(transfer));
        return SLUICE_KV_OK;
    });
}

sluice_kv_code sluice_kv_pull_start(sluice_kv_node* node, const sluice_kv_pull_options* options,
                                    sluice_kv_pull** pull) {
    return guarded([&] {
        sluice_kv_pull_options taken;
        if (pull == nullptr) return bad("pull is NULL");
        *pull = nullptr;
        kv::BlocksByGroup ids;
        if (node == nullptr || !take(options, taken) || !read_blocks(&taken.blocks, ids))
            return bad("node, options or blocks are missing");
        kv::Producer producer;
        producer.engine_id = text(taken.engine_id);
        if (taken.workers == nullptr || taken.tp_size > 1024 || taken.pp_size > 1024)
            return bad("workers is NULL, or there are more than 1024 ranks");
        for (std::uint32_t tp = 0; tp < taken.tp_size; ++tp) {
            auto& stages = producer.workers.emplace_back();
            for (std::uint32_t pp = 0; pp < taken.pp_size; ++pp)
                stages.emplace_back(text(taken.workers[tp * taken.pp_size + pp]));
        }
        constexpr kv::Urgency kUrgencies[] = {kv::Urgency::Normal, kv::Urgency::Background,
                                              kv::Urgency::Urgent};
        if (taken.urgency >= std::size(kUrgencies)) return bad("urgency is 0, 1 or 2");
        kv::PullOptions how;
        how.urgency = kUrgencies[taken.urgency];
        if (taken.deadline_ms != 0) how.deadline = std::chrono::milliseconds(taken.deadline_ms);
        auto started = node->node->pull(text(taken.transfer), producer, std::move(ids), how);
        if (!started) return code_of(started.error());
        *pull = new sluice_kv_pull{std::move(*started), std::nullopt};
        return SLUICE_KV_OK;
    });
}

sluice_kv_code sluice_kv_pull_wait(sluice_kv_pull* pull, uint32_t timeout_ms,
                                   sluice_kv_result* result) {
    return guarded([&] {
        if (pull == nullptr) return bad("pull is NULL");
        if (!pull->result)
            pull->result = pull->handle.wait_for(std::chrono::milliseconds(timeout_ms));
        return pull->result ? tell(*pull, result) : SLUICE_KV_PENDING;
    });
}

sluice_kv_code sluice_kv_pull_abort(sluice_kv_pull* pull, sluice_kv_result* result) {
    return guarded([&] {
        if (pull == nullptr) return bad("pull is NULL");
        if (!pull->result) pull->result = pull->handle.abort();
        return tell(*pull, result);
    });
}

int sluice_kv_pull_landed(const sluice_kv_pull* pull, uint32_t group, uint32_t i) {
    return pull != nullptr && pull->result && pull->result->has_landed(group, i) ? 1 : 0;
}

void sluice_kv_pull_free(sluice_kv_pull* pull) { delete pull; }

size_t sluice_kv_metrics(const sluice_kv_node* node, char* out, size_t capacity) {
    std::size_t size = 0;
    (void)guarded([&] {
        if (node == nullptr) return SLUICE_KV_OK;
        const std::string metrics = node->node->metrics();
        size = metrics.size();
        if (out != nullptr && capacity > 0) {
            const std::size_t fits = std::min(size, capacity - 1);
            std::memcpy(out, metrics.data(), fits);
            out[fits] = '\0';
        }
        return SLUICE_KV_OK;
    });
    return size;
}

}  // extern "C"
