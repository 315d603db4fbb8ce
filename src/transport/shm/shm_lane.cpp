// SPDX-License-Identifier: Apache-2.0
#include "transport/shm/shm_lane.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

namespace sluice::transport {
namespace {

constexpr std::uint64_t kSliceBytes = 256 * 1024;  // copied between two looks at fence and cell
constexpr int kSlicesPerTurn = 4;
constexpr unsigned kLowEvery = 16;  // see parts.h
constexpr std::size_t kCopiesMax = kPostsMax;

// The first lines of the piece after the one being copied. In a used pool each is on pages of its
// own, where the processor's own look-ahead ends; this hides their TLB and cache misses.
constexpr std::size_t kLineBytes = 64;
constexpr std::size_t kLinesAhead = 4;
void fetch_ahead(const std::byte* source, std::byte* target, std::size_t bytes) {
    for (std::size_t at = 0; at < std::min(bytes, kLinesAhead * kLineBytes); at += kLineBytes) {
        __builtin_prefetch(source + at, 0);
        __builtin_prefetch(target + at, 1);
    }
}

void copy_bytes(const Placement& source, Place from, const Placement& target, Place to,
                std::uint64_t bytes) {
    std::span<const std::byte> ready;  // found, and being fetched
    std::byte* ready_target = nullptr;
    while (bytes > 0) {
        Place ahead = from;
        const auto piece = source.next(ahead, bytes);
        const auto place = target.next(to, piece.size());  // may be shorter
        from = ahead;
        from.offset -= piece.size() - place.size();
        bytes -= place.size();
        fetch_ahead(piece.data(), place.data(), place.size());
        if (!ready.empty()) std::memcpy(ready_target, ready.data(), ready.size());
        ready = piece.first(place.size());
        ready_target = place.data();
    }
    if (!ready.empty()) std::memcpy(ready_target, ready.data(), ready.size());
}

}  // namespace

// -- fences

Result<void> FenceCells::create() {
    fd_ = memfd_create("sluice-kv-fences", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd_ < 0) return fail_errno();
    if (ftruncate(fd_, kBytes) != 0 || fcntl(fd_, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) != 0)
        return fail_errno();
    void* page = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd_, 0);
    if (page == MAP_FAILED) return fail_errno();
    cells_ = static_cast<std::atomic<std::uint64_t>*>(page);
    return {};
}

FenceCells::~FenceCells() {
    if (cells_ != nullptr) munmap(static_cast<void*>(cells_), kBytes);
    if (fd_ >= 0) ::close(fd_);
}

void FenceCells::open(std::uint32_t cell, std::uint64_t epoch) {
    cells_[cell].store(epoch, std::memory_order_release);
}

void FenceCells::close(std::uint32_t cell) {
#ifndef SLUICE_TEST_UNFENCED
    cells_[cell].store(0, std::memory_order_seq_cst);
    // The owner's next writes into its blocks come after it for every reader.
    std::atomic_thread_fence(std::memory_order_seq_cst);
#else
    (void)cell;
#endif
}

// -- the lane

struct ShmLane::Copy : ListNode<Copy> {
    FrameHeader about;
    Grant grant;
    std::vector<Range> ranges;
    std::vector<std::uint32_t> blocks;
    Placement source;
    Place place;
    std::uint64_t units_left = 0;
    bool shapes_match = false;
};

ShmLane::ShmLane(const LaneContext& context, const LaneSetup& setup, ShmShared& shared)
    : StreamLane(context, setup), shared_(shared) {}

ShmLane::~ShmLane() {
    close_descriptors();
    for (const Mapping& mapping : mappings_) munmap(mapping.base, mapping.bytes);
}

void ShmLane::close_descriptors() {
    for (const int descriptor : descriptors_) ::close(descriptor);
    descriptors_.clear();
}

void ShmLane::on_hello_done() {
    std::vector<int> descriptors{shared_.cells.fd()};
    std::vector<SharedRegion> regions;
    for (RegionId id = 0; id < shared_.regions.size(); ++id) {
        const Region& region = shared_.regions[id];
        if (region.fd < 0) continue;  // ours to receive into, not to send from
        auto known = std::find(descriptors.begin(), descriptors.end(), region.fd);
        if (known == descriptors.end()) known = descriptors.insert(known, region.fd);
        regions.push_back({id, static_cast<std::uint32_t>(known - descriptors.begin()),
                           region.fd_offset, region.bytes});
    }
    FrameHeader header;
    header.type = FrameType::Regions;
    send_message_now(header, write_regions(regions), descriptors);
}

bool ShmLane::wants_message(const FrameHeader& header) {
    if (header.type == FrameType::Regions) return !mapped_;
    return header.type == FrameType::Grant && mapped_;
}

void ShmLane::on_descriptors(std::span<const int> descriptors) {
    descriptors_.insert(descriptors_.end(), descriptors.begin(), descriptors.end());
    if (mapped_ || descriptors_.size() > kSharedDescriptorsMax) close_descriptors();
}

void ShmLane::on_message(const FrameHeader& header, std::span<const std::byte> payload) {
    const bool good =
        header.type == FrameType::Regions ? map_regions(payload) : begin_copy(header, payload);
    if (!good) break_down(Status::Violation);
}

bool ShmLane::map_regions(std::span<const std::byte> payload) {
    const auto regions = read_regions(payload);
    if (!regions || descriptors_.empty()) return false;
    const auto map = [this](std::uint32_t index, std::uint64_t offset,
                            std::uint64_t bytes) -> std::byte* {
        if (index >= descriptors_.size()) return nullptr;
        const int fd = descriptors_[index];
        struct stat about {};
        const int seals = fcntl(fd, F_GET_SEALS);
        std::uint64_t end = 0;
        if (seals < 0 || (seals & F_SEAL_SHRINK) == 0 || fstat(fd, &about) != 0 || bytes == 0 ||
            __builtin_add_overflow(offset, bytes, &end) ||
            end > static_cast<std::uint64_t>(about.st_size))
            return nullptr;
        void* mapped = mmap(nullptr, bytes, PROT_READ, MAP_SHARED, fd, static_cast<off_t>(offset));
        if (mapped == MAP_FAILED) return nullptr;
        mappings_.push_back({static_cast<std::byte*>(mapped), bytes});
        return static_cast<std::byte*>(mapped);
    };
    const std::byte* cells = map(0, 0, FenceCells::kBytes);
    if (cells == nullptr) return false;
    peer_cells_ = reinterpret_cast<const std::atomic<std::uint64_t>*>(cells);
    for (const SharedRegion& region : *regions) {
        std::byte* base = map(region.descriptor, region.offset, region.bytes);
        if (base == nullptr) return false;
        if (peer_regions_.size() <= region.id) peer_regions_.resize(region.id + 1);
        peer_regions_[region.id] = {base, region.bytes, MemoryKind::Host, -1, 0};
    }
    close_descriptors();
    mapped_ = true;
    come_up();
    return true;
}

const Region* ShmLane::find_mapped(RegionId id) {
    return id < peer_regions_.size() && peer_regions_[id].base != nullptr ? &peer_regions_[id]
                                                                          : nullptr;
}

// -- sending: a message

bool ShmLane::start_message(Part& part, FrameHeader& header, std::vector<std::byte>& payload) {
    const Post& post = *part.post;
    Grant grant;
    grant.epoch = post.epoch;
    grant.cell = post.cell;
    grant.first_range = post.first_range;
    grant.first_unit = part.next_unit;
    grant.units = part.end_unit - part.next_unit;
    grant.priority = post.priority;
    write_grant(grant, {post.ranges, post.placement.blocks()}, payload);
    header.type = FrameType::Grant;
    counters.frames_sent.add();
    return true;
}

// -- receiving: copies

bool ShmLane::begin_copy(const FrameHeader& header, std::span<const std::byte> payload) {
    if (header.slot >= kLandingsMax) return false;
    if (spare_copies_.empty()) {
        if (copies_.size() == kCopiesMax) return false;
        copies_.push_back(std::make_unique<Copy>());
        spare_copies_.push_back(copies_.back().get());
    }
    Copy& copy = *spare_copies_.back();
    if (!read_grant(payload, copy.grant, copy.ranges, copy.blocks) ||
        !copy.source.assign({copy.ranges, copy.blocks},
                            RegionLookup::to<&ShmLane::find_mapped>(*this)) ||
        copy.grant.first_unit + copy.grant.units > copy.source.units())
        return false;
    spare_copies_.pop_back();
    copy.about = header;
    copy.place = copy.source.place_of_unit(copy.grant.first_unit);
    copy.units_left = copy.grant.units;
    copy.shapes_match = false;
    queues_[static_cast<std::size_t>(copy.grant.priority)].push_back(copy);
    return true;
}

ShmLane::Copy* ShmLane::next_copy() {
    const bool low_first = ++turns_ % kLowEvery == 0;
    for (std::size_t i = 0; i < queues_.size(); ++i)
        if (Copy* copy = queues_[low_first ? i : queues_.size() - 1 - i].pop_front()) return copy;
    return nullptr;
}

bool ShmLane::step_more() {
    for (int i = 0; i < kSlicesPerTurn; ++i) {
        Copy* copy = next_copy();
        if (copy == nullptr) return false;
        if (copy_slice(*copy)) {
            spare_copies_.push_back(copy);
            if (!up()) return false;
        } else {
            queues_[static_cast<std::size_t>(copy->grant.priority)].push_back(*copy);
        }
    }
    return std::any_of(queues_.begin(), queues_.end(), [](auto& q) { return !q.empty(); });
}

bool ShmLane::copy_slice(Copy& copy) {
    Landing& landing = context().landings[copy.about.slot];
    const std::uint64_t epoch = copy.about.epoch;
    if (!landing.gate.enter(epoch)) {
        queue_ack(copy.about, Status::PeerRevoked);
        return true;
    }
    const Placement& target = landing.placement();
    const std::uint32_t first_range = copy.grant.first_range;
    if (!copy.shapes_match) {
        const auto theirs = copy.source.ranges();
        const auto ours = target.ranges();
        copy.shapes_match = landing.peer_node() == peer().node && first_range <= ours.size() &&
                            theirs.size() <= ours.size() - first_range;
        for (std::size_t i = 0; copy.shapes_match && i < theirs.size(); ++i)
            copy.shapes_match = theirs[i].block_bytes == ours[first_range + i].block_bytes &&
                                theirs[i].block_count == ours[first_range + i].block_count;
        if (!copy.shapes_match) {
            landing.gate.leave();
            break_down(Status::Violation);
            return true;
        }
    }
    const auto cut = copy.source.cut(copy.place, copy.units_left, kSliceBytes);
    const UnitSpan units =
        target.units_at({copy.place.range + first_range, copy.place.offset}, cut.bytes);
    copy_bytes(copy.source, copy.place, target, {copy.place.range + first_range, copy.place.offset},
               cut.bytes);
    // What was read above was the sender's to give if its cell has not moved since.
    std::atomic_thread_fence(std::memory_order_acquire);
    const bool still_given =
        peer_cells_[copy.grant.cell].load(std::memory_order_acquire) == copy.grant.epoch;
    bool complete = false;
    if (still_given) {
        complete = landing.mark(units, epoch);
        counters.bytes_landed.add(cut.bytes);
        counters.frames_landed.add();
    }
    landing.gate.leave();
    if (!still_given) {
        counters.stale_reads.add();
        counters.bytes_dropped.add(cut.bytes);
        queue_ack(copy.about, Status::PeerRevoked);
        return true;
    }
    copy.units_left -= cut.units;
    copy.place =
        copy.source.place_of_unit(copy.grant.first_unit + copy.grant.units - copy.units_left);
    if (copy.units_left == 0) queue_ack(copy.about, Status::Delivered);
    if (complete) say_landing_done({copy.about.slot, epoch}, Status::Landed);
    return copy.units_left == 0;
}

void ShmLane::on_closed() {
    for (auto& queue : queues_)
        while (Copy* copy = queue.pop_front()) spare_copies_.push_back(copy);
}

}  // namespace sluice::transport
