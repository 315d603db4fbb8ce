// SPDX-License-Identifier: Apache-2.0
#include "mooncake/message.h"

#include <algorithm>

#include "mooncake/msgpack.h"

namespace sluice::mooncake {

namespace {

using Kind = MsgpackReader::Kind;

std::expected<std::vector<Member>, const char*> read_members(std::string_view bytes) {
    if (bytes.size() > kMessageBytesMax) return std::unexpected("longer than the limit");
    MsgpackReader reader(bytes);
    const auto count = reader.map();
    if (!count) return std::unexpected("not a MessagePack map");
    if (*count > kMembersMax) return std::unexpected("too many members");
    std::vector<Member> members;
    members.reserve(*count);
    for (std::uint32_t i = 0; i < *count; ++i) {
        const auto key = reader.string();
        if (!key) return std::unexpected("a member without a name");
        const auto raw = reader.skip();
        if (!raw) return std::unexpected("a value that cannot be read");
        // Twice, it would mean one thing to us and another to whom it is forwarded.
        if (std::ranges::find(members, *key, &Member::key) != members.end())
            return std::unexpected("a member given twice");
        members.push_back({*key, *raw});
    }
    if (!reader.at_end()) return std::unexpected("bytes behind the map");
    return members;
}

std::string_view find(const std::vector<Member>& members, std::string_view key) {
    const auto found = std::ranges::find(members, key, &Member::key);
    return found == members.end() ? std::string_view() : found->raw;
}

bool read_number(const std::vector<Member>& members, std::string_view key, std::uint32_t& value) {
    const std::string_view raw = find(members, key);
    if (raw.empty()) return true;
    const auto number = MsgpackReader(raw).unsigned_number();
    if (!number || *number > UINT32_MAX) return false;
    value = static_cast<std::uint32_t>(*number);
    return true;
}

bool read_ids(const std::vector<Member>& members, std::string_view key,
              std::vector<std::string_view>& ids) {
    const std::string_view raw = find(members, key);
    if (raw.empty()) return true;
    MsgpackReader reader(raw);
    if (reader.peek() == Kind::Nil) return true;
    const auto count = reader.array();
    if (!count || *count > kItemsMax) return false;
    for (std::uint32_t i = 0; i < *count; ++i) {
        const auto id = reader.string();
        if (!id || id->size() > kIdBytesMax) return false;
        ids.push_back(*id);
    }
    return true;
}

bool are_blocks(std::string_view raw) {
    MsgpackReader reader(raw);
    return reader.peek() == Kind::Array;
}

bool read_items(std::string_view raw, std::vector<PullItem>& items) {
    MsgpackReader reader(raw);
    const auto count = reader.map();
    if (!count || *count > kItemsMax) return false;
    for (std::uint32_t i = 0; i < *count; ++i) {
        const auto request = reader.string();
        const auto parts = reader.array();
        if (!request || request->size() > kIdBytesMax || !parts || *parts != 2) return false;
        const auto transfer = reader.string();
        const auto blocks = reader.skip();
        if (!transfer || transfer->size() > kIdBytesMax || !blocks || !are_blocks(*blocks))
            return false;
        items.push_back({*request, *transfer, *blocks});
    }
    return true;
}

void write_item(MsgpackWriter& writer, const PullItem& item) {
    writer.string(item.request).array(2).string(item.transfer).raw(item.blocks);
}

std::string write_members(const Pull& pull, std::string_view req_blocks) {
    std::string out;
    MsgpackWriter writer(out);
    writer.map(pull.members.size());
    for (const Member& member : pull.members)
        writer.string(member.key).raw(member.key == "req_blocks" ? req_blocks : member.raw);
    return out;
}

void write_ids(MsgpackWriter& writer, std::string_view key, std::span<const std::string_view> ids) {
    writer.string(key).array(ids.size());
    for (const std::string_view id : ids) writer.string(id);
}

}  // namespace

std::uint32_t block_count(std::string_view blocks) {
    MsgpackReader reader(blocks);
    const std::uint32_t outer = reader.array().value_or(0);
    if (outer == 0 || reader.peek() != Kind::Array) return outer;
    std::uint32_t most = 0;
    for (std::uint32_t i = 0; i < outer; ++i) {
        const auto group = reader.skip();
        if (!group) break;
        most = std::max(most, MsgpackReader(*group).array().value_or(0));
    }
    return most;
}

std::vector<std::uint32_t> block_ids(std::string_view blocks) {
    std::vector<std::uint32_t> ids;
    MsgpackReader reader(blocks);
    auto count = reader.array();
    if (count && *count > 0 && reader.peek() == Kind::Array) count = reader.array();
    for (std::uint32_t i = 0; i < count.value_or(0); ++i) {
        const auto id = reader.unsigned_number();
        if (!id) break;
        ids.push_back(static_cast<std::uint32_t>(*id));
    }
    return ids;
}

std::string_view Pull::member(std::string_view key) const { return find(members, key); }

std::expected<Pull, const char*> read_pull(std::string_view bytes) {
    auto members = read_members(bytes);
    if (!members) return std::unexpected(members.error());
    Pull pull;
    pull.members = std::move(*members);
    const std::string_view items = pull.member("req_blocks");
    if (items.empty()) return std::unexpected("no req_blocks");
    if (!read_items(items, pull.items)) return std::unexpected("req_blocks cannot be read");
    if (const std::string_view host = pull.member("remote_hostname"); !host.empty()) {
        const auto text = MsgpackReader(host).string();
        if (!text || text->size() > kIdBytesMax)
            return std::unexpected("remote_hostname is not a string");
        pull.host = *text;
    }
    if (!read_number(pull.members, "remote_port", pull.port) ||
        !read_number(pull.members, "remote_tp_rank", pull.tp_rank) ||
        !read_number(pull.members, "remote_tp_size", pull.tp_size) ||
        !read_number(pull.members, "remote_pp_size", pull.pp_size))
        return std::unexpected("a rank, size or port is not a number");
    return pull;
}

std::expected<Response, const char*> read_response(std::string_view bytes) {
    auto members = read_members(bytes);
    if (!members) return std::unexpected(members.error());
    Response response;
    response.members = std::move(*members);
    std::uint32_t status = 0;
    if (!read_number(response.members, "status", status) || status > 3)
        return std::unexpected("an unknown status");
    response.status = static_cast<Status>(status);
    if (!read_ids(response.members, "ok_reqs", response.ok) ||
        !read_ids(response.members, "err_reqs", response.failed))
        return std::unexpected("a list of requests cannot be read");
    if (const std::string_view text = find(response.members, "err_msg"); !text.empty()) {
        MsgpackReader reader(text);
        if (reader.peek() == Kind::String) response.message = *reader.string();
    }
    return response;
}

std::string write_pull(const Pull& pull, std::span<const PullItem> items) {
    std::string req_blocks;
    MsgpackWriter writer(req_blocks);
    writer.map(items.size());
    for (const PullItem& item : items) write_item(writer, item);
    return write_members(pull, req_blocks);
}

std::string write_empty_pull(const Pull& like, std::string_view request,
                             std::string_view transfer) {
    std::string blocks;
    MsgpackWriter empty(blocks);
    // As many groups as D has, all without a block.
    MsgpackReader shape(like.items.empty() ? std::string_view("\x90", 1)
                                           : like.items.front().blocks);
    const std::uint32_t groups = shape.array().value_or(0);
    const bool nested = groups > 0 && shape.peek() == Kind::Array;
    empty.array(nested ? groups : 0);
    for (std::uint32_t i = 0; nested && i < groups; ++i) empty.array(0);
    const PullItem item{request, transfer, blocks};
    return write_pull(like, std::span(&item, 1));
}

std::string write_response(const Response& response, Status status) {
    std::size_t count = 1;
    const auto kept = [](const Member& member) {
        return member.key != "status" && member.key != "layout_id";
    };
    for (const Member& member : response.members) count += kept(member) ? 1 : 0;
    std::string out;
    MsgpackWriter writer(out);
    writer.map(count).string("status").number(static_cast<std::uint64_t>(status));
    for (const Member& member : response.members)
        if (kept(member)) writer.string(member.key).raw(member.raw);
    return out;
}

std::string write_response(Status status, std::span<const std::string_view> ok,
                           std::span<const std::string_view> failed, std::string_view message) {
    std::string out;
    MsgpackWriter writer(out);
    writer.map(1U + (ok.empty() ? 0 : 1) + (failed.empty() ? 0 : 1) + (message.empty() ? 0 : 1));
    writer.string("status").number(static_cast<std::uint64_t>(status));
    if (!ok.empty()) write_ids(writer, "ok_reqs", ok);
    if (!failed.empty()) write_ids(writer, "err_reqs", failed);
    if (!message.empty()) writer.string("err_msg").string(message);
    return out;
}

}  // namespace sluice::mooncake
