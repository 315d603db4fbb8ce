// SPDX-License-Identifier: Apache-2.0
// Mooncake's wire: what a real engine was recorded to say (tests/vectors/mooncake), and what is
// none.
#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

#include "transport/mooncake/segment.h"
#include "transport/mooncake/wire.h"

namespace sluice::transport::mooncake {
namespace {

using State = HandshakeReader::State;

std::string recorded(const char* name) {
    std::ifstream file("tests/vectors/mooncake/wheel.json");
    const auto all = nlohmann::json::parse(file);
    const auto hex = all.at(name).get<std::string>();
    std::string bytes;
    for (std::size_t i = 0; i < hex.size(); i += 2)
        bytes += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
    return bytes;
}

template <class Array>
Array first(const std::string& bytes) {
    Array array{};
    EXPECT_GE(bytes.size(), array.size());
    std::memcpy(array.data(), bytes.data(), array.size());
    return array;
}

TEST(MooncakeWire, TheEnginesHandshakesAreReadWhereverTheyAreCut) {
    for (const char* name : {"v1_metadata_request", "v2_metadata_request", "metadata_reply"}) {
        const std::string bytes = recorded(name);
        for (std::size_t cut = 0; cut < bytes.size(); ++cut) {
            HandshakeReader reader;
            ASSERT_EQ(reader.take(std::string_view(bytes).substr(0, cut)), State::NeedMore) << cut;
            ASSERT_EQ(reader.take(std::string_view(bytes).substr(cut)), State::Complete) << cut;
            ASSERT_EQ(reader.type(), HandshakeType::Metadata);
            const auto segment = read_segment(reader.json());
            ASSERT_TRUE(segment) << segment.error();
            EXPECT_EQ(segment->version, 2u);
            EXPECT_EQ(segment->name.substr(0, 10), "127.0.0.1:");
            EXPECT_EQ(segment->data_host, "127.0.0.1");
            EXPECT_NE(segment->data_port, 0);
            EXPECT_EQ(segment->first_bytes, 1u << 20);
            EXPECT_EQ(segment->node, 0u);
        }
        HandshakeReader bytewise;
        for (std::size_t i = 0; i + 1 < bytes.size(); ++i)
            ASSERT_EQ(bytewise.take(std::string_view(bytes).substr(i, 1)), State::NeedMore);
        EXPECT_EQ(bytewise.take(std::string_view(bytes).substr(bytes.size() - 1)), State::Complete);
    }
    HandshakeReader probe;
    EXPECT_EQ(probe.take(recorded("probe_reply")), State::Complete);
    EXPECT_EQ(probe.type(), HandshakeType::Probe);
}

TEST(MooncakeWire, TheEnginesRequestsAndAnswersAreOurs) {
    const Request v1{16, (1ULL << 60) + 4096, Opcode::Write, false};
    const Request v2{16, (1ULL << 60) + 4096, Opcode::Write, true};
    EXPECT_EQ(read_request(first<RequestHeader>(recorded("v1_write"))), v1);
    EXPECT_EQ(read_request(first<RequestHeader>(recorded("v2_write"))), v2);
    EXPECT_EQ(write_request(v1), first<RequestHeader>(recorded("v1_write")));
    EXPECT_EQ(write_request(v2), first<RequestHeader>(recorded("v2_write")));
    EXPECT_EQ(write_status(Answer::Ok), first<StatusWord>(recorded("write_status")));
    EXPECT_EQ(write_status(Answer::AddressRefused), first<StatusWord>(recorded("refused_status")));
    EXPECT_EQ(read_status(first<StatusWord>(recorded("read_reply"))), Answer::Ok);
    EXPECT_EQ(read_status(first<StatusWord>(recorded("refused_status"))), Answer::AddressRefused);
}

TEST(MooncakeWire, WhatIsNoRequestIsRefused) {
    for (int opcode = 0; opcode < 256; ++opcode) {
        RequestHeader header = write_request({1, 2, Opcode::Write, false});
        header[16] = std::byte(opcode);
        EXPECT_EQ(read_request(header).has_value(), (opcode & 0x7f) <= 1) << opcode;
    }
    EXPECT_TRUE(read_request(write_request({kRequestBytesMax, 0})));
    EXPECT_FALSE(read_request(write_request({kRequestBytesMax + 1, 0})));
    EXPECT_FALSE(read_request(write_request({UINT64_MAX, 0})));
    // What the padding holds is nobody's business: engines leave it as it was.
    RequestHeader header = write_request({1, 2, Opcode::Read, true});
    std::memset(header.data() + 17, 0xFF, 7);
    EXPECT_EQ(read_request(header), (Request{1, 2, Opcode::Read, true}));
    StatusWord word = write_status(Answer::Ok);
    word[7] = std::byte{0};
    EXPECT_FALSE(read_status(word));
    EXPECT_EQ(read_status(std::bit_cast<StatusWord>(0x4D43545600000007ULL)),
              Answer::AddressRefused);
}

TEST(MooncakeWire, HandshakesAreBounded) {
    const auto with_length = [](std::uint64_t length) {
        return std::string(reinterpret_cast<const char*>(&length), 8);
    };
    for (const std::uint64_t length : {0ULL, 1ULL, kHandshakeBytesMax + 1ULL, ~0ULL}) {
        HandshakeReader reader;
        EXPECT_EQ(reader.take(with_length(length) + "\1{}\n"), State::Malformed) << length;
        EXPECT_LE(reader.held(), 8u);
    }
    HandshakeReader announced;  // a length alone holds nothing
    EXPECT_EQ(announced.take(with_length(kHandshakeBytesMax)), State::NeedMore);
    EXPECT_EQ(announced.held(), 8u);
    HandshakeReader old;  // before there were types
    EXPECT_EQ(old.take(with_length(10) + "{"), State::Malformed);
    HandshakeReader more;
    EXPECT_EQ(more.take(write_handshake(HandshakeType::Metadata, "{}\n") + "behind it"),
              State::Complete);
    EXPECT_EQ(more.json(), "{}\n");
}

TEST(MooncakeWire, OurSegmentIsReadAsItWasWritten) {
    const Segment ours{"10.0.0.2:15000", "10.0.0.2", 16000, 2, 1ULL << 60, 1ULL << 61, ~0ULL};
    const auto read = read_segment(write_segment(ours));
    ASSERT_TRUE(read) << read.error();
    EXPECT_EQ(write_segment(*read), write_segment(ours));
    EXPECT_EQ(read->node, ~0ULL);
    const Segment bare{"[::1]:1", "", 1, 1};
    EXPECT_EQ(write_segment(bare).find("tcp_proto_version"), std::string::npos);
    EXPECT_EQ(read_segment(write_segment(bare))->version, 1u);
}

TEST(MooncakeWire, WhatIsNoSegmentIsRefusedWithAReason) {
    const std::pair<const char*, const char*> cases[] = {
        {"", "JSON"},
        {"[]", "JSON"},
        {"[[[[[[[[[", "nested"},
        {"{\"name\":", "JSON"},
        {R"({"name":"a","protocol":"rdma","tcp_data_port":1})", "protocol"},
        {R"({"name":"a","protocol":7,"tcp_data_port":1})", "protocol"},
        {R"({"protocol":"tcp","tcp_data_port":1})", "name"},
        {R"({"name":["a"],"tcp_data_port":1})", "name"},
        {R"({"name":"a"})", "tcp_data_port"},
        {R"({"name":"a","tcp_data_port":65536})", "tcp_data_port"},
        {R"({"name":"a","tcp_data_port":-1})", "tcp_data_port"},
        {R"({"name":"a","tcp_data_port":"1"})", "tcp_data_port"},
        {R"({"name":"a","tcp_data_port":1,"tcp_proto_version":0})", "version"},
        {R"({"name":"a","tcp_data_port":1,"tcp_data_host":1})", "tcp_data_host"},
        {R"({"name":"a","tcp_data_port":1,"buffers":{}})", "buffers"},
        {R"({"name":"a","tcp_data_port":1,"buffers":[1]})", "buffer"},
        {R"({"name":"a","tcp_data_port":1,"buffers":[{"addr":18446744073709551615,"length":2}]})",
         "buffer"},
        {R"({"name":"a","tcp_data_port":1,"sluice_node":-1})", "sluice_node"},
    };
    for (const auto& [text, why] : cases) {
        const auto segment = read_segment(text);
        ASSERT_FALSE(segment) << text;
        EXPECT_NE(std::string_view(segment.error()).find(why), std::string_view::npos)
            << text << ": " << segment.error();
    }
    EXPECT_FALSE(read_segment(R"({"tcp_data_port":1,"name":")" +
                              std::string(kSegmentNameMax + 1, 'a') + "\"}"));
    EXPECT_FALSE(read_segment(std::string(kHandshakeBytesMax, '[')));
    EXPECT_TRUE(read_segment(R"({"name":"[[[[\"[[[[[[[[","tcp_data_port":1})"));
}

}  // namespace
}  // namespace sluice::transport::mooncake
