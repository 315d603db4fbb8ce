// SPDX-License-Identifier: Apache-2.0
// Frames in: straight into the blocks of the landing that they name, while its gate is open.
#include <sys/socket.h>

#include <cstring>

#include "base/crc32c.h"
#include "transport/stream/stream_lane.h"

namespace sluice::transport {
namespace {

constexpr std::size_t kDescriptorsMax = 250;  // of one message; the kernel's limit is 253

// Where bytes go that nobody wants. Written by every lane's thread and read by none.
constexpr std::size_t kNowhereBytes = 64 * 1024;
thread_local std::array<std::byte, kNowhereBytes> nowhere;

}  // namespace

// One call. False: nothing came.
bool StreamLane::receive_some() {
    // From here to leave(): what the kernel writes, and what is marked as landed, is inside.
    bool inside = false;
    Landing* landing = nullptr;
    if (rx_.into == Into::Blocks && !rx_.finished) {
        landing = &context().landings[rx_.header.slot];
        inside = landing->gate.enter(rx_.header.epoch);
        if (!inside) drop_payload();
    }
    refill_receive();
    const bool all_described = rx_.describe_left == 0;
    std::span<iovec> pieces = rx_.window.view();
    std::size_t wanted = rx_.window.bytes();
    std::array<iovec, IovWindow::kEntries + 1> entries;
    std::copy(pieces.begin(), pieces.end(), entries.begin());
    std::size_t count = pieces.size();
    if (all_described) {
        entries[count++] = {rx_.tail.data() + rx_.tail_got, rx_.tail.size() - rx_.tail_got};
        wanted += rx_.tail.size() - rx_.tail_got;
    }
    msghdr message{};
    message.msg_iov = entries.data();
    message.msg_iovlen = count;
    alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(sizeof(int) * kDescriptorsMax)> control;
    if (!builds_frames()) {
        message.msg_control = control.data();
        message.msg_controllen = control.size();
    }
    const ssize_t got = ::recvmsg(setup_.fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    const int error = errno;
    if (got > 0) {
        for (cmsghdr* c = CMSG_FIRSTHDR(&message); c != nullptr; c = CMSG_NXTHDR(&message, c)) {
            if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
            std::array<int, kDescriptorsMax> descriptors{};
            const std::size_t bytes = c->cmsg_len - CMSG_LEN(0);
            std::memcpy(descriptors.data(), CMSG_DATA(c), bytes);
            on_descriptors(std::span(descriptors).first(bytes / sizeof(int)));
        }
        received(static_cast<std::size_t>(got), inside);
    }
    if (inside) landing->gate.leave();

    if (got > 0) {
        last_heard_ = host().now();
        // Less than asked for: the socket is empty, and new bytes will be a new edge.
        if (static_cast<std::size_t>(got) < wanted && !ending_) readable_ = false;
        if (state_ == State::Up && rx_.finished && rx_.tail_got == rx_.tail.size()) {
            if (!begin_frame() && state_ == State::Up) break_down(Status::Violation);
        }
        return true;
    }
    if (got == 0) {
        break_down(Status::PeerLost, ECONNRESET);
    } else if (error == EAGAIN || error == EWOULDBLOCK) {
        readable_ = false;
    } else if (error != EINTR) {
        break_down(Status::PeerLost, error);
    }
    return false;
}

void StreamLane::refill_receive() {
    if (!rx_.window.empty() || rx_.describe_left == 0) return;
    if (rx_.into == Into::Blocks) {
        const auto done = context().landings[rx_.header.slot].placement().describe(
            rx_.place, rx_.describe_left, rx_.window.tail());
        rx_.window.took(done.entries);
        rx_.describe_left -= done.bytes;
        return;
    }
    while (rx_.describe_left > 0 && rx_.window.room() > 0) {
        const std::size_t bytes = std::min<std::uint64_t>(rx_.describe_left, kNowhereBytes);
        rx_.window.add(nowhere.data(), bytes);
        rx_.describe_left -= bytes;
    }
}

// The rest of this frame is read and forgotten; the sender hears of it once.
void StreamLane::drop_payload() {
    rx_.into = Into::Nowhere;
    rx_.window.clear();
    rx_.describe_left = rx_.payload_left;
    counters.bytes_dropped.add(rx_.payload_left);
    if (refused_part_ != rx_.header.part) {
        refused_part_ = rx_.header.part;
        queue_ack(rx_.header, Status::PeerRevoked);
    }
}

void StreamLane::received(std::size_t bytes, bool inside) {
    const std::size_t payload = std::min<std::uint64_t>(bytes, rx_.payload_left);
    rx_.window.advance(payload);
    rx_.payload_left -= payload;
    rx_.tail_got += bytes - payload;
    if (!rx_.finished && rx_.payload_left == 0 &&
        (rx_.tail_got >= kTrailerBytes || rx_.into == Into::Message))
        finish_frame(inside);
}

void StreamLane::finish_frame(bool inside) {
    rx_.finished = true;
    if (rx_.into == Into::Message) return on_message(rx_.header, message_in_);
    if (!inside) return;  // dropped, and the sender has been told
    FrameTrailer trailer;
    std::memcpy(&trailer, rx_.tail.data(), sizeof trailer);
    if (trailer.verdict != FrameVerdict::Good) {
        counters.bytes_dropped.add(rx_.header.length);
        return;  // the sender gave up in mid-frame and knows it
    }
    Landing& landing = context().landings[rx_.header.slot];
    const Ticket ticket{rx_.header.slot, rx_.header.epoch};
    if ((rx_.header.flags & kChecksum) != 0 && !checksum_matches()) {
        counters.checksum_errors.add();
        counters.bytes_dropped.add(rx_.header.length);
        landing.gate.shut(rx_.header.epoch);
        refused_part_ = rx_.header.part;
        queue_ack(rx_.header, Status::Corrupt);
        return say_landing_done(ticket, Status::Corrupt);
    }
    const Place place{rx_.header.range, rx_.header.offset};
    const bool complete =
        landing.mark(landing.placement().units_at(place, rx_.header.length), rx_.header.epoch);
    counters.bytes_landed.add(rx_.header.length);
    counters.frames_landed.add();
    if ((rx_.header.flags & kLastOfPart) != 0) queue_ack(rx_.header, Status::Delivered);
    if (complete) say_landing_done(ticket, Status::Landed);
}

bool StreamLane::checksum_matches() {
    FrameTrailer trailer;
    std::memcpy(&trailer, rx_.tail.data(), sizeof trailer);
    const Placement& placement = context().landings[rx_.header.slot].placement();
    Place place{rx_.header.range, rx_.header.offset};
    std::uint32_t crc = 0;
    for (std::uint64_t left = rx_.header.length; left > 0;) {
        const auto piece = placement.next(place, left);
        crc = crc32c(crc, piece);
        left -= piece.size();
    }
    return crc == trailer.crc;
}

// A header is complete. False: it is no frame that may come now.
bool StreamLane::begin_frame() {
    FrameHeader header;
    std::memcpy(&header, rx_.tail.data() + kTrailerBytes, sizeof header);
    rx_.tail_got = kTrailerBytes;  // of frames without a trailer
    if (!check(header)) return false;
    rx_.header = header;
    switch (header.type) {
        case FrameType::Ping:
            return header.length == 0;
        case FrameType::Ack:
            if (header.length != 0) return false;
            on_ack(header);
            return true;
        case FrameType::Data:
            return builds_frames() && begin_data();
        case FrameType::Grant:
        case FrameType::Regions:
            if (!wants_message(header)) return false;
            message_in_.resize(header.length);
            rx_.into = Into::Message;
            rx_.payload_left = header.length;
            rx_.describe_left = 0;
            rx_.window.clear();
            rx_.window.add(message_in_.data(), header.length);
            rx_.finished = header.length == 0;
            return header.length > 0;
    }
    return false;
}

bool StreamLane::begin_data() {
    const FrameHeader& header = rx_.header;
    if (header.slot >= kLandingsMax || header.length == 0) return false;
    rx_.into = Into::Blocks;
    rx_.place = {header.range, header.offset};
    rx_.payload_left = rx_.describe_left = header.length;
    rx_.window.clear();
    rx_.finished = false;
    rx_.tail_got = 0;
    Landing& landing = context().landings[header.slot];
    if (!landing.gate.enter(header.epoch)) {
        drop_payload();
        return true;
    }
    // Outside its region, across a unit's border, or another peer's landing: nothing is written.
    const bool fits = landing.peer_node() == peer_.node &&
                      landing.placement().units_at(rx_.place, header.length).count > 0;
    landing.gate.leave();
    return fits;
}

void StreamLane::on_ack(const FrameHeader& header) {
    Part* part = parts_.find(header.part);
    if (part == nullptr) return;  // has ended meanwhile
    auto status = static_cast<Status>(header.offset);
    if (status != Status::Delivered && status != Status::Corrupt) status = Status::PeerRevoked;
    // Delivered before all was sent: the peer has not understood us.
    if (status == Status::Delivered && !part->sent) return break_down(Status::Violation);
    if (tx_.part == part) {
        tx_.part = nullptr;
        if (tx_.fill == Fill::Blocks) void_send();
    }
    end_part(*part, status);
}

}  // namespace sluice::transport
