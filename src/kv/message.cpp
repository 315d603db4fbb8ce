// SPDX-License-Identifier: Apache-2.0
#include "kv/message.h"

#include "kv/bytes.h"

namespace sluice::kv {

namespace {

constexpr std::size_t kOffersMax = 8;
constexpr std::size_t kEndpointBytesMax = 256;
constexpr std::size_t kHostBytesMax = 128;
constexpr std::uint64_t kWaitMax = std::uint64_t{1} << 40;  // ms: 34 years

// -- members

void write_text(ByteWriter& out, std::string_view text, std::size_t most) {
    out.text(text.substr(0, most));
}

void write(ByteWriter& out, const Status& status) {
    out.varint(static_cast<std::uint64_t>(status.code));
    write_text(out, status.sentence, limits::kSentenceBytesMax);
}
Status read_status(ByteReader& in) {
    Status status;
    status.code = static_cast<Code>(in.varint(static_cast<std::uint64_t>(Code::System)));
    status.sentence = in.text(limits::kSentenceBytesMax);
    return status;
}

void write(ByteWriter& out, const Geometry& one) {
    out.u8(static_cast<std::uint8_t>(static_cast<unsigned>(one.part) |
                                     static_cast<unsigned>(one.layout) << 4));
    for (const std::uint32_t value : {one.block_bytes, one.block_stride, one.blocks, one.layer,
                                      one.group, one.heads, one.row_bytes})
        out.varint(value);
    out.text(one.layer_name);
}
Geometry read_geometry(ByteReader& in) {
    Geometry one;
    const std::uint8_t kind = in.u8();
    if ((kind & 0xf) > 2 || kind >> 4 > 1) in.fail();
    one.part = static_cast<Part>(kind & 0xf);
    one.layout = static_cast<Layout>(kind >> 4);
    for (std::uint32_t* value : {&one.block_bytes, &one.block_stride, &one.blocks, &one.layer,
                                 &one.group, &one.heads, &one.row_bytes})
        *value = in.varint32();
    one.layer_name = in.text(limits::kLayerNameBytesMax);
    return one;
}

void write(ByteWriter& out, const Shape& shape) {
    for (const std::uint32_t value : {shape.rank.tp_rank, shape.rank.tp_size, shape.rank.pp_rank,
                                      shape.rank.pp_size, shape.rank.dp_rank, shape.kv_heads})
        out.varint(value);
    out.varint(shape.regions.size());
    for (const Geometry& one : shape.regions) write(out, one);
}
Shape read_shape(ByteReader& in) {
    Shape shape;
    for (std::uint32_t* value : {&shape.rank.tp_rank, &shape.rank.tp_size, &shape.rank.pp_rank,
                                 &shape.rank.pp_size, &shape.rank.dp_rank, &shape.kv_heads})
        *value = in.varint32();
    const std::uint64_t regions = in.varint(limits::kRegionsMax);
    for (std::uint64_t i = 0; i < regions && in.ok(); ++i)
        shape.regions.push_back(read_geometry(in));
    return shape;
}

// -- messages, in the order of the variant: its index is the type

void write(ByteWriter& out, const Hello& hello) {
    out.u32(kMagic);
    out.u16(hello.version);
    for (const std::byte byte : hello.token) out.u8(static_cast<std::uint8_t>(byte));
    out.u64(hello.node);
    out.u8(static_cast<std::uint8_t>(hello.role));
    write_text(out, hello.engine_id, limits::kEngineIdBytesMax);
    write_text(out, hello.host, kHostBytesMax);
    out.varint(hello.offers.size());
    for (const Offer& offer : hello.offers) {
        write_text(out, offer.transport, kEndpointBytesMax);
        write_text(out, offer.endpoint, kEndpointBytesMax);
        write_text(out, offer.missing, limits::kSentenceBytesMax);
    }
    out.u8(hello.probe ? 1 : 0);
    if (!hello.probe) write(out, hello.shape);
}
std::optional<Hello> read_hello(ByteReader& in) {
    Hello hello;
    if (in.u32() != kMagic) return std::nullopt;
    hello.version = in.u16();
    if (!in.ok()) return std::nullopt;
    if (hello.version != kProtocolVersion) {
        while (in.left() != 0) in.u8();  // what another version means by it is not known
        return hello;
    }
    for (std::byte& byte : hello.token) byte = static_cast<std::byte>(in.u8());
    hello.node = in.u64();
    const std::uint8_t role = in.u8();
    if (role > static_cast<std::uint8_t>(Role::Both)) return std::nullopt;
    hello.role = static_cast<Role>(role);
    hello.engine_id = in.text(limits::kEngineIdBytesMax);
    hello.host = in.text(kHostBytesMax);
    const std::uint64_t offers = in.varint(kOffersMax);
    for (std::uint64_t i = 0; i < offers && in.ok(); ++i) {
        Offer& offer = hello.offers.emplace_back();
        offer.transport = in.text(kEndpointBytesMax);
        offer.endpoint = in.text(kEndpointBytesMax);
        offer.missing = in.text(limits::kSentenceBytesMax);
    }
    const std::uint8_t probe = in.u8();
    hello.probe = probe == 1;
    if (probe > 1) return std::nullopt;
    if (hello.probe) return hello;
    hello.shape = read_shape(in);
    // A shape that is not right in itself is as good as no shape.
    if (!in.ok() || !check_shape(hello.shape).ok()) return std::nullopt;
    return hello;
}

void write(ByteWriter& out, const Refusal& refusal) { write(out, refusal.status); }
std::optional<Refusal> read_refusal(ByteReader& in) { return Refusal{read_status(in)}; }

void write(ByteWriter&, const Ping&) {}

void write(ByteWriter& out, const Pull& pull) {
    out.varint(pull.pull);
    write_text(out, pull.transfer, limits::kTransferIdBytesMax);
    out.u8(pull.offer);
    out.u32(pull.ticket.slot);
    out.varint(pull.ticket.epoch);
    out.u8(static_cast<std::uint8_t>(pull.priority));
    out.varint(pull.wait_ms);
    out.varint(pull.counts.size());
    for (const std::uint32_t count : pull.counts) out.varint(count);
}
std::optional<Pull> read_pull(ByteReader& in) {
    Pull pull;
    pull.pull = in.varint();
    pull.transfer = in.text(limits::kTransferIdBytesMax);
    pull.offer = in.u8();
    pull.ticket.slot = in.u32();
    pull.ticket.epoch = in.varint();
    const std::uint8_t priority = in.u8();
    if (priority > static_cast<std::uint8_t>(transport::Priority::Urgent)) return std::nullopt;
    pull.priority = static_cast<transport::Priority>(priority);
    pull.wait_ms = in.varint(kWaitMax);
    const std::uint64_t groups = in.varint(limits::kGroupsMax);
    for (std::uint64_t i = 0; i < groups && in.ok(); ++i)
        pull.counts.push_back(static_cast<std::uint32_t>(in.varint(limits::kTransferBlocksMax)));
    if (pull.transfer.empty()) return std::nullopt;
    return pull;
}

void write(ByteWriter& out, const Known& known) { out.varint(known.pull); }
void write(ByteWriter& out, const Landed& landed) { out.varint(landed.pull); }
void write(ByteWriter& out, const Failed& failed) {
    out.varint(failed.pull);
    write(out, failed.status);
}
std::optional<Failed> read_failed(ByteReader& in) {
    Failed failed;
    failed.pull = in.varint();
    failed.status = read_status(in);
    return failed;
}
void write(ByteWriter& out, const Abort& abort) { out.varint(abort.pull); }
void write(ByteWriter& out, const RevokeAck& ack) { out.varint(ack.pull); }

template <class T>
std::optional<Message> whole(ByteReader& in, std::optional<T> message) {
    if (!message || !in.at_end()) return std::nullopt;
    return Message(std::move(*message));
}

}  // namespace

bool same_token(const Token& a, const Token& b) {
    unsigned difference = 0;
    for (std::size_t i = 0; i < a.size(); ++i) difference |= static_cast<unsigned>(a[i] ^ b[i]);
    return difference == 0;
}

std::string write_message(const Message& message) {
    ByteWriter out;
    out.u32(0);
    out.u8(static_cast<std::uint8_t>(message.index() + 1));
    std::visit([&](const auto& each) { write(out, each); }, message);
    const std::size_t size = out.bytes.size() - 4;
    for (std::size_t i = 0; i < 4; ++i) out.bytes[i] = static_cast<char>(size >> (8 * i) & 0xff);
    return std::move(out.bytes);
}

std::optional<Message> read_message(std::string_view bytes) {
    ByteReader in(bytes);
    switch (in.u8()) {
        case 1:
            return whole(in, read_hello(in));
        case 2:
            return whole(in, read_refusal(in));
        case 3:
            return whole(in, std::optional(Ping{}));
        case 4:
            return whole(in, read_pull(in));
        case 5:
            return whole(in, std::optional(Known{in.varint()}));
        case 6:
            return whole(in, std::optional(Landed{in.varint()}));
        case 7:
            return whole(in, read_failed(in));
        case 8:
            return whole(in, std::optional(Abort{in.varint()}));
        case 9:
            return whole(in, std::optional(RevokeAck{in.varint()}));
        default:
            return std::nullopt;
    }
}

namespace {

std::size_t size_at(std::string_view bytes) {
    ByteReader in(bytes);
    return in.u32();
}

}  // namespace

bool MessageReader::feed(std::string_view bytes) {
    held_.erase(0, std::exchange(taken_, 0));
    held_.append(bytes);
    std::string_view left(held_);
    // Looked at as soon as it is there: a length that is too large is not waited for.
    while (left.size() >= 4) {
        const std::size_t size = size_at(left);
        if (size == 0 || size > limits::kMessageBytesMax) return false;
        if (left.size() < 4 + size) break;
        left.remove_prefix(4 + size);
    }
    return true;
}

std::optional<std::string_view> MessageReader::next() {
    const std::string_view left = std::string_view(held_).substr(taken_);
    if (left.size() < 4) return std::nullopt;
    const std::size_t size = size_at(left);
    if (left.size() < 4 + size) return std::nullopt;
    taken_ += 4 + size;
    return left.substr(4, size);
}

Status check_version(const Hello& peer) {
    if (peer.version == kProtocolVersion) return {};
    return {Code::VersionMismatch, "the peer speaks version " + std::to_string(peer.version) +
                                       " of the KV protocol, this node version " +
                                       std::to_string(kProtocolVersion) +
                                       ": run the same release of Sluice on both sides"};
}

}  // namespace sluice::kv
