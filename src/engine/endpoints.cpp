// SPDX-License-Identifier: Apache-2.0
// The endpoints that generate nothing.
#include <charconv>

#include "engine/api/body.h"
#include "kv/fastapi.h"
#include "engine/impl.h"

namespace sluice::engine {

namespace {

constexpr std::size_t kEmbeddingSize = 16;
constexpr std::size_t kInputsMax = 2048;

// The body as an object, or an answer.
std::optional<Json> body_of(http::ServerConnection& connection) {
    auto body = parse_body(connection.body().view());
    if (body) return std::move(*body);
    connection.respond(body.error().status, "application/json", error_json(body.error()));
    return std::nullopt;
}

// Four decimals, so that the text is the same everywhere.
std::string decimal(double value) {
    char text[32];
    const auto end =
        std::to_chars(text, text + sizeof text, value, std::chars_format::fixed, 4).ptr;
    return {text, end};
}

std::string embedding_of(std::string_view input) {
    json::JsonText json;
    json.begin_array();
    const std::uint64_t seed = hash_text(input);
    for (std::size_t i = 0; i < kEmbeddingSize; ++i) {
        const double unit = static_cast<double>(mix(seed, i) >> 11) * 0x1.0p-53;
        json.raw(decimal(unit * 2 - 1));
    }
    return std::move(json.end_array().text);
}

// Why an element is no token id, if it is none.
std::optional<ApiError> token_error(const Json& list, std::size_t index) {
    const Json& id = list[index];
    std::string place = "tokens." + std::to_string(index);
    if (id.is_number_unsigned() && id.get<std::uint64_t>() <= UINT32_MAX) return std::nullopt;
    if (id.is_number_integer())
        return invalid_body({"greater_than_equal", std::move(place),
                             "Input should be greater than or equal to 0", python_input(&id),
                             "{'ge': 0}"});
    return invalid_body({id.is_string() ? "int_parsing" : "int_type", std::move(place),
                         id.is_string() ? "Input should be a valid integer, unable to parse string "
                                          "as an integer"
                                        : "Input should be a valid integer",
                         python_input(&id)});
}

// A string, or a list of token ids, as text.
std::string input_text(const Json& input) {
    if (input.is_string()) return input.get<std::string>();
    std::vector<Token> tokens;
    if (input.is_array())
        for (const Json& id : input)
            if (id.is_number_unsigned())
                tokens.push_back(static_cast<Token>(id.get<std::uint64_t>()));
    return detokenize(tokens);
}

}  // namespace

std::int64_t Engine::Impl::unix_time() const {
    return options_.unix_time + (loop_.now() - began_) / std::chrono::seconds(1);
}

void Engine::Impl::answer_models(Connection& connection) {
    std::vector<std::string> names = options_.served_model_names;
    if (names.empty()) names.push_back(options_.model);
    json::JsonText json;
    json.begin_object().member("object", "list").key("data").begin_array();
    for (const std::string& name : names) {
        json.begin_object()
            .member("id", name)
            .member("object", "model")
            .member("created", unix_time());
        json.member("owned_by", "vllm").member("root", options_.model).member("parent", nullptr);
        json.member("max_model_len", options_.timing.max_model_len)
            .key("permission")
            .begin_array()
            .begin_object();
        json.member("id", "modelperm-" + random_hex(rng_, 32)).member("object", "model_permission");
        json.member("created", unix_time())
            .member("allow_create_engine", false)
            .member("allow_sampling", true);
        json.member("allow_logprobs", true)
            .member("allow_search_indices", false)
            .member("allow_view", true);
        json.member("allow_fine_tuning", false)
            .member("organization", "*")
            .member("group", nullptr);
        json.member("is_blocking", false).end_object().end_array().end_object();
    }
    connection.respond(200, "application/json", json.end_array().end_object().text);
}

void Engine::Impl::answer_health(Connection& connection) {
    connection.respond(phase_ == Phase::Serving ? 200 : 503, "", "");
}

void Engine::Impl::answer_version(Connection& connection) {
    json::JsonText json;
    connection.respond(200, "application/json",
                       json.begin_object().member("version", options_.version).end_object().text);
}

void Engine::Impl::answer_load(Connection& connection) {
    json::JsonText json;
    json.begin_object().member("server_load", generations_.size()).end_object();
    connection.respond(200, "application/json", json.text);
}

void Engine::Impl::answer_tokenize(Connection& connection) {
    const auto body = body_of(connection);
    if (!body) return;
    if (const Json* model = find_member(*body, "model");
        model != nullptr && model->is_string() && !serves(model->get<std::string>(), options_))
        return respond_error(connection, unknown_model(model->get<std::string>(), options_));
    std::string text;
    if (const Json* prompt = find_member(*body, "prompt")) {
        if (!prompt->is_string())
            return respond_error(
                connection, invalid_body({"string_type", "prompt", "Input should be a valid string",
                                          python_input(prompt)}));
        text = prompt->get<std::string>();
    } else if (body->contains("messages")) {
        const auto request = read_request(Api::Chat, connection.body().view(), options_);
        if (!request) return respond_error(connection, request.error().error);
        const std::uint32_t count = request->prompts.front().tokens;
        GenerateRequest with_ids;
        with_ids.return_token_ids = true;
        try {
            Json copy = *body;
            copy["return_token_ids"] = true;
            read_chat(copy, options_, with_ids);
        } catch (const BodyError& error) {
            return respond_error(connection, error.error);
        }
        ASSERT(count == with_ids.prompts.front().tokens);
        text = detokenize(with_ids.prompts.front().token_ids);
    } else {
        const std::string input = python_input(&*body);
        return respond_error(connection,
                             invalid_body({{"missing", "prompt", "Field required", input},
                                           {"missing", "messages", "Field required", input}}));
    }
    const std::vector<Token> tokens = tokenize(text);
    json::JsonText json;
    json.begin_object()
        .member("count", tokens.size())
        .member("max_model_len", options_.timing.max_model_len);
    json.key("tokens").begin_array();
    for (const Token token : tokens) json.value(token);
    json.end_array();
    if (const Json* strings = find_member(*body, "return_token_strs");
        strings != nullptr && *strings == true) {
        json.key("token_strs").begin_array();
        for (const Token token : tokens) json.value(detokenize(std::vector{token}));
        json.end_array().end_object();
    } else {
        json.member("token_strs", nullptr).end_object();
    }
    connection.respond(200, "application/json", json.text);
}

void Engine::Impl::answer_detokenize(Connection& connection) {
    const auto body = body_of(connection);
    if (!body) return;
    const Json* list = find_member(*body, "tokens");
    if (list == nullptr)
        return respond_error(connection, invalid_body({"missing", "tokens", "Field required",
                                                       python_input(&*body)}));
    if (!list->is_array())
        return respond_error(connection,
                             invalid_body({"list_type", "tokens", "Input should be a valid list",
                                           python_input(list)}));
    for (std::size_t i = 0; i < list->size(); ++i)
        if (auto error = token_error(*list, i)) return respond_error(connection, *error);
    json::JsonText json;
    connection.respond(200, "application/json",
                       json.begin_object().member("prompt", input_text(*list)).end_object().text);
}

void Engine::Impl::answer_embeddings(Connection& connection) {
    const auto body = body_of(connection);
    if (!body) return;
    const Json* input = find_member(*body, "input");
    if (input == nullptr)
        return respond_error(
            connection, invalid_body({"missing", "input", "Field required", python_input(&*body)}));
    std::vector<std::string> inputs;
    if (input->is_array() && !input->empty() && !(*input)[0].is_number()) {
        if (input->size() > kInputsMax)
            return respond_error(connection, bad_request("too many inputs", "input"));
        for (const Json& each : *input) inputs.push_back(input_text(each));
    } else {
        inputs.push_back(input_text(*input));
    }
    std::size_t tokens = 0;
    json::JsonText json;
    json.begin_object().member("id", "embd-" + request_id(connection, "")).member("object", "list");
    json.member("created", unix_time())
        .member("model", options_.model_name())
        .key("data")
        .begin_array();
    for (std::size_t i = 0; i < inputs.size(); ++i) {
        json.begin_object().member("index", i).member("object", "embedding");
        json.raw_member("embedding", embedding_of(inputs[i])).end_object();
        tokens += count_tokens(inputs[i]);
    }
    json.end_array()
        .key("usage")
        .begin_object()
        .member("prompt_tokens", tokens)
        .member("total_tokens", tokens);
    json.member("completion_tokens", 0)
        .member("prompt_tokens_details", nullptr)
        .end_object()
        .end_object();
    connection.respond(200, "application/json", json.text);
}

void Engine::Impl::answer_count_tokens(Connection& connection) {
    auto body = body_of(connection);
    if (!body) return;
    if (!body->contains("max_tokens")) (*body)["max_tokens"] = 1;
    const auto request = read_request(Api::Messages, stable_text(*body), options_);
    if (!request)
        return connection.respond(request.error().error.status, "application/json",
                                  messages_format().error(request.error().error));
    json::JsonText json;
    json.begin_object().member("input_tokens", request->prompts.front().tokens).end_object();
    connection.respond(200, "application/json", json.text);
}

void Engine::Impl::answer_scale_out(Connection& connection) {
    respond_error(
        connection,
        {403, "PermissionDeniedError",
         "Scale-out endpoints are disabled. Restart vllm serve with --enable-scale-out to "
         "enable them.",
         std::nullopt});
}

// -- the stand-in's own

void Engine::Impl::answer_sim_state(Connection& connection) {
    const EngineState now = state();
    json::JsonText json;
    json.begin_object()
        .member("requests", now.counters.requests)
        .member("generations", now.counters.generations);
    json.member("generations_live", now.generations_live)
        .member("succeeded", now.counters.succeeded);
    json.member("failed", now.counters.failed).member("cancelled", now.counters.cancelled);
    json.member("faults", now.counters.faults).member("running", now.scheduler.running);
    json.member("waiting", now.scheduler.waiting).member("loading", now.scheduler.loading);
    json.member("blocks_used", now.scheduler.blocks_used)
        .member("blocks_held", now.connector.blocks_held);
    json.member("transfers_live", now.connector.transfers_live)
        .member("transfers", now.counters.transfers);
    json.member("seats_taken", now.connector.seats_taken)
        .member("pulls_queued", now.connector.pulls_queued);
    json.member("pulls_waiting", now.connector.pulls_waiting)
        .member("pulls_sent", now.counters.pulls_sent);
    json.member("pulls_received", now.counters.pulls_received)
        .member("expired", now.counters.expired);
    json.member("failed_transfers", now.counters.failed_transfers);
    json.member("failed_receives", now.counters.failed_receives).member("restarts", now.restarts);
    json.member("connections", now.connections).key("engine_ids").begin_array();
    for (std::size_t rank = 0; core_ && rank < core_->ranks(); ++rank)
        json.value(core_->engine_id(rank));
    json.end_array().key("generations_by_rank").begin_array();
    for (std::size_t rank = 0; core_ && rank < core_->ranks(); ++rank)
        json.value(core_->generations(rank));
    json.end_array().key("active_faults").begin_array();
    for (const Fault& fault : faults_.all()) json.value(name_of(fault.kind));
    connection.respond(200, "application/json", json.end_array().end_object().text);
}

void Engine::Impl::answer_sim_fault(Connection& connection) {
    const std::string_view text = connection.body().view();
    if (const Json body = Json::parse(text, nullptr, false);
        body.is_object() && body.contains("kind") && body["kind"] == "clear") {
        clear_faults();
        return connection.respond(200, "application/json", R"({"status":"ok"})");
    }
    const auto fault = parse_fault(text);
    if (!fault) return respond_error(connection, bad_request(fault.error()));
    connection.respond(200, "application/json", R"({"status":"ok"})");
    add_fault(*fault);
}

}  // namespace sluice::engine
