// SPDX-License-Identifier: Apache-2.0
#include "transport/mooncake/landing_lane.h"

#include <array>

namespace sluice::transport::mooncake {
namespace {

constexpr int kCallsPerTurn = 4;  // before other lanes of the thread
// Of one call inside a gate: what an abort may have to wait for.
constexpr std::uint64_t kSliceBytes = 512 * 1024;
constexpr std::size_t kAnswerBytesMax = 64 * 1024;  // waiting to be sent; then nothing is read

// Where bytes go that nobody wants.
constexpr std::size_t kNowhereBytes = 64 * 1024;
thread_local std::array<std::byte, kNowhereBytes> nowhere;

// The units of a range that lie whole in [offset, offset + bytes), numbered as in the batch.
UnitSpan units_within(const PlacedRange& range, std::uint64_t offset, std::uint64_t bytes) {
    const auto unit_of = [&](std::uint64_t at, bool up) {
        const std::uint64_t in_block = at % range.block_bytes;
        return at / range.block_bytes * range.units_per_block +
               (in_block + (up ? kUnitBytesMax - 1 : 0)) / kUnitBytesMax;
    };
    const std::uint64_t first = unit_of(offset, true), end = unit_of(offset + bytes, false);
    return {range.first_unit + first, end > first ? end - first : 0};
}

}  // namespace

bool LandingLane::step() {
    int calls = kCallsPerTurn;
    while (!broken() && readable_ && out_.size() < kAnswerBytesMax && calls-- > 0 &&
           receive_some()) {
    }
    while (!broken() && writable_ && flush()) {
    }
    if (broken()) return false;
    const bool answers = !out_.empty() || going_sent_ < going_.size();
    return (readable_ && out_.size() < kAnswerBytesMax) || (writable_ && answers);
}

void LandingLane::tick() {
    const bool waiting =
        !spoken_ || into_ != Into::Header || header_got_ > 0 || going_sent_ < going_.size();
    if (!broken() && waiting && host().now() - std::max(last_heard_, last_sent_) > kStallMax)
        break_down(Status::PeerLost, ETIMEDOUT);
}

// One call. False: nothing came.
bool LandingLane::receive_some() {
    // From here to leave(): what the kernel writes, and what is marked as landed, is inside.
    bool inside = false;
    Landing* landing = nullptr;
    if (into_ == Into::Blocks) {
        landing = &context().landings[found_.slot];
        inside = landing->gate.enter(found_.epoch);
        if (!inside) drop_payload();
    }
    refill();
    std::array<iovec, IovWindow::kEntries + 1> entries;
    const auto pieces = window_.view();
    std::size_t count = 0;
    std::uint64_t slice = 0;
    for (; count < pieces.size() && slice < kSliceBytes; ++count) {
        entries[count] = pieces[count];
        entries[count].iov_len =
            std::min<std::uint64_t>(pieces[count].iov_len, kSliceBytes - slice);
        slice += entries[count].iov_len;
    }
    // The next header comes in the same call, behind all of the payload.
    if (slice == payload_left_)
        entries[count++] = {header_.data() + header_got_, header_.size() - header_got_};
    std::size_t got = 0;
    const bool came = receive(std::span(entries).first(count), got);
    if (came) {
        const std::size_t payload = std::min<std::uint64_t>(got, payload_left_);
        window_.advance(payload);
        payload_left_ -= payload;
        header_got_ += got - payload;
        if (into_ != Into::Header && payload_left_ == 0) finish_write(inside);
    }
    if (inside) landing->gate.leave();
    if (came && !broken() && into_ == Into::Header && header_got_ == header_.size())
        begin_request();
    return came && !broken();
}

void LandingLane::refill() {
    if (!window_.empty() || describe_left_ == 0) return;
    if (into_ == Into::Blocks) {
        const auto done = context().landings[found_.slot].placement().describe(
            place_, describe_left_, window_.tail());
        window_.took(done.entries);
        describe_left_ -= done.bytes;
        return;
    }
    while (describe_left_ > 0 && window_.room() > 0) {
        const std::size_t bytes = std::min<std::uint64_t>(describe_left_, kNowhereBytes);
        window_.add(nowhere.data(), bytes);
        describe_left_ -= bytes;
    }
}

// The rest of this write is read and forgotten; it is refused behind its last byte.
void LandingLane::drop_payload() {
    into_ = Into::Nowhere;
    window_.clear();
    describe_left_ = payload_left_;
    counters.bytes_dropped.add(payload_left_);
}

void LandingLane::begin_request() {
    header_got_ = 0;
    const auto request = read_request(header_);
    if (!request) return break_down(Status::Violation);
    request_ = *request;
    spoken_ = true;
    if (request_.opcode == Opcode::Read) return begin_read();
    begin_write();
}

void LandingLane::begin_read() {
    const std::uint64_t number = request_.address - AddressSpace::kBegin;
    if (request_.bytes != 1 || number >= AddressSpace::kAlive) return refuse();
    if (request_.acknowledged) answer(Answer::Ok);
    out_.push_back(std::byte{0});
    if (number == 0 || said_peer_ != 0) return;
    said_peer_ = static_cast<std::uint32_t>(number);
    say_up();
}

void LandingLane::begin_write() {
    // The engine refuses these as well.
    if (request_.bytes == 0) return refuse();
    payload_left_ = describe_left_ = request_.bytes;
    const auto found = space_.find(request_.address);
    if (!found) {
        if (!space_.was_given_out(request_.address, request_.bytes)) return refuse();
        return drop_payload();
    }
    found_ = *found;
    place_ = AddressSpace::place_of(found_.epoch, request_.address);
    into_ = Into::Blocks;
    Landing& landing = context().landings[found_.slot];
    if (!landing.gate.enter(found_.epoch)) return drop_payload();
    const auto ranges = landing.placement().ranges();
    const bool fits = place_.range < ranges.size() &&
                      request_.bytes <= ranges[place_.range].bytes() &&
                      place_.offset <= ranges[place_.range].bytes() - request_.bytes;
    landing.gate.leave();
    if (!fits) refuse();
}

void LandingLane::finish_write(bool inside) {
    into_ = Into::Header;
    window_.clear();
    if (!inside) {
        if (request_.acknowledged) answer(Answer::AddressRefused);
        return;
    }
    Landing& landing = context().landings[found_.slot];
    const Place place = AddressSpace::place_of(found_.epoch, request_.address);
    const UnitSpan units =
        units_within(landing.placement().ranges()[place.range], place.offset, request_.bytes);
    counters.bytes_landed.add(request_.bytes);
    counters.frames_landed.add();
    if (request_.acknowledged) answer(Answer::Ok);
    if (units.count > 0 && landing.mark(units, found_.epoch))
        say_landing_done({found_.slot, found_.epoch}, Status::Landed);
}

void LandingLane::answer(Answer answer) {
    const StatusWord word = write_status(answer);
    out_.insert(out_.end(), word.begin(), word.end());
}

// An address that is nobody's: nothing is written, and we are done with who asked.
void LandingLane::refuse() {
    if (request_.acknowledged) answer(Answer::AddressRefused);
    while (writable_ && flush()) {
    }
    break_down(Status::Violation);
}

// One call. False: there is nothing to send, or no room.
bool LandingLane::flush() {
    if (going_sent_ == going_.size()) {
        if (out_.empty()) return false;
        going_.swap(out_);
        out_.clear();
        going_sent_ = 0;
    }
    iovec piece{going_.data() + going_sent_, going_.size() - going_sent_};
    std::size_t done = 0;
    if (!send({&piece, 1}, done)) return false;
    going_sent_ += done;
    return true;
}

}  // namespace sluice::transport::mooncake
