// SPDX-License-Identifier: Apache-2.0
#include "kv/bootstrap.h"

#include <charconv>
#include <nlohmann/json.hpp>

#include "kv/fastapi.h"
#include "json/text.h"

namespace sluice::kv {

namespace {

using Json = nlohmann::json;

constexpr std::uint32_t kConnectionsMax = 16384;
constexpr std::size_t kRanksMax = 1024;
constexpr std::size_t kWorkersMax = 65536;  // of all ranks: 4 MiB of a /query's answer

http::ServerOptions server_options() {
    http::ServerOptions options;
    options.idle_timeout = std::chrono::seconds(5);  // uvicorn's
    options.body_bytes_max = 1 << 20;
    return options;
}

std::optional<std::uint32_t> to_rank(std::string_view text) {
    std::uint32_t rank = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), rank);
    if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
    return rank;
}

// A FastAPI 422 for one member.
std::string missing_detail(std::string_view member, std::string_view type,
                           std::string_view message) {
    json::JsonText json;
    json.begin_object().key("detail").begin_array().begin_object().member("type", type);
    json.key("loc").begin_array().value("body");
    if (!member.empty()) json.value(member);
    json.end_array().member("msg", message).member("input", nullptr);
    return std::move(json.end_object().end_array().end_object().text);
}

}  // namespace

std::string write_bootstrap_entries(const BootstrapEntries& entries) {
    json::JsonText json;
    json.begin_object();
    for (const auto& [dp, engine] : entries) {
        json.key(std::to_string(dp)).begin_object().member("engine_id", engine.engine_id);
        json.key("worker_addr").begin_object();
        for (const auto& [tp, by_pp] : engine.workers) {
            json.key(std::to_string(tp)).begin_object();
            for (const auto& [pp, address] : by_pp) json.member(std::to_string(pp), address);
            json.end_object();
        }
        json.end_object().end_object();
    }
    return std::move(json.end_object().text);
}

std::expected<BootstrapEntries, std::string> read_bootstrap_entries(std::string_view text) {
    const Json root = Json::parse(text, nullptr, false);
    if (!root.is_object()) return std::unexpected("not a JSON object");
    BootstrapEntries entries;
    for (const auto& [dp_text, each] : root.items()) {
        const auto dp = to_rank(dp_text);
        if (!dp || !each.is_object() || !each.contains("engine_id") ||
            !each["engine_id"].is_string() || !each.contains("worker_addr") ||
            !each["worker_addr"].is_object())
            return std::unexpected("not a bootstrap reply");
        RegisteredEngine& engine = entries[*dp];
        engine.engine_id = each["engine_id"].get<std::string>();
        for (const auto& [tp_text, by_pp] : each["worker_addr"].items()) {
            const auto tp = to_rank(tp_text);
            if (!tp || !by_pp.is_object()) return std::unexpected("not a bootstrap reply");
            for (const auto& [pp_text, address] : by_pp.items())
                if (const auto pp = to_rank(pp_text); pp && address.is_string())
                    engine.workers[*tp][*pp] = address.get<std::string>();
        }
    }
    return entries;
}

std::string write_registration(const WorkerRegistration& worker) {
    json::JsonText json;
    json.begin_object().member("engine_id", worker.engine_id).member("dp_rank", worker.dp_rank);
    json.member("tp_rank", worker.tp_rank)
        .member("pp_rank", worker.pp_rank)
        .member("addr", worker.address);
    return std::move(json.end_object().text);
}

BootstrapServer::BootstrapServer(io::Loop& loop)
    : server_(loop, *this, server_options(), kConnectionsMax) {}

std::expected<void, std::string> BootstrapServer::enter(const WorkerRegistration& worker) {
    const auto known = entries_.find(worker.dp_rank);
    if (known == entries_.end() && entries_.size() >= kRanksMax)
        return std::unexpected("too many dp ranks");
    if (known != entries_.end() && known->second.engine_id != worker.engine_id)
        return std::unexpected("Engine ID mismatch for dp_rank=" + std::to_string(worker.dp_rank) +
                               ": expected " + known->second.engine_id + ", got " +
                               worker.engine_id);
    if (workers_ >= kWorkersMax) return std::unexpected("too many workers");
    RegisteredEngine& engine = entries_[worker.dp_rank];
    engine.engine_id = worker.engine_id;
    std::string& address = engine.workers[worker.tp_rank][worker.pp_rank];
    if (!address.empty() && address != worker.address)
        return std::unexpected("Worker with dp_rank=" + std::to_string(worker.dp_rank) +
                               ", tp_rank=" + std::to_string(worker.tp_rank) + ", pp_rank=" +
                               std::to_string(worker.pp_rank) + " is already registered at " +
                               address + ", but still want to register at " + worker.address);
    workers_ += address.empty() ? 1 : 0;
    address = worker.address;
    return {};
}

void BootstrapServer::on_request(http::ServerConnection& connection) {
    const std::string_view path = connection.request().path;
    const std::string_view method = connection.request().method;
    if (path == "/query") {
        if (method != "GET") return method_not_allowed(connection, "GET");
        return connection.respond(200, "application/json", write_bootstrap_entries(entries_));
    }
    if (path == "/register") {
        if (method != "POST") return method_not_allowed(connection, "POST");
        return on_register(connection);
    }
    not_found(connection);
}

void BootstrapServer::on_register(http::ServerConnection& connection) {
    const auto refuse = [&](std::string_view member, std::string_view type,
                            std::string_view message) {
        connection.respond(422, "application/json", missing_detail(member, type, message));
    };
    const Json body = Json::parse(connection.body().view(), nullptr, false);
    if (body.is_discarded()) return refuse("", "json_invalid", "JSON decode error");
    if (!body.is_object())
        return refuse("", "model_attributes_type", "Input should be a valid dictionary or object");
    WorkerRegistration worker;
    for (auto [name, text] :
         {std::pair{"engine_id", &worker.engine_id}, std::pair{"addr", &worker.address}}) {
        const auto found = body.find(name);
        if (found == body.end()) return refuse(name, "missing", "Field required");
        if (!found->is_string())
            return refuse(name, "string_type", "Input should be a valid string");
        *text = found->get<std::string>();
    }
    for (auto [name, rank] :
         {std::pair{"dp_rank", &worker.dp_rank}, std::pair{"tp_rank", &worker.tp_rank},
          std::pair{"pp_rank", &worker.pp_rank}}) {
        const auto found = body.find(name);
        if (found == body.end()) return refuse(name, "missing", "Field required");
        if (!found->is_number_unsigned() || found->get<std::uint64_t>() >= kRanksMax)
            return refuse(name, "int_type", "Input should be a valid integer");
        *rank = found->get<std::uint32_t>();
    }
    const auto entered = enter(worker);
    if (!entered) return respond_detail(connection, 400, entered.error());
    connection.respond(200, "application/json", R"({"status":"ok"})");
}

}  // namespace sluice::kv
