// SPDX-License-Identifier: Apache-2.0
// A lane over a stream socket: hello, frames out, frames in.
//
// Sending: a frame is whole units of one part, gathered in vectored sends from the blocks
// themselves; each send happens inside the post's gate, and a post that was revoked in mid-frame is
// filled up with zeros and a trailer that says so, so that the other transfers on the lane go on.
// Receiving: payload goes straight into its final blocks, each receive inside the landing's gate;
// the same call takes the trailer and the next header. No receive is ever left with the kernel: the
// thread sleeps on readiness, so a block's address is known to the kernel only during a call, and
// that is what makes the fence a matter of our own threads.
//
// Threads: the lane's sender thread; what the owner may read is said below. Owns: the socket.
// Costs: about one call per frame and direction; nothing is allocated once it has grown.
// Errors: anything that breaks the lane is one Down event.
#pragma once

#include "transport/lane_context.h"
#include "transport/stream/frame.h"
#include "transport/stream/iov_window.h"
#include "transport/peer_lane.h"
#include "transport/stream/parts.h"

namespace sluice::transport {

struct LaneSetup {
    int fd = -1;
    bool connecting = false;  // we asked for the connection: we speak first
    std::uint16_t lane = 0;
    std::uint16_t lanes = 1;
    std::uint64_t group = 0;
};

class StreamLane : public PeerLane {
public:
    StreamLane(const LaneContext& context, const LaneSetup& setup);
    ~StreamLane() override;

    void adopt(LaneHost& host) final;
    void take(const LaneJob& job) final;
    bool step() final;
    void tick() final;
    int fd() const final { return setup_.fd; }

    // -- by the owner, after the event Up
    const Hello& peer() const { return peer_; }

protected:
    // What shm does in its own way.
    virtual void on_hello_done() { come_up(); }
    virtual bool builds_frames() const { return true; }
    // Instead of frames: the one message that stands for the part. False: not now.
    virtual bool start_message(Part&, FrameHeader&, std::vector<std::byte>&) { return false; }
    virtual bool wants_message(const FrameHeader&) { return false; }
    virtual void on_message(const FrameHeader&, std::span<const std::byte>) {}
    virtual void on_descriptors(std::span<const int>) {}
    virtual bool step_more() { return false; }
    virtual void on_closed() {}

    void come_up();
    void break_down(Status status, int os = 0);
    void queue_ack(const FrameHeader& about, Status status);
    // Sent before anything else, with descriptors at its first byte.
    void send_message_now(FrameHeader header, std::span<const std::byte> payload,
                          std::span<const int> descriptors);
    bool up() const { return state_ == State::Up; }

private:
    enum class State : std::uint8_t { Connecting, Greeting, Up, Broken, Closed };
    enum class Fill : std::uint8_t { None, Blocks, Void };  // what a sent payload is
    enum class Into : std::uint8_t {
        Header,
        Blocks,
        Nowhere,
        Message
    };  // where a received one goes

    // -- hello (stream_hello.cpp)
    void greet();
    bool read_greeting();
    void on_greeting(const Hello& hello);

    // -- receiving (stream_receive.cpp)
    bool receive_some();
    void received(std::size_t bytes, bool inside);
    void finish_frame(bool inside);
    bool checksum_matches();
    bool begin_frame();
    bool begin_data();
    void on_ack(const FrameHeader& header);
    void drop_payload();
    void refill_receive();

    // -- sending (stream_send.cpp)
    bool send_some();
    bool next_send();
    bool begin_frame_of(Part& part);
    void refill_send();
    void void_send();
    void sent(std::size_t bytes);
    void finish_send();
    void end_part(Part& part, Status status);
    void revoke(Post& post);

    LaneSetup setup_;
    State state_ = State::Connecting;
    Hello peer_;
    HelloBytes greeting_{};
    std::size_t greeting_got_ = 0;

    struct Receive {
        FrameHeader header;
        Into into = Into::Header;
        Place place;                      // of what has not been described yet
        std::uint64_t describe_left = 0;  // of the payload
        std::uint64_t payload_left = 0;   // to come
        bool finished = true;
        IovWindow window;
        alignas(8) std::array<std::byte, kTrailerBytes + kHeaderBytes> tail{};
        std::size_t tail_got = kTrailerBytes;
    } rx_;
    Handle refused_part_;  // the last one that we have told the peer about
    std::vector<std::byte> message_in_;

    struct Send {
        bool active = false;
        Fill fill = Fill::None;
        Part* part = nullptr;  // none: it has ended, or a control frame
        bool last = false;     // of its part
        FrameHeader header;
        FrameTrailer trailer;
        Post* post = nullptr;  // while fill is Blocks
        std::uint64_t epoch = 0;
        Place place;
        std::uint64_t describe_left = 0;
        std::uint64_t header_left = 0, payload_left = 0, trailer_left = 0;
        bool trailer_described = false;
        IovWindow window;
    } tx_;
    Parts parts_;
    std::vector<FrameHeader> control_, control_going_;
    std::vector<std::byte> message_out_, message_going_, payload_out_;
    std::vector<int> descriptors_out_;
};

}  // namespace sluice::transport
