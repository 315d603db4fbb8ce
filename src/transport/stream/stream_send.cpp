// SPDX-License-Identifier: Apache-2.0
// Frames out: gathered from the blocks of the part whose turn it is, while its post's gate is open.
#include <sys/socket.h>

#include <cstring>

#include "base/crc32c.h"
#include "transport/stream/stream_lane.h"

namespace sluice::transport {
namespace {

constexpr std::size_t kZeroBytes = 64 * 1024;
const std::array<std::byte, kZeroBytes> zeros{};
void* zero_bytes() { return const_cast<std::byte*>(zeros.data()); }  // sends only read

std::uint32_t checksum_of(const Placement& placement, Place place, std::uint64_t bytes) {
    std::uint32_t crc = 0;
    while (bytes > 0) {
        const auto piece = placement.next(place, bytes);
        crc = crc32c(crc, piece);
        bytes -= piece.size();
    }
    return crc;
}

}  // namespace

// One call. False: there is nothing to send, or no room.
bool StreamLane::send_some() {
    if (!tx_.active && !next_send()) return false;
    bool inside = false;
    Post* post = tx_.post;
    if (tx_.fill == Fill::Blocks && tx_.payload_left > 0) {
        inside = post->gate.enter(tx_.epoch);
        if (!inside) void_send();
    }
    refill_send();
    const auto pieces = tx_.window.view();
    const std::size_t wanted = tx_.window.bytes();
    msghdr message{};
    message.msg_iov = pieces.data();
    message.msg_iovlen = pieces.size();
    alignas(cmsghdr) std::byte control[CMSG_SPACE(sizeof(int) * 250)];
    if (!descriptors_out_.empty()) {
        const std::size_t bytes = descriptors_out_.size() * sizeof(int);
        message.msg_control = control;
        message.msg_controllen = CMSG_SPACE(bytes);
        cmsghdr* rights = CMSG_FIRSTHDR(&message);
        rights->cmsg_level = SOL_SOCKET;
        rights->cmsg_type = SCM_RIGHTS;
        rights->cmsg_len = CMSG_LEN(bytes);
        std::memcpy(CMSG_DATA(rights), descriptors_out_.data(), bytes);
    }
    const ssize_t done = ::sendmsg(setup_.fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    const int error = errno;
    if (inside) post->gate.leave();
    if (done < 0) {
        if (error == EAGAIN || error == EWOULDBLOCK) {
            writable_ = false;
        } else if (error != EINTR) {
            break_down(Status::PeerLost, error);
        }
        return false;
    }
    descriptors_out_.clear();
    last_sent_ = host().now();
    if (static_cast<std::size_t>(done) < wanted) writable_ = false;
    sent(static_cast<std::size_t>(done));
    return true;
}

void StreamLane::sent(std::size_t bytes) {
    tx_.window.advance(bytes);
    const std::size_t header = std::min<std::uint64_t>(bytes, tx_.header_left);
    const std::size_t payload = std::min<std::uint64_t>(bytes - header, tx_.payload_left);
    tx_.header_left -= header;
    tx_.payload_left -= payload;
    tx_.trailer_left -= bytes - header - payload;
    if (tx_.header_left + tx_.payload_left + tx_.trailer_left == 0) finish_send();
}

void StreamLane::finish_send() {
    tx_.active = false;
    tx_.window.clear();
    if (tx_.fill == Fill::None) return;
    tx_.fill = Fill::None;
    tx_.post = nullptr;
    counters.frames_sent.add();
    counters.bytes_sent.add(tx_.header.length);
    tx_.part = nullptr;
}

// Chooses what goes next: what is owed to the peer before what is ours.
bool StreamLane::next_send() {
    if (!message_out_.empty() || !control_.empty()) {
        tx_.active = true;
        tx_.fill = Fill::None;
        tx_.part = nullptr;
        tx_.describe_left = tx_.payload_left = tx_.trailer_left = 0;
        tx_.window.clear();
        if (!message_out_.empty()) {
            control_going_.clear();
            tx_.header_left = message_out_.size();
            message_going_.swap(message_out_);
            message_out_.clear();
            tx_.window.add(message_going_.data(), message_going_.size());
            return true;
        }
        control_going_.swap(control_);
        control_.clear();
        tx_.header_left = control_going_.size() * kHeaderBytes;
        tx_.window.add(control_going_.data(), tx_.header_left);
        return true;
    }
    while (Part* part = parts_.next())
        if (begin_frame_of(*part)) return true;
    return false;
}

// False: it has nothing to send now; it is out of the queue.
bool StreamLane::begin_frame_of(Part& part) {
    Post& post = *part.post;
    if (!post.gate.enter(part.epoch)) {
        part.unlink();  // revoked: the owner's job for it is under way
        return false;
    }
    FrameHeader& header = tx_.header;
    header = FrameHeader();
    header.slot = post.ticket.slot;
    header.epoch = post.ticket.epoch;
    header.part = parts_.name_of(part);
    if (!builds_frames()) {
        const bool started = start_message(part, header, payload_out_);
        post.gate.leave();
        parts_.all_sent(part);
        if (!started) return false;
        send_message_now(header, payload_out_, {});
        return next_send();
    }
    const auto cut = post.placement.cut(part.place, part.end_unit - part.next_unit,
                                        context().options.frame_bytes_max);
    header.type = FrameType::Data;
    header.range = post.first_range + part.place.range;
    header.offset = part.place.offset;
    header.length = static_cast<std::uint32_t>(cut.bytes);
    part.next_unit += cut.units;
    if (part.next_unit == part.end_unit) header.flags |= kLastOfPart;
    tx_.trailer = {0, FrameVerdict::Good};
    if (context().options.checksum) {
        header.flags |= kChecksum;
        tx_.trailer.crc = checksum_of(post.placement, part.place, cut.bytes);
    }
    seal(header);
    tx_.active = true;
    tx_.fill = Fill::Blocks;
    tx_.part = &part;
    tx_.post = &post;
    tx_.epoch = part.epoch;
    tx_.place = part.place;
    tx_.header_left = kHeaderBytes;
    tx_.payload_left = tx_.describe_left = cut.bytes;
    tx_.trailer_left = kTrailerBytes;
    tx_.trailer_described = false;
    tx_.window.clear();
    tx_.window.add(&header, kHeaderBytes);
    part.place = post.placement.place_of_unit(part.next_unit);
    post.gate.leave();
    // Out of the queue with its last frame, before that frame is out: nothing more is taken from
    // it.
    if (part.next_unit == part.end_unit) parts_.all_sent(part);
    return true;
}

void StreamLane::refill_send() {
    if (tx_.fill == Fill::None) return;
    if (tx_.describe_left > 0 && tx_.window.view().size() <= 1 && tx_.window.room() > 2) {
        if (tx_.fill == Fill::Blocks) {
            const auto done = tx_.post->placement.describe(
                tx_.place, tx_.describe_left, tx_.window.tail().first(tx_.window.room() - 1));
            tx_.window.took(done.entries);
            tx_.describe_left -= done.bytes;
            counters.pieces_sent.add(done.entries);
        }
        while (tx_.fill == Fill::Void && tx_.describe_left > 0 && tx_.window.room() > 1) {
            const std::size_t bytes = std::min<std::uint64_t>(tx_.describe_left, kZeroBytes);
            tx_.window.add(zero_bytes(), bytes);
            tx_.describe_left -= bytes;
        }
    }
    if (tx_.describe_left == 0 && !tx_.trailer_described) {
        tx_.window.add(&tx_.trailer, kTrailerBytes);
        tx_.trailer_described = true;
    }
}

// The rest of the frame under way is zeros, and its trailer says so: the blocks may not be read.
void StreamLane::void_send() {
    tx_.post = nullptr;
    tx_.fill = Fill::Void;
    if (tx_.payload_left == 0) return;  // all read already; the verdict may be out
    tx_.trailer = {0, FrameVerdict::Void};
    tx_.window.clear();
    const std::size_t sent_of_header = kHeaderBytes - tx_.header_left;
    tx_.window.add(reinterpret_cast<std::byte*>(&tx_.header) + sent_of_header, tx_.header_left);
    tx_.describe_left = tx_.payload_left;
    tx_.trailer_described = false;
}

void StreamLane::revoke(Post& post) {
    Part* found = nullptr;
    parts_.for_each([&](Part& part) {
        if (part.post == &post) found = &part;
    });
    if (found == nullptr) return;
    if (tx_.part == found) {
        tx_.part = nullptr;
        if (tx_.fill == Fill::Blocks) void_send();
        host().want_step(*this);
    }
    end_part(*found, Status::Revoked);
}

void StreamLane::send_message_now(FrameHeader header, std::span<const std::byte> payload,
                                  std::span<const int> descriptors) {
    header.length = static_cast<std::uint32_t>(payload.size());
    seal(header);
    message_out_.resize(kHeaderBytes);
    std::memcpy(message_out_.data(), &header, kHeaderBytes);
    message_out_.insert(message_out_.end(), payload.begin(), payload.end());
    descriptors_out_.assign(descriptors.begin(), descriptors.end());
    host().want_step(*this);
}

}  // namespace sluice::transport
