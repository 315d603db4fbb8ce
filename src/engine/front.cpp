// SPDX-License-Identifier: Apache-2.0
// The engine's HTTP front: which path is what, who may ask, what a fault does to a request, and how
// a generating request becomes a Generation.
#include <charconv>

#include "kv/fastapi.h"
#include "engine/impl.h"

namespace sluice::engine {

namespace {

constexpr std::uint32_t kSequencesMax = 1 << 19;  // of an engine; a rank has room for more

// What a header field may hold. The id may come from a JSON body.
bool is_field_value(std::string_view text) {
    for (const char c : text)
        if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) return false;
    return true;
}

}  // namespace

struct Engine::Impl::Endpoint {
    std::string_view path;
    std::string_view method;
    void (Impl::*answer)(Connection&);
    bool generates = false;
    std::string_view other_method = {};
};

const Engine::Impl::Endpoint* Engine::Impl::find_endpoint(std::string_view path) {
    static constexpr Endpoint kEndpoints[] = {
        {"/v1/chat/completions", "POST", &Impl::answer_chat, true},
        {"/v1/completions", "POST", &Impl::answer_completions, true},
        {"/v1/responses", "POST", &Impl::answer_responses, true},
        {"/v1/messages", "POST", &Impl::answer_messages, true},
        {"/v1/messages/count_tokens", "POST", &Impl::answer_count_tokens},
        {"/v1/models", "GET", &Impl::answer_models},
        {"/health", "GET", &Impl::answer_health},
        {"/ping", "GET", &Impl::answer_health, false, "POST"},
        {"/version", "GET", &Impl::answer_version},
        {"/load", "GET", &Impl::answer_load},
        {"/tokenize", "POST", &Impl::answer_tokenize},
        {"/detokenize", "POST", &Impl::answer_detokenize},
        {"/v1/embeddings", "POST", &Impl::answer_embeddings},
        {"/inference/v1/generate", "POST", &Impl::answer_scale_out},
        {"/metrics", "GET", &Impl::answer_metrics},
        {"/sim/state", "GET", &Impl::answer_sim_state},
        {"/sim/fault", "POST", &Impl::answer_sim_fault},
    };
    for (const Endpoint& endpoint : kEndpoints)
        if (endpoint.path == path) return &endpoint;
    return nullptr;
}

// A client who is answered before the body has come is the one thing that happens here.
void Engine::Impl::on_head(Connection& connection) {
    if (!faults_.has(FaultKind::EarlyAnswer) || phase_ != Phase::Serving) return;
    const Endpoint* endpoint = find_endpoint(connection.request().path);
    if (endpoint == nullptr) return;
    FaultList early;
    for (Fault& fault : faults_.take(FaultKind::EarlyAnswer)) early.add(std::move(fault));
    const Fault fault = early.strike(endpoint->path, endpoint->generates, rng_);
    for (const Fault& left : early.all()) faults_.add(left);
    if (fault.kind == FaultKind::None) return;
    ++counters_.requests;
    answer_fault(connection, fault);
}

void Engine::Impl::on_request(Connection& connection) {
    ++counters_.requests;
    const http::RequestHead& head = connection.request();
    const Endpoint* endpoint = find_endpoint(head.path);
    if (!authorized(connection))
        return connection.respond(401, "application/json", R"({"error":"Unauthorized"})");
    if (endpoint == nullptr) return redirect_or_not_found(connection);
    if (head.method != endpoint->method &&
        (endpoint->other_method.empty() || head.method != endpoint->other_method))
        return kv::method_not_allowed(connection, endpoint->method);
    fault_ = {};
    if (!head.path.starts_with("/sim/")) {
        fault_ = faults_.strike(endpoint->path, endpoint->generates, rng_);
        if (fault_.kind != FaultKind::None && answer_fault(connection, fault_)) return;
    }
    (this->*endpoint->answer)(connection);
}

// As Starlette's router: a path that differs from one of ours by a last slash is sent there.
void Engine::Impl::redirect_or_not_found(Connection& connection) {
    std::string path(connection.request().path);
    const auto host = connection.request().fields.find(http::FieldId::Host);
    if (path.ends_with('/')) {
        path.pop_back();
    } else {
        path.push_back('/');
    }
    if (!host || find_endpoint(path) == nullptr) return kv::not_found(connection);
    connection.respond(307, "", "", "Location: http://" + std::string(*host) + path + "\r\n");
}

void Engine::Impl::on_client_gone(Connection& connection) {
    if (auto* generation = static_cast<Generation*>(connection.context())) generation->cancel();
}

void Engine::Impl::on_drained(Connection& connection) {
    if (auto* generation = static_cast<Generation*>(connection.context())) generation->drained();
}

void Engine::Impl::on_generation_over(Generation& generation) {
    const auto found = generations_.find(&generation);
    if (found == generations_.end()) return;
    old_generations_.push_back(std::move(found->second));  // it is still on the stack
    generations_.erase(found);
    loop_.defer(clean_up_);
}

bool Engine::Impl::authorized(const Connection& connection) const {
    if (options_.api_keys.empty()) return true;
    const std::string_view path = connection.request().path;
    bool guarded = false;
    for (const std::string_view prefix : {"/v1", "/v2", "/inference", "/cohere"})
        guarded |= path.starts_with(prefix);
    if (!guarded || connection.request().method == "OPTIONS") return true;
    const auto field = connection.request().fields.find(http::FieldId::Authorization);
    if (!field || field->size() < 7 || !http::equals_ignoring_case(field->substr(0, 7), "Bearer "))
        return false;
    for (const std::string& key : options_.api_keys)
        if (field->substr(7) == key) return true;
    return false;
}

bool Engine::Impl::is_json(const Connection& connection) const {
    const auto type = connection.request().fields.find(http::FieldId::ContentType);
    if (!type) return false;
    std::string_view name = type->substr(0, type->find(';'));
    while (!name.empty() && name.back() == ' ') name.remove_suffix(1);
    return http::equals_ignoring_case(name, "application/json");
}

void Engine::Impl::respond_error(Connection& connection, const ApiError& error) {
    connection.respond(error.status, "application/json", error_json(error));
}

// True: the request has its answer, or will never have one.
bool Engine::Impl::answer_fault(Connection& connection, const Fault& fault) {
    ++counters_.faults;
    std::string lines;
    if (fault.retry_after > 0) lines = "Retry-After: " + std::to_string(fault.retry_after) + "\r\n";
    switch (fault.kind) {
        case FaultKind::Status:
        case FaultKind::EarlyAnswer:
            connection.respond(fault.status, "application/json",
                               error_json(error_of_status(fault.status, fault.message)), lines);
            return true;
        case FaultKind::Hang:
            return true;
        case FaultKind::Garbage:
            connection.start_response(200, "\x01\x02 this is not HTTP\r\nContent-Length: zebra\r\n",
                                      5);
            connection.cut_response();
            return true;
        case FaultKind::GarbageBody:
            connection.respond(200, "application/json", "data: {\"id\": oh no\n\n\xff\xfe<html>");
            return true;
        case FaultKind::CloseBeforeAnswer:
            connection.cut_response();
            return true;
        case FaultKind::Refuse:
        case FaultKind::Restart:
            strike_whole_engine(fault);
            // The listener closes; this connection gets no answer.
            if (connection.serving()) connection.cut_response();
            return true;
        case FaultKind::Die:
            die("a fault struck");
            return false;
        default:
            return false;  // the generation's own
    }
}

// -- generating

void Engine::Impl::answer_chat(Connection& connection) { generate(connection, Api::Chat, fault_); }
void Engine::Impl::answer_completions(Connection& connection) {
    generate(connection, Api::Completions, fault_);
}
void Engine::Impl::answer_responses(Connection& connection) {
    generate(connection, Api::Responses, fault_);
}
void Engine::Impl::answer_messages(Connection& connection) {
    generate(connection, Api::Messages, fault_);
}

void Engine::Impl::generate(Connection& connection, Api api, const Fault& fault) {
    const Format& format = format_of(api);
    if (!is_json(connection)) {
        ApiError error = bad_request(
            "1 validation error:\n  Unsupported Media Type: Only 'application/json' is allowed");
        error.type = "Bad Request";
        return refuse_generation(connection, format, {error, nullptr});
    }
    auto request = read_request(api, connection.body().view(), options_);
    if (!request) return refuse_generation(connection, format, request.error());
    if (phase_ != Phase::Serving || !core_) {
        const ApiError lost = internal_error(
            "EngineCore encountered an issue. See stack trace (above) for the root cause.");
        return connection.respond(500, "application/json", format.error(lost));
    }
    const SchedulerCounts now = core_->scheduler_counts();
    const auto wanted = request->n * static_cast<std::uint32_t>(request->prompts.size());
    const bool queue_full =
        options_.timing.max_queued > 0 && now.waiting + wanted > options_.timing.max_queued;
    if (queue_full || now.running + now.waiting + now.loading + wanted > kSequencesMax) {
        ++counters_.admission_rejections;
        return refuse_generation(
            connection, format,
            {error_of_status(503, "The server has too many queued requests."), request->kv});
    }
    start_generation(connection, std::move(*request), fault);
}

void Engine::Impl::start_generation(Connection& connection, GenerateRequest request,
                                    const Fault& fault) {
    Scheduler* scheduler = nullptr;
    std::optional<ApiError> out_of_range;
    if (const auto field = connection.request().fields.find(http::FieldId::XDataParallelRank)) {
        std::int64_t rank = 0;
        const auto [end, error] =
            std::from_chars(field->data(), field->data() + field->size(), rank);
        const bool whole = error == std::errc() && end == field->data() + field->size();
        const auto ranks = static_cast<std::int64_t>(core_->ranks());
        if (whole && rank >= 0 && rank < ranks)
            scheduler = &core_->scheduler(static_cast<std::size_t>(rank));
        if (whole && scheduler == nullptr)
            out_of_range = bad_request("data_parallel_rank " + std::to_string(rank) +
                                       " is out of range [0, " + std::to_string(ranks) + ").");
    }
    if (scheduler == nullptr) scheduler = &core_->least_busy();

    const std::string id = request_id(connection, request.request_id);
    std::string lines;
    if (options_.enable_request_id_headers && is_field_value(id))
        lines = "X-Request-Id: " + id + "\r\n";
    auto made = std::make_unique<Generation>(context_, *this, *scheduler, connection,
                                             std::move(request), fault);
    Generation& generation = *made;
    generations_.emplace(&generation, std::move(made));
    connection.set_context(&generation);
    if (out_of_range) return generation.fail(*out_of_range);
    core_->note_generation(scheduler->rank());
    generation.start(id, unix_time(), lines);
    connection.release_request();
}

void Engine::Impl::refuse_generation(Connection& connection, const Format& format,
                                     const Refusal& refusal) {
    // P is told that nobody will fetch what this request was to load.
    KvConnector* connector =
        core_ && core_->ranks() > 0 ? core_->scheduler(0).connector() : nullptr;
    if (refusal.kv && connector != nullptr && phase_ == Phase::Serving &&
        !connector->dropped(*refusal.kv, random_hex(rng_, 32)))
        die("KeyError: incomplete kv_transfer_params");
    connection.respond(refusal.error.status, "application/json", format.error(refusal.error));
}

std::string Engine::Impl::request_id(const Connection& connection, const std::string& of_body) {
    if (const auto field = connection.request().fields.find(http::FieldId::XRequestId);
        field && !field->empty())
        return std::string(*field);
    return of_body.empty() ? random_hex(rng_, 32) : of_body;
}

}  // namespace sluice::engine
