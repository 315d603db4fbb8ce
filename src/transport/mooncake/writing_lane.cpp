// SPDX-License-Identifier: Apache-2.0
#include "transport/mooncake/writing_lane.h"

#include "transport/mooncake/address_space.h"

namespace sluice::transport::mooncake {
namespace {

constexpr int kCallsPerTurn = 4;
constexpr Duration kAskEvery = std::chrono::milliseconds(200);

}  // namespace

WritingLane::WritingLane(const LaneContext& context, int fd, const Segment& peer, bool keeps_alive)
    : MooncakeLane(context, Role::Writing, fd),
      peer_(peer),
      acknowledged_(peer.version >= 2),
      keeps_alive_(keeps_alive),
      can_ask_(peer.first_bytes > 0) {
    questions_.reserve(64);
}

void WritingLane::on_job(const LaneJob& job) {
    if (job.kind == JobKind::Revoke) return revoke(*job.post);
    if (job.kind != JobKind::Send) return;
    Part* part = nullptr;
    if (!broken() && state_ == State::Up) part = parts_.begin(*job.post, job.first_unit, job.units);
    if (part == nullptr) return say_part_done(*job.post, Status::PeerLost);
    if (part->post->addressed)
        part->cursor.target = part->post->target.place_of_unit(job.first_unit);
    host().want_step(*this);
}

bool WritingLane::step() {
    if (broken()) return false;
    if (state_ == State::Connecting) {
        if (!connected()) return false;
        // The address that a peer of ours is told by whom it is asked; an engine's own memory.
        state_ = State::Asking;
        if (can_ask_) {
            ask(Handle());
        } else {
            state_ = State::Up;
            say_up();
        }
    }
    int calls = kCallsPerTurn;
    while (!broken() && readable_ && calls-- > 0 && receive_some()) {
    }
    calls = kCallsPerTurn;
    while (!broken() && writable_ && calls-- > 0 && send_some()) {
    }
    if (broken()) return false;
    const bool more = tx_.active || (may_send() && (parts_.waiting() || !questions_.empty()));
    return readable_ || (writable_ && more);
}

void WritingLane::tick() {
    if (broken()) return;
    const Instant now = host().now();
    if (state_ != State::Up && now - started_ > context().options.connect_timeout)
        return break_down(Status::PeerLost, ETIMEDOUT);
    const bool idle = expected_count_ == 0 && !tx_.active && questions_.empty();
    if (state_ == State::Up && idle) {
        if (keeps_alive_ && can_ask_ && now - last_sent_ >= kAskEvery) {
            ask(Handle());
            host().want_step(*this);
        }
        return;
    }
    const Duration silence_max = context().options.silence_max;
    if (silence_max == Duration::zero() || now - std::max(last_heard_, last_sent_) <= silence_max)
        return;
    // It may be we who were not there: what has come counts before the clock does.
    readable_ = true;
    if (receive_some() || broken()) return;
    break_down(Status::PeerLost, ETIMEDOUT);
}

void WritingLane::on_breaking(Status status) {
    tx_ = Send();
    std::vector<Part*> ending;
    parts_.for_each([&](Part& part) { ending.push_back(&part); });
    for (Part* part : ending)
        end_part(*part, status == Status::Revoked ? Status::Revoked : Status::PeerLost);
}

// -- sending

// One call. False: there is nothing to send, or no room.
bool WritingLane::send_some() {
    if (!tx_.active && !next_send()) return false;
    Post* post = tx_.post;
    // Open for as long as a lane has a part: revoke() copies first.
    if (post != nullptr && !post->gate.enter(tx_.epoch)) {
        break_down(Status::PeerLost);
        return false;
    }
    refill();
    std::size_t done = 0;
    const bool moved = send(tx_.window.view(), done);
    if (post != nullptr) post->gate.leave();
    if (!moved) return false;
    tx_.window.advance(done);
    if (tx_.window.empty() && tx_.describe_left == 0) finish_send();
    return true;
}

bool WritingLane::next_send() {
    if (!may_send()) return false;
    tx_ = Send();
    if (!questions_.empty()) {
        const Handle part = questions_.front();
        questions_.erase(questions_.begin());
        headers_[0] = write_request({1, peer_.first_address, Opcode::Read, acknowledged_});
        tx_.window.add(headers_[0].data(), headers_[0].size());
        expect({true, part});
        tx_.active = true;
        return true;
    }
    while (Part* part = parts_.next())
        if (begin_writes(*part)) return true;
    return false;
}

void WritingLane::ask(Handle part) { questions_.push_back(part); }

// The next writes of a part, up to a frame's bytes. False: it has ended.
bool WritingLane::begin_writes(Part& part) {
    Post& post = *part.post;
    tx_.active = true;
    tx_.part = &part;
    tx_.post = &post;
    tx_.epoch = part.epoch;
    const std::uint64_t most = context().options.frame_bytes_max;
    while (tx_.headers < kWritesPerSend && may_send() && tx_.describe_left == 0 &&
           tx_.bytes < most && tx_.window.room() > 2 &&
           (part.cursor.left > 0 || part.next_unit < part.end_unit)) {
        if (part.cursor.left == 0) {
            const auto cut = post.placement.cut(part.place, part.end_unit - part.next_unit, most);
            part.cursor.left = cut.bytes;
            part.next_unit += cut.units;
        }
        // A write lies in one range: the next one's addresses are elsewhere.
        const std::uint64_t range_bytes = post.placement.ranges()[part.place.range].bytes();
        std::uint64_t bytes = std::min(part.cursor.left, range_bytes - part.place.offset);
        std::uint64_t address = 0;
        if (post.addressed) {
            iovec run{};
            bytes = post.target.describe(part.cursor.target, bytes, {&run, 1}).bytes;
            address = reinterpret_cast<std::uintptr_t>(run.iov_base);
        } else {
            address = AddressSpace::address_of(
                post.ticket.epoch, post.first_range + part.place.range, part.place.offset);
        }
        add_write(part, address, bytes);
    }
    if (part.cursor.left > 0 || part.next_unit < part.end_unit) return true;
    // Out of the queue with its last write: nothing more is taken from it.
    parts_.all_sent(part);
    if (!acknowledged_) {
        ++part.cursor.unanswered;
        ask(parts_.name_of(part));
    }
    return true;
}

void WritingLane::add_write(Part& part, std::uint64_t address, std::uint64_t bytes) {
    Post& post = *part.post;
    RequestHeader& header = headers_[tx_.headers++];
    header = write_request({bytes, address, Opcode::Write, acknowledged_});
    tx_.window.add(header.data(), header.size());
    if (acknowledged_) {
        ++part.cursor.unanswered;
        expect({false, parts_.name_of(part)});
    }
    tx_.bytes += bytes;
    tx_.place = part.place;
    tx_.describe_left = bytes;
    const auto done = post.placement.describe(tx_.place, bytes, tx_.window.tail());
    tx_.window.took(done.entries);
    tx_.describe_left -= done.bytes;
    counters.pieces_sent.add(done.entries);
    counters.frames_sent.add();
    counters.bytes_sent.add(bytes);
    part.place.offset += bytes;
    part.cursor.left -= bytes;
    if (part.place.offset == post.placement.ranges()[part.place.range].bytes())
        part.place = {part.place.range + 1, 0};
}

void WritingLane::refill() {
    if (!tx_.window.empty() || tx_.describe_left == 0) return;
    const auto done = tx_.post->placement.describe(tx_.place, tx_.describe_left, tx_.window.tail());
    tx_.window.took(done.entries);
    tx_.describe_left -= done.bytes;
    counters.pieces_sent.add(done.entries);
}

void WritingLane::finish_send() {
    Part* part = tx_.part;
    tx_ = Send();
    // Its answers may all have come before the last byte was known to have left: they cannot.
    if (part != nullptr && part->sent && part->cursor.unanswered == 0)
        end_part(*part, part->cursor.revoked ? Status::Revoked : Status::Delivered);
}

// What is under way leaves from a copy; the blocks are not read any more.
void WritingLane::copy_rest() {
    if (tx_.post == nullptr) return;
    rest_.clear();
    const auto append = [&](std::span<iovec> pieces) {
        for (const iovec& piece : pieces) {
            const auto* from = static_cast<const std::byte*>(piece.iov_base);
            rest_.insert(rest_.end(), from, from + piece.iov_len);
        }
    };
    if (tx_.post->gate.enter(tx_.epoch)) {
        append(tx_.window.view());
        tx_.window.clear();
        while (tx_.describe_left > 0) {
            refill();
            append(tx_.window.view());
            tx_.window.clear();
        }
        tx_.post->gate.leave();
    }
    tx_.window.clear();
    tx_.window.add(rest_.data(), rest_.size());
    tx_.part = nullptr;
    tx_.post = nullptr;
}

void WritingLane::revoke(Post& post) {
    Part* found = nullptr;
    parts_.for_each([&](Part& part) {
        if (part.post == &post) found = &part;
    });
    if (found == nullptr) return;
    Part& part = *found;
    if (tx_.part == &part) copy_rest();
    if (!post.addressed || (acknowledged_ && part.cursor.unanswered == 0))
        return end_part(part, Status::Revoked);
    part.cursor.revoked = true;
    if (!part.sent) {
        parts_.all_sent(part);
        if (!acknowledged_) {
            ++part.cursor.unanswered;
            ask(parts_.name_of(part));
        }
    }
    host().want_step(*this);
}

void WritingLane::end_part(Part& part, Status status) {
    if (tx_.part == &part) copy_rest();
    Post& post = *part.post;
    parts_.end(part);
    say_part_done(post, status);
}

// -- answers

void WritingLane::expect(const Expected& expected) {
    expected_[(expected_first_ + expected_count_++) % kUnansweredMax] = expected;
}

// One call. False: nothing came.
bool WritingLane::receive_some() {
    if (in_begin_ > 0) {
        std::copy(in_.begin() + static_cast<std::ptrdiff_t>(in_begin_),
                  in_.begin() + static_cast<std::ptrdiff_t>(in_end_), in_.begin());
        in_end_ -= in_begin_;
        in_begin_ = 0;
    }
    iovec room{in_.data() + in_end_, in_.size() - in_end_};
    std::size_t got = 0;
    if (!receive({&room, 1}, got)) return false;
    in_end_ += got;
    while (!broken() && take_answer()) {
    }
    return !broken();
}

// False: not all of one is there.
bool WritingLane::take_answer() {
    const std::size_t held = in_end_ - in_begin_;
    if (held == 0) return false;
    if (expected_count_ == 0) {
        break_down(Status::Violation);
        return false;
    }
    const Expected expected = expected_[expected_first_];
    std::size_t bytes = expected.alive ? 1 : 0;
    Answer said = Answer::Ok;
    if (acknowledged_) {
        if (held < kStatusBytes) return false;
        StatusWord word;
        std::copy_n(in_.begin() + static_cast<std::ptrdiff_t>(in_begin_), word.size(),
                    word.begin());
        const auto status = read_status(word);
        if (!status) {
            break_down(Status::Violation);
            return false;
        }
        said = *status;
        bytes = kStatusBytes + (expected.alive && said == Answer::Ok ? 1 : 0);
    }
    if (held < bytes) return false;
    in_begin_ += bytes;
    expected_first_ = (expected_first_ + 1) % kUnansweredMax;
    --expected_count_;
    answered(expected, said);
    return true;
}

void WritingLane::answered(const Expected& expected, Answer answer) {
    if (state_ == State::Asking) {
        if (answer != Answer::Ok) return break_down(Status::Refused);
        state_ = State::Up;
        return say_up();
    }
    Part* part = parts_.find(expected.part);
    if (part == nullptr) return;  // has ended meanwhile, or was only a question
    --part->cursor.unanswered;
    if (answer != Answer::Ok) return end_part(*part, Status::PeerRevoked);
    if (part->sent && part->cursor.unanswered == 0 && tx_.part != part)
        end_part(*part, part->cursor.revoked ? Status::Revoked : Status::Delivered);
}

}  // namespace sluice::transport::mooncake
