// SPDX-License-Identifier: Apache-2.0
#include "node/explain.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "base/cpu.h"
#include "transport/table.h"

namespace sluice::node {

using kv::Code;

kv::Outcome<io::Address> node_address(std::string_view text) {
    if (text.starts_with("tcp://")) text.remove_prefix(6);
    const std::size_t colon = text.rfind(':');
    std::uint64_t port = 0;
    bool good = colon != std::string_view::npos && colon + 1 < text.size();
    for (std::size_t i = colon + 1; good && i < text.size(); ++i) {
        good = text[i] >= '0' && text[i] <= '9' && port <= UINT16_MAX;
        port = port * 10 + static_cast<std::uint64_t>(text[i] - '0');
    }
    std::string_view host = good ? text.substr(0, colon) : std::string_view();
    if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
    const auto address = io::Address::from_ip(host, static_cast<std::uint16_t>(port));
    if (!good || port == 0 || port > UINT16_MAX || !address)
        return kv::refuse(Code::BadOptions, "\"" + std::string(text) +
                                                "\" is no address of a node; e.g. 10.0.0.2:41000");
    return *address;
}

Explanation explain(const kv::Hello& producer, const kv::Hello& consumer) {
    Explanation made;
    const auto who = [](const kv::Hello& hello) {
        return "\"" + hello.engine_id + "\": " + describe(hello.shape);
    };
    made.producer = who(producer);
    made.consumer = who(consumer);
    const auto route = kv::make_route(producer.shape, consumer.shape);
    if (route) {
        for (const std::uint64_t bytes : route->block_bytes) made.block_bytes += bytes;
        made.ranges = static_cast<std::uint32_t>(route->pairs.size());
        for (const kv::RangePair& pair : route->pairs)
            made.piece_bytes = made.piece_bytes == 0
                                   ? pair.producer.piece_bytes
                                   : std::min(made.piece_bytes, pair.producer.piece_bytes);
    } else {
        made.fit = route.error();
    }
    bool found = false;
    for (const auto& kind : transport::transports()) {
        TransportVerdict& verdict = made.transports.emplace_back();
        verdict.transport = kind.capabilities.name;
        verdict.expected_gb_per_s = kind.capabilities.expected_gb_per_s;
        const auto offered_by = [&](const kv::Hello& hello, const char* side) {
            const auto offer =
                std::ranges::find(hello.offers, verdict.transport, &kv::Offer::transport);
            if (offer == hello.offers.end())
                verdict.reason = fmt::format("the {}'s release does not have it", side);
            else if (offer->endpoint.empty())
                verdict.reason = fmt::format("the {} does not offer it: {}", side, offer->missing);
            else
                return true;
            return false;
        };
        if (kind.capabilities.same_host_only && producer.host != consumer.host)
            verdict.reason = "the two are on different machines";
        else if (!offered_by(producer, "producer") || !offered_by(consumer, "consumer"))
            continue;
        else if (found)
            verdict.reason = "it would work; the one above is preferred";
        else
            found = verdict.used = true;
        if (verdict.used) verdict.reason = kind.capabilities.fenced ? "fenced" : "not fenced";
    }
    return made;
}

bool Explanation::ok() const {
    return fit.ok() && std::ranges::any_of(transports, &TransportVerdict::used);
}

std::string Explanation::text() const {
    std::string out = "producer " + producer + "\nconsumer " + consumer + "\n";
    if (!fit.ok())
        out += "they do not fit: " + fit.sentence + "\n";
    else
        out += fmt::format("a block: {} bytes in {} ranges, pieces of {} bytes and more\n",
                           block_bytes, ranges, piece_bytes);
    for (const TransportVerdict& each : transports) {
        out += fmt::format("{:4} {:6} {}", each.used ? "used" : "not", each.transport, each.reason);
        if (each.used)
            out += each.expected_gb_per_s > 0
                       ? fmt::format(", about {:.1f} GB/s where it was measured",
                                     each.expected_gb_per_s)
                       : std::string(", its rate has not been measured");
        out += "\n";
    }
    return out;
}

namespace {

// Waits until `fd` is ready or the time is up.
bool ready(int fd, short events, Instant deadline) {
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(deadline - MonotonicClock::now());
    pollfd waited{fd, events, 0};
    return left.count() > 0 && ::poll(&waited, 1, static_cast<int>(left.count())) == 1;
}

kv::Outcome<kv::Hello> exchange(int fd, const io::Address& address, const kv::Token& token,
                                Instant deadline) {
    const auto silent = [&](const std::string& what) {
        return kv::refuse(Code::PeerLost, "the node at " + address.text() + " " + what);
    };
    if (::connect(fd, address.raw(), address.size()) != 0 && errno != EINPROGRESS)
        return silent(std::string("cannot be reached: ") + describe(Error{Errc::System, errno}));
    if (!ready(fd, POLLOUT, deadline)) return silent("does not answer");
    kv::Hello hello;
    hello.token = token;
    hello.node = random_seed() | 1;
    hello.engine_id = "doctor";
    hello.probe = true;
    const std::string bytes = kv::write_message(hello);
    if (::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(bytes.size()))
        return silent(std::string("cannot be reached: ") + describe(Error{Errc::System, errno}));
    kv::MessageReader reader;
    char page[16384];
    while (ready(fd, POLLIN, deadline)) {
        const ssize_t size = ::recv(fd, page, sizeof page, 0);
        if (size <= 0) return silent("closed the connection: is it a KV node?");
        if (!reader.feed({page, static_cast<std::size_t>(size)}))
            return silent("speaks no KV protocol");
        while (const auto each = reader.next()) {
            auto message = kv::read_message(*each);
            if (!message) return silent("speaks no KV protocol");
            if (auto* refusal = std::get_if<kv::Refusal>(&*message))
                return kv::refuse(refusal->status.code, refusal->status.sentence);
            if (auto* peer = std::get_if<kv::Hello>(&*message)) {
                if (kv::Status status = kv::check_version(*peer); !status.ok())
                    return std::unexpected(std::move(status));
                return std::move(*peer);
            }
        }
    }
    return silent("does not answer");
}

}  // namespace

kv::Outcome<kv::Hello> ask_node(const io::Address& address, const kv::Token& token,
                                Duration timeout) {
    const int fd = ::socket(address.family(), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return kv::refuse(Code::System, describe(Error{Errc::System, errno}));
    auto answer = exchange(fd, address, token, MonotonicClock::now() + timeout);
    ::close(fd);
    return answer;
}

}  // namespace sluice::node
