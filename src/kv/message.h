// SPDX-License-Identifier: Apache-2.0
// What two nodes say to each other on their control connection.
//
// A message is its length (four bytes, little-endian, without themselves), its type (one byte) and
// its members (bytes.h). Who connects begins with a Hello, the other answers its own; whoever is
// not content answers a Refusal and closes. After that the consumer pulls and aborts, the producer
// answers, both ping:
//
//   consumer              producer
//   Pull  ------------->            the ticket of an open landing, how many blocks of each group
//         <-------------  Known     it is published; bytes follow on the transport
//   Landed ------------>            all of it is here, whatever becomes of the transport's own word
//         <-------------  Failed    instead: it will not (all) come
//   Abort -------------->           no more, please; what still comes is dropped here
//         <-------------  RevokeAck nothing is read for it any more
//
// An empty Pull has no ticket and says that this rank needs nothing of that transfer. Every message
// has one spelling. Threads: any. Costs: a few dozen bytes a message, except Hello. Errors: bytes
// that are no message, or break a limit, are not read: close the connection.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "kv/plan.h"

namespace sluice::kv {

inline constexpr std::uint32_t kMagic = 0x564b4c53;  // "SLKV"
inline constexpr std::uint16_t kProtocolVersion = 1;

using Token = std::array<std::byte, 32>;
// In a time that does not depend on where they differ.
bool same_token(const Token& a, const Token& b);

// A way to be reached, and where.
struct Offer {
    std::string transport;
    transport::Endpoint endpoint;  // empty: it cannot be used
    std::string missing;           // ... because of this
    friend bool operator==(const Offer&, const Offer&) = default;
};

struct Hello {
    std::uint16_t version = kProtocolVersion;
    Token token{};
    std::uint64_t node = 0;  // random, another one in each life of a node: its epoch
    Role role = Role::Both;
    std::string engine_id;
    std::string host;    // the same for all processes of one machine
    bool probe = false;  // only looks (sluice doctor): it has no regions and gets none
    std::vector<Offer> offers;
    Shape shape;
    friend bool operator==(const Hello&, const Hello&) = default;
};

struct Refusal {
    Status status;
};
struct Ping {};
struct Pull {
    std::uint64_t pull = 0;  // the consumer's number for it
    std::string transfer;
    std::uint8_t offer = 0;  // which of the producer's offers carries it
    transport::Ticket ticket;
    transport::Priority priority = transport::Priority::Normal;
    std::uint64_t wait_ms = 0;  // until the consumer gives up
    Counts counts;

    bool empty() const { return ticket.slot == UINT32_MAX; }
};
struct Known {
    std::uint64_t pull = 0;
};
struct Landed {
    std::uint64_t pull = 0;
};
struct Failed {
    std::uint64_t pull = 0;
    Status status;
};
struct Abort {
    std::uint64_t pull = 0;
};
struct RevokeAck {
    std::uint64_t pull = 0;
};

using Message = std::variant<Hello, Refusal, Ping, Pull, Known, Landed, Failed, Abort, RevokeAck>;

// With its length. Texts that are too long for the wire are cut.
std::string write_message(const Message& message);
// `bytes`: type and members. A Hello of another version has only its version.
std::optional<Message> read_message(std::string_view bytes);

// Cuts a stream into messages.
class MessageReader {
public:
    // False: the stream is no stream of messages.
    bool feed(std::string_view bytes);
    // The next whole message's bytes, valid until feed().
    std::optional<std::string_view> next();

private:
    std::string held_;
    std::size_t taken_ = 0;
};

Status check_version(const Hello& peer);

}  // namespace sluice::kv
