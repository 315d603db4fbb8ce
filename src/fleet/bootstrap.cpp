// SPDX-License-Identifier: Apache-2.0
#include "fleet/bootstrap.h"

#include <simdjson.h>

#include <algorithm>
#include <charconv>
#include <optional>

#include "fleet/hash.h"

namespace sluice::fleet {

namespace {

namespace dom = simdjson::dom;
using Reply = std::expected<BootstrapReply, std::string>;

struct Registered {
    DataParallelRank rank;
};

std::string shown(std::string_view text) {
    std::string out = "\"";
    for (const char c : text.substr(0, 64)) out += c >= ' ' && c < 0x7f ? c : '?';
    return out + "\"";
}

// As Python writes an int: no sign, no leading zero. Two spellings of one number would be two
// members.
std::optional<std::uint32_t> parse_rank(std::string_view key) {
    std::uint32_t rank = 0;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), rank);
    const bool whole = error == std::errc() && end == key.data() + key.size();
    if (!whole || (key.size() > 1 && key.front() == '0')) return std::nullopt;
    return rank;
}

bool is_engine_id(std::string_view id) {
    const auto plain = [](char c) { return c >= ' ' && c < 0x7f && c != '"' && c != '\\'; };
    return !id.empty() && id.size() <= kEngineIdBytesMax &&
           std::all_of(id.begin(), id.end(), plain);
}

// "tcp://10.0.0.1:41000"
io::Address parse_worker_address(std::string_view text) {
    constexpr std::string_view kScheme = "tcp://";
    const auto colon = text.rfind(':');
    if (!text.starts_with(kScheme) || colon < kScheme.size()) return {};
    std::string_view host = text.substr(kScheme.size(), colon - kScheme.size());
    if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
    const auto port = parse_rank(text.substr(colon + 1));
    if (!port || *port == 0 || *port > 65535) return {};
    const auto address = io::Address::from_ip(host, static_cast<std::uint16_t>(*port));
    return address ? *address : io::Address();
}

std::expected<std::vector<RankWorker>, std::string> read_workers(dom::element value,
                                                                 std::string_view key) {
    dom::object by_tensor_rank;
    if (value.get(by_tensor_rank) != simdjson::SUCCESS)
        return std::unexpected("worker_addr of rank " + shown(key) + " is not an object");
    std::vector<RankWorker> workers;
    for (const dom::key_value_pair tensor : by_tensor_rank) {
        dom::object by_pipeline_rank;
        if (tensor.value.get(by_pipeline_rank) != simdjson::SUCCESS)
            return std::unexpected("worker_addr of rank " + shown(key) +
                                   " is not an object of objects");
        for (const dom::key_value_pair pipeline : by_pipeline_rank) {
            std::string_view address;
            RankWorker& worker = workers.emplace_back();
            const auto tp = parse_rank(tensor.key);
            const auto pp = parse_rank(pipeline.key);
            // What cannot be read is no reason to refuse the prefill: only the relay needs it.
            if (!tp || !pp || pipeline.value.get(address) != simdjson::SUCCESS) continue;
            worker = {*tp, *pp, parse_worker_address(address)};
        }
    }
    std::ranges::sort(workers, {},
                      [](const RankWorker& each) { return std::pair(each.tp_rank, each.pp_rank); });
    return workers;
}

std::expected<Registered, std::string> read_rank(std::string_view key, dom::element value) {
    Registered found;
    const auto rank = parse_rank(key);
    if (!rank) return std::unexpected("the key " + shown(key) + " is not a data-parallel rank");
    if (*rank >= limits::kDataParallelMax)
        return std::unexpected("data-parallel rank " + std::to_string(*rank) +
                               " is beyond the limit of " +
                               std::to_string(limits::kDataParallelMax) + " ranks");
    found.rank.rank = *rank;
    dom::object members;
    if (value.get(members) != simdjson::SUCCESS)
        return std::unexpected("what stands at rank " + shown(key) + " is not an object");
    bool has_workers = false;
    for (const dom::key_value_pair member : members) {
        if (member.key == "engine_id") {
            std::string_view id;
            if (!found.rank.engine_id.empty())
                return std::unexpected("rank " + shown(key) + " has two members engine_id");
            if (member.value.get(id) != simdjson::SUCCESS)
                return std::unexpected("engine_id of rank " + shown(key) + " is not a string");
            if (!is_engine_id(id))
                return std::unexpected(
                    "engine_id of rank " + shown(key) + " is empty, longer than " +
                    std::to_string(kEngineIdBytesMax) + " bytes, or not plain ASCII");
            found.rank.engine_id = id;
        } else if (member.key == "worker_addr") {
            if (std::exchange(has_workers, true))
                return std::unexpected("rank " + shown(key) + " has two members worker_addr");
            auto workers = read_workers(member.value, key);
            if (!workers) return std::unexpected(workers.error());
            found.rank.workers = std::move(*workers);
        }
    }
    if (found.rank.engine_id.empty())
        return std::unexpected("rank " + shown(key) + " has no engine_id");
    return found;
}

}  // namespace

Reply parse_bootstrap_reply(std::string_view body) {
    if (body.size() > kBootstrapReplyMax)
        return std::unexpected("it is longer than " + std::to_string(kBootstrapReplyMax) +
                               " bytes");
    dom::parser parser;
    dom::element root;
    // The parser copies: the bytes behind a reply are not ours to read.
    if (const auto error = parser.parse(body.data(), body.size(), true).get(root);
        error != simdjson::SUCCESS)
        return std::unexpected(std::string("it is not valid JSON: ") +
                               simdjson::error_message(error));
    dom::object by_rank;
    if (root.get(by_rank) != simdjson::SUCCESS) return std::unexpected("it is not a JSON object");

    std::vector<Registered> all;
    for (const dom::key_value_pair member : by_rank) {
        if (all.size() == limits::kDataParallelMax)
            return std::unexpected("it has more than " + std::to_string(limits::kDataParallelMax) +
                                   " ranks");
        auto found = read_rank(member.key, member.value);
        if (!found) return std::unexpected(std::move(found.error()));
        all.push_back(std::move(*found));
    }
    std::ranges::sort(all, {}, [](const Registered& one) { return one.rank.rank; });

    BootstrapReply reply;
    reply.fingerprint = hash_bytes(body);
    reply.shape = kHashStart;
    for (Registered& one : all) {
        if (!reply.ranks.empty() && reply.ranks.back().rank == one.rank.rank)
            return std::unexpected("it has rank " + std::to_string(one.rank.rank) + " twice");
        const std::uint64_t words[] = {one.rank.rank, one.rank.workers.size()};
        reply.shape = hash_bytes({reinterpret_cast<const char*>(words), sizeof words}, reply.shape);
        reply.ranks.push_back(std::move(one.rank));
    }
    return reply;
}

}  // namespace sluice::fleet
