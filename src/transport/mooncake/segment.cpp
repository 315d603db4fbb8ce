// SPDX-License-Identifier: Apache-2.0
#include "transport/mooncake/segment.h"

#include <nlohmann/json.hpp>

namespace sluice::transport::mooncake {
namespace {

using nlohmann::json;

const json* member(const json& object, const char* key) {
    const auto found = object.find(key);
    return found == object.end() ? nullptr : &*found;
}

// Absent: stays as it is. False: it is there and no number up to `most`.
template <class T>
bool read_number(const json& object, const char* key, std::uint64_t most, T& out) {
    const json* value = member(object, key);
    if (value == nullptr) return true;
    if (!value->is_number_unsigned() || value->get<std::uint64_t>() > most) return false;
    out = static_cast<T>(value->get<std::uint64_t>());
    return true;
}

// So that a megabyte of brackets costs a scan and not a tree.
bool is_flat(std::string_view text) {
    constexpr int kDepthMax = 8;
    int depth = 0;
    bool quoted = false;
    for (std::size_t i = 0; i < text.size(); ++i) {
        const char c = text[i];
        if (quoted) {
            if (c == '\\') ++i;
            quoted = c != '"';
        } else if (c == '"') {
            quoted = true;
        } else if (c == '[' || c == '{') {
            if (++depth > kDepthMax) return false;
        } else if (c == ']' || c == '}') {
            --depth;
        }
    }
    return true;
}

bool read_text(const json& object, const char* key, std::string& out) {
    const json* value = member(object, key);
    if (value == nullptr) return true;
    if (!value->is_string()) return false;
    const auto& text = value->get_ref<const std::string&>();
    if (text.size() > kSegmentNameMax) return false;
    out = text;
    return true;
}

}  // namespace

std::string write_segment(const Segment& segment) {
    json object = {
        {"name", segment.name},
        {"protocol", "tcp"},
        {"tcp_data_host", segment.data_host},
        {"tcp_data_port", segment.data_port},
        {"timestamp", ""},
        {"buffers", json::array()},
        {"devices", json::array()},
        {"priority_matrix", json::object()},
    };
    if (segment.version > 1) object["tcp_proto_version"] = segment.version;
    if (segment.first_bytes > 0)
        object["buffers"].push_back({{"name", segment.name},
                                     {"addr", segment.first_address},
                                     {"length", segment.first_bytes}});
    if (segment.node != 0) object["sluice_node"] = segment.node;
    return object.dump(-1, ' ', false, json::error_handler_t::replace) + '\n';
}

std::expected<Segment, const char*> read_segment(std::string_view text) {
    if (!is_flat(text)) return std::unexpected("its segment is nested too deeply");
    const json object = json::parse(text, nullptr, false);
    if (!object.is_object()) return std::unexpected("its segment is no JSON object");
    Segment segment;
    std::string protocol = "tcp";
    if (!read_text(object, "protocol", protocol) || protocol != "tcp")
        return std::unexpected("its protocol is not tcp; start it with mooncake_protocol tcp");
    if (!read_text(object, "name", segment.name) || segment.name.empty())
        return std::unexpected("its segment has no name of up to 256 bytes");
    if (!read_text(object, "tcp_data_host", segment.data_host))
        return std::unexpected("its tcp_data_host is no text of up to 256 bytes");
    if (!read_number(object, "tcp_data_port", UINT16_MAX, segment.data_port) ||
        segment.data_port == 0)
        return std::unexpected("its segment has no tcp_data_port");
    if (!read_number(object, "tcp_proto_version", UINT32_MAX, segment.version) ||
        segment.version == 0)
        return std::unexpected("its tcp_proto_version is no number from 1");
    if (!read_number(object, "sluice_node", UINT64_MAX, segment.node))
        return std::unexpected("its sluice_node is no number");
    const json* buffers = member(object, "buffers");
    if (buffers != nullptr && !buffers->is_array())
        return std::unexpected("its buffers are no list");
    if (buffers != nullptr && !buffers->empty()) {
        const json& first = buffers->front();
        if (!first.is_object() || !read_number(first, "addr", UINT64_MAX, segment.first_address) ||
            !read_number(first, "length", UINT64_MAX, segment.first_bytes) ||
            segment.first_bytes > UINT64_MAX - segment.first_address)
            return std::unexpected("its first buffer is no range of addresses");
    }
    return segment;
}

}  // namespace sluice::transport::mooncake
