// SPDX-License-Identifier: Apache-2.0
// How soon a decode leg ends that nobody wants any more: when its client has left, or its prefill
// has failed. In virtual time, which stands still during a turn of the loop: what takes a turn
// takes no time, and what waits for a timer takes a millisecond and more.
#include <gtest/gtest.h>

#include <optional>

#include "support/proxy_bench.h"

namespace sluice::test {
namespace {

using namespace std::chrono_literals;
using fleet::DialectKind;

constexpr std::uint64_t kSeeds = 50;
const Duration kWay = io::sim::Faults{}.latency_max;

constexpr std::string_view kBody =
    R"({"model":"m","stream":true,"messages":[{"role":"user","content":"x"}]})";

std::string request() {
    return "POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: " +
           std::to_string(kBody.size()) + "\r\n\r\n" + std::string(kBody);
}

// When the decode is left.
struct Left {
    explicit Left(ProxyBench& bench) {
        bench.decode_peer().on_abandoned = [this, &bench](const RawRequest&) { at = bench.now(); };
    }
    std::optional<Instant> at;
};

void a_client_leaves(DialectKind dialect, std::uint64_t seed) {
    ProxyBench bench({.seed = seed, .dialect = dialect});
    Left left(bench);
    bench.decode = [](RawConnection& connection, const RawRequest&) {
        const std::string event = R"(data: {"choices":[{"index":0,"delta":{"content":"some"}}]})"
                                  "\n\n";
        char size[16];
        std::snprintf(size, sizeof size, "%zx\r\n", event.size());
        connection.send(
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            "Transfer-Encoding: chunked\r\n\r\n" +
            (size + event) + "\r\n");  // and no more of it
    };
    const auto client = bench.connect();
    client->send(request());
    ASSERT_TRUE(bench.run([&] { return client->received.find("some") != std::string::npos; }));
    const Instant gone = bench.now();
    bench.part(*client);
    ASSERT_TRUE(bench.run([&] { return left.at.has_value(); }));
    EXPECT_LE(*left.at - gone, 2 * kWay) << "the ways from client to proxy and from it to decode";
}

TEST(LegEnd, AClientThatLeavesTakesItsDecodeLegWithIt) {
    for (const DialectKind dialect : {DialectKind::Nixl, DialectKind::Mooncake})
        for (std::uint64_t seed = 1; seed <= kSeeds; ++seed) {
            SCOPED_TRACE(std::string(name_of(dialect)) + ", seed " + std::to_string(seed));
            a_client_leaves(dialect, seed);
        }
}

TEST(LegEnd, APrefillThatFailsTakesTheDecodeLegWithIt) {
    for (std::uint64_t seed = 1; seed <= kSeeds; ++seed) {
        SCOPED_TRACE(seed);
        ProxyBench bench({.seed = seed, .dialect = DialectKind::Mooncake});
        Left left(bench);
        std::optional<Instant> failed;
        bench.prefill = [&](RawConnection& connection, const RawRequest&) {
            connection.after(200ms, [&] {
                failed = bench.now();
                connection.send("HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n");
                connection.next_request();
            });
        };
        bool asked = false;
        bench.decode = [&](RawConnection&, const RawRequest&) { asked = true; };
        const auto client = bench.connect();
        client->send(request());
        ASSERT_TRUE(bench.run([&] { return left.at.has_value(); }));
        EXPECT_TRUE(asked);
        ASSERT_TRUE(failed);
        EXPECT_LE(*left.at - *failed, 2 * kWay) << "the ways from prefill to proxy and to decode";
        ASSERT_TRUE(bench.run([&] { return !client->received.empty(); }));
        EXPECT_TRUE(client->received.starts_with("HTTP/1.1 500 ")) << client->received;
        bench.part(*client);
    }
}

}  // namespace
}  // namespace sluice::test
