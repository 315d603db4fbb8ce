// SPDX-License-Identifier: Apache-2.0
#include "engine/kv/http_side_channel.h"

#include <nlohmann/json.hpp>
#include <optional>

#include "json/text.h"

namespace sluice::engine {

namespace {

using Json = nlohmann::json;

std::string text_of(const Json& object, const char* name) {
    const auto found = object.find(name);
    return found != object.end() && found->is_string() ? found->get<std::string>() : std::string();
}

std::uint64_t number_of(const Json& object, const char* name, std::uint64_t otherwise) {
    const auto found = object.find(name);
    return found != object.end() && found->is_number_unsigned() ? found->get<std::uint64_t>()
                                                                : otherwise;
}

std::string write_message(const PullMessage& message) {
    json::JsonText json;
    json.begin_object().member("engine_id", message.engine_id);
    json.member("tp_rank", message.tp_rank)
        .member("tp_size", message.tp_size)
        .key("items")
        .begin_array();
    for (const PullItem& item : message.items) {
        json.begin_object().member("request", item.request).member("transfer", item.transfer);
        json.member("blocks", item.blocks).key("remote_blocks").begin_array();
        for (const std::uint32_t block : item.remote_blocks) json.value(block);
        json.end_array().end_object();
    }
    return std::move(json.end_array().end_object().text);
}

std::optional<PullMessage> read_message(std::string_view text) {
    const Json root = Json::parse(text, nullptr, false);
    if (!root.is_object() || !root.contains("items") || !root["items"].is_array())
        return std::nullopt;
    PullMessage message;
    message.engine_id = text_of(root, "engine_id");
    message.tp_rank = static_cast<std::uint32_t>(number_of(root, "tp_rank", 0));
    message.tp_size = static_cast<std::uint32_t>(number_of(root, "tp_size", 1));
    for (const Json& each : root["items"]) {
        if (!each.is_object()) return std::nullopt;
        PullItem& item = message.items.emplace_back();
        item.request = text_of(each, "request");
        item.transfer = text_of(each, "transfer");
        item.blocks = static_cast<std::uint32_t>(number_of(each, "blocks", 0));
        if (const auto found = each.find("remote_blocks"); found != each.end() && found->is_array())
            for (const Json& block : *found)
                if (block.is_number_unsigned())
                    item.remote_blocks.push_back(block.get<std::uint32_t>());
    }
    return message;
}

std::string write_response(const PullResponse& response) {
    json::JsonText json;
    json.begin_object()
        .member("status", static_cast<std::uint32_t>(response.status))
        .key("ok")
        .begin_array();
    for (const auto& ok : response.ok)
        json.begin_object()
            .member("request", ok.request)
            .member("content", ok.content)
            .end_object();
    json.end_array().key("failed").begin_array();
    for (const std::string& request : response.failed) json.value(request);
    return std::move(json.end_array().member("message", response.message).end_object().text);
}

std::optional<PullResponse> read_response(std::string_view text) {
    const Json root = Json::parse(text, nullptr, false);
    if (!root.is_object()) return std::nullopt;
    PullResponse response;
    const std::uint64_t status = number_of(root, "status", 2);
    response.status = status <= 2 ? static_cast<PullStatus>(status) : PullStatus::Error;
    response.message = text_of(root, "message");
    if (const auto ok = root.find("ok"); ok != root.end() && ok->is_array())
        for (const Json& each : *ok)
            if (each.is_object())
                response.ok.push_back({text_of(each, "request"), number_of(each, "content", 0)});
    if (const auto failed = root.find("failed"); failed != root.end() && failed->is_array())
        for (const Json& each : *failed)
            if (each.is_string()) response.failed.push_back(each.get<std::string>());
    return response;
}

}  // namespace

// -- P

class HttpSideChannel::Replier final : public PullReplier {
public:
    struct Line {
        http::ServerConnection* connection;  // nullptr: the peer has gone, or the endpoint
    };
    explicit Replier(std::shared_ptr<Line> line) : line_(std::move(line)) {}
    ~Replier() override {
        // Without a last response the peer gets none, as from a worker that died.
        if (http::ServerConnection* connection = std::exchange(line_->connection, nullptr))
            connection->cut_response();
    }

    void respond(const PullResponse& response) override {
        http::ServerConnection* connection = line_->connection;
        if (connection == nullptr) return;
        if (!connection->response_started())
            connection->start_response(200, "Content-Type: application/x-ndjson\r\n", std::nullopt);
        TextWriter writer(connection->texts());
        writer.append(write_response(response));
        writer.append('\n');
        connection->write(writer.finish());
        if (response.status == PullStatus::Continue) return;
        line_->connection = nullptr;
        connection->end_response();
    }

private:
    std::shared_ptr<Line> line_;
};

class HttpSideChannel::Endpoint final : public http::RequestHandler {
public:
    Endpoint(io::Loop& loop, PullHandler& handler)
        : handler_(handler), server_(loop, *this, server_options(), kConnectionsMax) {}

    void open(io::Socket listener) { server_.add_listener(listener); }
    void stop() { server_.shut_down(); }
    bool finished() const { return server_.finished(); }

private:
    static constexpr std::uint32_t kConnectionsMax = 16384;
    static http::ServerOptions server_options() {
        http::ServerOptions options;
        options.body_bytes_max = 16 << 20;
        return options;
    }

    void on_request(http::ServerConnection& connection) override {
        auto message = connection.request().path == "/pull" ? read_message(connection.body().view())
                                                            : std::nullopt;
        if (!message) return connection.respond_error(400, "not a pull");
        auto line = std::make_shared<Replier::Line>(&connection);
        lines_[&connection] = line;
        handler_.on_pull(std::move(*message), std::make_unique<Replier>(std::move(line)));
    }

    void on_client_gone(http::ServerConnection& connection) override {
        if (const auto found = lines_.find(&connection); found != lines_.end()) {
            found->second->connection = nullptr;
            lines_.erase(found);
        }
    }

    PullHandler& handler_;
    std::unordered_map<http::ServerConnection*, std::shared_ptr<Replier::Line>>
        lines_;  // the latest of each
    http::Server server_;
};

HttpSideChannel::HttpSideChannel(const Context& context, http::Calls& calls)
    : context_(context), calls_(calls) {}
HttpSideChannel::~HttpSideChannel() = default;

Result<io::Address> HttpSideChannel::listen(const io::Address& address, PullHandler& handler) {
    const auto socket = context_.loop.io().listen(address, false);
    if (!socket) return std::unexpected(socket.error());
    const auto bound = context_.loop.io().local_address(*socket);
    endpoints_.push_back(std::make_unique<Endpoint>(context_.loop, handler));
    endpoints_.back()->open(*socket);
    return bound;
}

void HttpSideChannel::stop() {
    for (auto& endpoint : endpoints_) endpoint->stop();
}

bool HttpSideChannel::finished() const {
    for (const auto& endpoint : endpoints_)
        if (!endpoint->finished()) return false;
    return true;
}

// -- D

std::uint64_t HttpSideChannel::pull(const io::Address& peer, const PullMessage& message,
                                    PullEvents& events) {
    http::CallQuestion question;
    question.address = peer;
    question.host = peer.text();
    question.method = "POST";
    question.path = "/pull";
    question.body = write_message(message);
    auto number = std::make_shared<std::uint64_t>(0);
    *number = calls_.start(
        question, [](std::optional<http::CallAnswer>) {},  // a peer that died says nothing
        [number, &events](std::string_view line) {
            if (const auto response = read_response(line))
                events.on_pull_response(*number, *response);
        });
    return *number;
}

}  // namespace sluice::engine
