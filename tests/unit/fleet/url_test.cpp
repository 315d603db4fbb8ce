// SPDX-License-Identifier: Apache-2.0
#include "fleet/url.h"

#include <gtest/gtest.h>

#include "fleet/keeper.h"

namespace sluice::fleet {
namespace {

Endpoint good(std::string_view url) {
    auto endpoint = parse_url(url);
    EXPECT_TRUE(endpoint.has_value()) << url << ": " << endpoint.error();
    return endpoint.value_or(Endpoint());
}

TEST(Url, HostAndPort) {
    const Endpoint numeric = good("http://10.0.0.1:8010");
    EXPECT_EQ(numeric.host, "10.0.0.1");
    EXPECT_EQ(numeric.port, 8010);
    EXPECT_EQ(numeric.authority(), "10.0.0.1:8010");
    EXPECT_FALSE(numeric.is_name());
    EXPECT_EQ(numeric.address.text(), "10.0.0.1:8010");

    const Endpoint name = good("http://Node-1.example:8010/");
    EXPECT_EQ(name.host, "node-1.example");
    EXPECT_TRUE(name.is_name());
    EXPECT_EQ(name.authority_at(8998), "node-1.example:8998");
}

TEST(Url, PortDefaultsTo80) {
    EXPECT_EQ(good("http://host").port, 80);
    EXPECT_EQ(good("HTTP://host/").port, 80);
    EXPECT_EQ(good("http://[::1]").port, 80);
    EXPECT_EQ(good("http://h:65535").port, 65535);
}

TEST(Url, Ipv6InBrackets) {
    const Endpoint endpoint = good("http://[2001:db8::1]:8010");
    EXPECT_EQ(endpoint.host, "2001:db8::1");
    EXPECT_EQ(endpoint.authority(), "[2001:db8::1]:8010");
    EXPECT_EQ(endpoint.authority_at(8998), "[2001:db8::1]:8998");
    EXPECT_EQ(endpoint.address.text(), "[2001:db8::1]:8010");
}

TEST(Url, UnixPath) {
    const Endpoint endpoint = good("unix:/run/p.sock");
    EXPECT_TRUE(endpoint.is_unix());
    EXPECT_EQ(endpoint.unix_path, "/run/p.sock");
    EXPECT_EQ(endpoint.authority(), "localhost");
    EXPECT_TRUE(endpoint.address.is_unix());
}

TEST(Url, RefusedWithASentence) {
    const std::string long_path = "unix:/" + std::string(107, 'x');
    const std::pair<std::string, std::string_view> cases[] = {
        {"", "does not begin"},
        {"10.0.0.1:8010", "does not begin"},
        {"ftp://host", "does not begin"},
        {"https://host:1", "TLS"},
        {"http://", "no host"},
        {"http://:80", "no host"},
        {"http:///", "no host"},
        {"http://host:80/v1", "a path"},
        {"http://host:80//", "a path"},
        {"http://host?x", "a path"},
        {"http://host#x", "a path"},
        {"http://user@host", "user name"},
        {"http://host:", "its port"},
        {"http://host:0", "its port"},
        {"http://host:65536", "its port"},
        {"http://host:80x", "its port"},
        {"http://host:+80", "its port"},
        {"http://host:-1", "its port"},
        {"http://::1:80", "brackets"},
        {"http://[::1:80", "not closed"},
        {"http://[::1]80", "only a port"},
        {"http://[10.0.0.1]:80", "IPv6"},
        {"http://[]:80", "no host"},
        {"http://[host]:80", "IPv6"},
        {"http://10.0.0.256:80", "neither"},
        {"http://10.0.1", "neither"},
        {"http://0.0.0.0:80", "listen"},
        {"http://[::]:80", "listen"},
        {"http://ho st", "cannot have"},
        {"http://ho\"st", "cannot have"},
        {"http://ho\r\nst", "cannot have"},
        {"http://" + std::string(254, 'a'), "cannot have"},
        {"unix:run/p.sock", "begins with /"},
        {"unix:", "begins with /"},
        {"unix:/a b", "blanks"},
        {"unix:/a\"b", "blanks"},
        {long_path, "107"},
    };
    for (const auto& [url, why] : cases) {
        const auto endpoint = parse_url(url);
        ASSERT_FALSE(endpoint.has_value()) << url;
        EXPECT_NE(endpoint.error().find(why), std::string::npos)
            << url << " -> " << endpoint.error();
        EXPECT_NE(endpoint.error().find("; allowed are http://"), std::string::npos);
        EXPECT_EQ(endpoint.error().find_first_of("\r\n"), std::string::npos);
        if (url.find_first_of("\r\n") == std::string::npos) {
            EXPECT_NE(endpoint.error().find(url), std::string::npos);
        }
    }
}

TEST(MakeFleet, SaysWhatTheCommandLineSays) {
    const auto fleet =
        make_fleet({{"http://10.0.0.1:8010", 8998}, {"http://[::1]:8010", 9000}, {"http://p3", 0}},
                   {{"http://d1:8020", 0}, {"unix:/run/d.sock", 0}}, KvConnector::Auto);
    ASSERT_TRUE(fleet.has_value()) << fleet.error();
    const auto& prefill = (*fleet)->prefill;
    ASSERT_EQ(prefill.size(), 3U);
    EXPECT_EQ(prefill[0].index, 0U);
    EXPECT_EQ(prefill[0].role, Role::Prefill);
    EXPECT_EQ(prefill[0].url, "http://10.0.0.1:8010");
    EXPECT_EQ(prefill[0].host_header, "10.0.0.1:8010");
    EXPECT_EQ(prefill[0].bootstrap_url, "http://10.0.0.1:8998");
    EXPECT_EQ(prefill[0].dialect, DialectKind::Unknown);
    EXPECT_TRUE(prefill[0].usable());
    EXPECT_EQ(prefill[1].bootstrap_url, "http://[::1]:9000");
    EXPECT_EQ(prefill[2].bootstrap_url, "");
    EXPECT_EQ(prefill[2].dialect, DialectKind::Nixl)
        << "auto without a bootstrap port has no question left";
    EXPECT_FALSE(prefill[2].usable()) << "a name";
    const auto& decode = (*fleet)->decode;
    ASSERT_EQ(decode.size(), 2U);
    EXPECT_EQ(decode[1].role, Role::Decode);
    EXPECT_EQ(decode[1].index, 1U);
    EXPECT_EQ(decode[1].host_header, "localhost");
    EXPECT_TRUE(decode[1].usable());
}

TEST(MakeFleet, ConnectorDecidesTheFirstDialect) {
    const auto first = [](std::uint16_t bootstrap_port, KvConnector connector) {
        return (*make_fleet({{"http://10.0.0.1:1", bootstrap_port}}, {}, connector))->prefill[0];
    };
    EXPECT_EQ(first(8998, KvConnector::Mooncake).dialect, DialectKind::Unknown);
    EXPECT_EQ(first(0, KvConnector::Mooncake).dialect, DialectKind::Unknown);
    EXPECT_EQ(first(8998, KvConnector::Nixl).dialect, DialectKind::Nixl);
    EXPECT_EQ(first(8998, KvConnector::Nixl).bootstrap_url, "") << "never asked";
}

TEST(MakeFleet, Refusals) {
    const auto why = [](std::vector<InstanceSpec> prefill, std::vector<InstanceSpec> decode) {
        const auto fleet = make_fleet(prefill, decode, KvConnector::Auto);
        return fleet ? std::string() : fleet.error();
    };
    EXPECT_EQ(why({{"http://a:1", 0}}, {{"http://a:1", 0}}), "")
        << "one engine may have both roles";
    EXPECT_NE(why({}, {{"http://a:80", 0}, {"http://A/", 0}})
                  .find("decode instance \"http://A/\" is given twice"),
              std::string::npos);
    EXPECT_NE(why({{"nothing", 0}}, {}).find("prefill instance \"nothing\""), std::string::npos);
    std::vector<InstanceSpec> many;
    for (int i = 0; i < 65; ++i) many.push_back({"http://h" + std::to_string(i), 0});
    EXPECT_NE(why(many, {}).find("at most 64"), std::string::npos);
    many.pop_back();
    EXPECT_EQ(why(many, {}), "");
}

TEST(Names, AreAllDifferent) {
    EXPECT_EQ(name_of(Role::Prefill), "prefill");
    EXPECT_EQ(name_of(Role::Decode), "decode");
    EXPECT_EQ(name_of(DialectKind::Unknown), "unknown");
    EXPECT_EQ(name_of(DialectKind::Mooncake), "mooncake");
    EXPECT_EQ(name_of(DialectKind::MooncakeSequential), "mooncake-sequential");
    EXPECT_EQ(name_of(DialectKind::Nixl), "nixl");
}

}  // namespace
}  // namespace sluice::fleet
