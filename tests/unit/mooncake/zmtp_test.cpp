// SPDX-License-Identifier: Apache-2.0
#include "mooncake/zmtp.h"

#include <gtest/gtest.h>

#include <vector>

#include "base/rng.h"

namespace sluice::mooncake {
namespace {

using Event = ZmtpDecoder::Event;
using namespace std::string_literals;

std::string message(std::string_view body) { return zmtp_frame_header(body.size()).append(body); }
std::string hello(SocketType type = SocketType::Dealer) {
    return zmtp_greeting() + zmtp_ready(type);
}

Event feed(ZmtpDecoder& decoder, std::string_view bytes) {
    decoder.append(bytes);
    return decoder.next();
}

TEST(Zmtp, TheGreetingIsTheSpecifications) {
    const std::string greeting = zmtp_greeting();
    ASSERT_EQ(greeting.size(), 64U);
    EXPECT_EQ(greeting.substr(0, 1), "\xff");
    EXPECT_EQ(greeting.substr(9, 8), "\x7f\3\1NULL\0"s);
    EXPECT_EQ(zmtp_ready(SocketType::Router),
              "\4\x29\5READY\13Socket-Type\0\0\0\6ROUTER\10Identity\0\0\0\0"s);
}

TEST(Zmtp, MessagesComeOutHoweverTheBytesAreCut) {
    const std::string large(70'000, 'y');
    const std::string all = hello() + message("") + message("one") +
                            message(std::string(255, 'x')) + message(std::string(256, 'x')) +
                            message(large) + "\1\2aa\0\2bb"s;
    Rng rng(3);
    for (int round = 0; round < 50; ++round) {
        ZmtpDecoder decoder(SocketType::Router, 1 << 20);
        std::vector<std::string> got;
        bool was_ready = false;
        for (std::size_t at = 0; at < all.size();) {
            const std::size_t n =
                std::min<std::size_t>(all.size() - at, 1 + rng.below(round == 0 ? 1 : 5000));
            Event event = feed(decoder, std::string_view(all).substr(at, n));
            at += n;
            for (; event != Event::NeedMore; event = decoder.next()) {
                ASSERT_NE(event, Event::Malformed) << decoder.why();
                if (event == Event::Ready) was_ready = true;
                if (event == Event::Message) got.emplace_back(decoder.view());
            }
        }
        EXPECT_TRUE(was_ready);
        EXPECT_EQ(got, (std::vector<std::string>{"", "one", std::string(255, 'x'),
                                                 std::string(256, 'x'), large, "bb"}));
        EXPECT_EQ(decoder.buffered(), 0U);
    }
}

TEST(Zmtp, PingIsAnsweredWithItsContext) {
    ZmtpDecoder decoder(SocketType::Dealer, 1000);
    EXPECT_EQ(feed(decoder, hello(SocketType::Router)), Event::Ready);
    EXPECT_EQ(feed(decoder, "\4\11\4PING\0\12hi"s), Event::Ping);
    EXPECT_EQ(zmtp_pong(decoder.view()), "\4\7\4PONGhi"s);
    EXPECT_EQ(feed(decoder, "\4\4\3SUB"s), Event::NeedMore);  // means nothing to us
    EXPECT_EQ(feed(decoder, "\4\5\4PING"s), Event::Malformed);
}

TEST(Zmtp, WhatIsNotTheProtocolIsRefused) {
    const auto why = [](std::string_view bytes, SocketType own = SocketType::Router) {
        ZmtpDecoder decoder(own, 1000);
        decoder.append(bytes);
        Event event;
        while ((event = decoder.next()) != Event::NeedMore && event != Event::Malformed) {
        }
        return event == Event::Malformed ? std::string(decoder.why()) : std::string("taken");
    };
    EXPECT_EQ(why("GET / HTTP/1.1\r\n"), "not ZMTP");
    EXPECT_EQ(why("\xff\0\0\0\0\0\0\0\1\x7e"s), "not ZMTP");
    EXPECT_EQ(why("\xff\0\0\0\0\0\0\0\1\x7f\1"s), "ZMTP before 3.0");
    std::string plain = zmtp_greeting();
    plain.replace(12, 5, "PLAIN");
    EXPECT_EQ(why(plain), "a security mechanism other than NULL");
    EXPECT_EQ(why(zmtp_greeting() + message("x")), "a message before READY");
    EXPECT_EQ(why(hello(SocketType::Router)), "a socket type that does not fit");
    EXPECT_EQ(why(hello(SocketType::Dealer), SocketType::Dealer),
              "a socket type that does not fit");
    EXPECT_EQ(why(zmtp_greeting() + "\4\6\5ERROR"s), "the peer refused the handshake");
    EXPECT_EQ(why(zmtp_greeting() + "\4\7\5READY\x09"s), "a property cut short");
    EXPECT_EQ(why(zmtp_greeting() + "\4\3\5RE"s), "a command name cut short");
    EXPECT_EQ(why(hello() + "\x08\1x"s), "unknown frame flags");
    EXPECT_EQ(why(hello() + "\5\1x"s), "a command in parts");
    EXPECT_EQ(why(hello() + "\4\0"s), "an empty command");
    EXPECT_EQ(why(hello() + message(std::string(1001, 'x'))), "a frame too large");
    EXPECT_EQ(why(hello() + "\2\xff\xff\xff\xff\xff\xff\xff\xff"s), "a frame too large");
    EXPECT_EQ(why(hello() + "\1\xff"s + std::string(255, 'x') + "\1\xff"s + std::string(255, 'x') +
                  "\1\xff"s + std::string(255, 'x') + "\1\xff"s + std::string(255, 'x')),
              "a frame too large");
    std::string parts;
    for (int i = 0; i < 9; ++i) parts += "\1\1x"s;
    EXPECT_EQ(why(hello() + parts), "a message of too many frames");
}

}  // namespace
}  // namespace sluice::mooncake
