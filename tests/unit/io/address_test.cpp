// SPDX-License-Identifier: Apache-2.0
#include "io/address.h"

#include <gtest/gtest.h>
#include <netinet/in.h>

#include <string>

namespace sluice::io {
namespace {

TEST(Address, ReadsNumericHosts) {
    const Address v4 = *Address::from_ip("127.0.0.1", 8000);
    EXPECT_EQ(v4.family(), AF_INET);
    EXPECT_EQ(v4.port(), 8000);
    EXPECT_EQ(v4.text(), "127.0.0.1:8000");
    const Address v6 = *Address::from_ip("::1", 80);
    EXPECT_EQ(v6.family(), AF_INET6);
    EXPECT_EQ(v6.text(), "[::1]:80");
    EXPECT_EQ(*Address::from_ip("[::1]", 80), v6);
    EXPECT_EQ(Address::from_ip("0.0.0.0", 0)->text(), "0.0.0.0:0");
    EXPECT_EQ(Address::from_ip("2001:db8::FF", 65535)->text(), "[2001:db8::ff]:65535");
}

TEST(Address, RefusesWhatIsNoAddress) {
    for (const char* host : {"", "localhost", "1.2.3", "1.2.3.4.5", "256.1.1.1", "::g", "[::1",
                             "::1]", "[]", "127.0.0.1 ", " 127.0.0.1", "127.0.0.1:80"}) {
        const auto address = Address::from_ip(host, 1);
        ASSERT_FALSE(address.has_value()) << host;
        EXPECT_EQ(address.error().code, Errc::InvalidAddress);
    }
    // A NUL must not hide what follows it.
    EXPECT_FALSE(Address::from_ip(std::string_view("127.0.0.1\0x", 11), 1).has_value());
}

TEST(Address, ReadsUnixPaths) {
    const Address path = *Address::from_unix_path("/run/sluice.sock");
    EXPECT_TRUE(path.is_unix());
    EXPECT_EQ(path.text(), "unix:/run/sluice.sock");
    EXPECT_EQ(path.port(), 0);
    EXPECT_TRUE(path.valid());
    EXPECT_FALSE(Address::from_unix_path("").has_value());
    EXPECT_FALSE(Address::from_unix_path(std::string_view("/a\0b", 4)).has_value());
    EXPECT_TRUE(Address::from_unix_path(std::string(107, 'x')).has_value());
    EXPECT_FALSE(Address::from_unix_path(std::string(108, 'x')).has_value());
}

TEST(Address, SurvivesTheKernelsForm) {
    for (const Address& address : {*Address::from_ip("10.1.2.3", 5), *Address::from_ip("::1", 6),
                                   *Address::from_unix_path("/tmp/a")}) {
        const Address copy = Address::from_sockaddr(address.raw(), address.size());
        EXPECT_EQ(copy, address);
        EXPECT_EQ(copy.text(), address.text());
    }
    // An unnamed unix socket, as a connecting one is.
    sockaddr_un unnamed{};
    unnamed.sun_family = AF_UNIX;
    EXPECT_EQ(
        Address::from_sockaddr(reinterpret_cast<sockaddr*>(&unnamed), sizeof(sa_family_t)).text(),
        "unix:");
}

TEST(Address, Compares) {
    EXPECT_EQ(*Address::from_ip("1.2.3.4", 5), *Address::from_ip("1.2.3.4", 5));
    EXPECT_NE(*Address::from_ip("1.2.3.4", 5), *Address::from_ip("1.2.3.4", 6));
    EXPECT_NE(*Address::from_ip("1.2.3.4", 5), *Address::from_ip("::1", 5));
    EXPECT_NE(*Address::from_unix_path("/a"), *Address::from_unix_path("/b"));
    EXPECT_FALSE(Address().valid());
    EXPECT_EQ(Address().text(), "(none)");
}

TEST(Address, WithAnotherPort) {
    EXPECT_EQ(Address::from_ip("10.0.0.1", 80)->with_port(8998).text(), "10.0.0.1:8998");
    EXPECT_EQ(Address::from_ip("::1", 80)->with_port(8998).text(), "[::1]:8998");
    EXPECT_EQ(Address::from_ip("::1", 80)->with_port(8998), *Address::from_ip("::1", 8998));
}

TEST(Address, KnowsWildcards) {
    for (const char* any : {"0.0.0.0", "::"}) EXPECT_TRUE(Address::from_ip(any, 1)->is_wildcard());
    for (const char* one : {"10.0.0.1", "::1"})
        EXPECT_FALSE(Address::from_ip(one, 1)->is_wildcard());
    EXPECT_FALSE(Address::from_unix_path("/tmp/a")->is_wildcard());
    EXPECT_FALSE(Address().is_wildcard());
}

TEST(Address, OfOurselvesTowardsAPeer) {
    const auto own = own_address_towards(*Address::from_ip("127.0.0.9", 8000));
    ASSERT_TRUE(own.has_value());
    EXPECT_EQ(own->text(), "127.0.0.1:0");
}

}  // namespace
}  // namespace sluice::io
