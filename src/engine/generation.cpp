// SPDX-License-Identifier: Apache-2.0
#include "engine/generation.h"

#include <algorithm>
#include <charconv>

#include "http/head_writer.h"

namespace sluice::engine {

namespace {

// Streams carry kv_transfer_params since 0.33.
bool at_least_0_33(std::string_view version) {
    int major = 0;
    int minor = 0;
    const auto dot = version.find('.');
    if (dot == std::string_view::npos) return true;
    std::from_chars(version.data(), version.data() + dot, major);
    std::from_chars(version.data() + dot + 1, version.data() + version.size(), minor);
    return major > 0 || minor >= 33;
}

}  // namespace

Generation::Generation(const Context& context, GenerationOwner& owner, Scheduler& scheduler,
                       http::ServerConnection& connection, GenerateRequest request,
                       const Fault& fault)
    : context_(context),
      owner_(owner),
      scheduler_(scheduler),
      connection_(&connection),
      request_(std::move(request)),
      format_(format_of(request_.api)),
      fault_(fault),
      answer_{
          .request = request_, .options = context.options, .id = {}, .model = {}, .choices = {}},
      keep_alive_(Delegate<void()>::to<&Generation::send_keep_alive>(*this)) {}

Generation::~Generation() { abort_sequences(); }

// -- start

SequenceSpec Generation::spec_of(const Choice& choice) const {
    const Prompt& prompt = request_.prompts[choice.prompt];
    SequenceSpec spec;
    spec.request_id = answer_.id;
    if (request_.api == Api::Completions) spec.request_id += "-" + std::to_string(choice.prompt);
    spec.request_id += "-" + random_hex(context_.rng, 8);
    if (request_.n > 1)
        spec.request_id = std::to_string(choice.index % request_.n) + "_" + spec.request_id;
    spec.prompt_tokens = prompt.tokens;
    spec.prompt_hash = prompt.hash;
    spec.choice = choice.index % request_.n;
    const std::uint32_t room = context_.options.timing.max_model_len - prompt.tokens;
    spec.max_tokens = std::min(request_.max_tokens.value_or(room), room);
    spec.min_tokens = request_.min_tokens;
    spec.ignore_eos = request_.ignore_eos;
    spec.stop_token_ids = request_.stop_token_ids;
    spec.eos_first = fault_.kind == FaultKind::EosFirst;
    if (fault_.kind == FaultKind::SlowFirstToken) spec.extra_delay = fault_.delay;
    spec.skips_cache_reads = request_.skips_cache_reads;
    spec.kv = request_.kv;
    return spec;
}

void Generation::start(const std::string& request_id, std::int64_t created,
                       const std::string& field_lines) {
    ++context_.counters.generations;
    answer_.id = std::string(format_.id_prefix()) + request_id;
    answer_.created = created;
    answer_.model = request_.model.empty() ? context_.options.model_name() : request_.model;
    answer_.kv_params_in_events = at_least_0_33(context_.options.version);
    const auto count = static_cast<std::uint32_t>(request_.prompts.size()) * request_.n;
    choices_left_ = count;
    for (std::uint32_t i = 0; i < count; ++i) {
        Choice& choice = answer_.choices.emplace_back();
        choice.index = i;
        choice.prompt = i / request_.n;
        choice.stops = StopMatcher(request_.stop, request_.include_stop);
    }
    if (request_.stream) {
        start_stream(field_lines);
        const bool comments = request_.api == Api::Chat || request_.api == Api::Completions;
        if (comments && context_.options.sse_keep_alive > Duration::zero())
            context_.loop.arm(keep_alive_, context_.options.sse_keep_alive);
    }
    if (fault_.kind == FaultKind::HangAfterHeaders) {
        if (!request_.stream)
            connection_->start_response(200, "Content-Type: application/json\r\n", std::nullopt);
        return;
    }
    for (Choice& choice : answer_.choices) choice.sequence = scheduler_.add(spec_of(choice), *this);
}

// The head goes out before anything is computed.
void Generation::start_stream(std::string_view field_lines) {
    TextWriter lines(connection_->texts());
    http::write_date(lines);
    lines.append("Content-Type: text/event-stream; charset=utf-8\r\n");
    lines.append(field_lines);
    const Slice kept = lines.finish();
    connection_->start_response(200, kept.view(), std::nullopt);
}

// -- output

void Generation::on_output(Sequence& sequence, const SequenceOutput& output) {
    if (over_) return;
    const auto found = std::ranges::find(answer_.choices, sequence.number, &Choice::sequence);
    if (found == answer_.choices.end()) return;
    Choice& choice = *found;
    if (output.finish == FinishReason::Error) {
        choice.sequence = 0;
        const bool event = request_.stream && !begun_;
        if (event) {
            begun_ = true;
            std::string out;
            format_.begin(answer_, out);
            write(out);
        }
        std::string out;
        if (request_.stream) {
            format_.error_event(answer_, &choice, internal_error(), out);
            write(out);
        }
        ++context_.counters.failed;
        tell_connector();
        http::ServerConnection* connection = connection_;
        over();
        if (request_.stream) return connection->end_response();
        return connection->respond(500, "application/json", format_.error(internal_error()));
    }
    if (output.kv_params != nullptr && choice.prompt == 0) answer_.kv_params = *output.kv_params;
    std::string fresh;
    take_text(choice, output, fresh);
    if (request_.stream) {
        std::string out;
        if (!begun_) {
            begun_ = true;
            format_.begin(answer_, out);
        }
        // A token whose text is held back for a stop string makes no event of its own.
        const bool silent =
            fresh.empty() && choice.finish == FinishReason::None && choice.new_token_ids.empty();
        if (!silent) format_.delta(answer_, choice, fresh, out);
        write(out);
        choice.new_token_ids.clear();
    }
    ++tokens_;
    if (struck_mid_stream()) return;
    if (choice.finish != FinishReason::None) choice_over(choice);
}

void Generation::take_text(Choice& choice, const SequenceOutput& output, std::string& fresh) {
    choice.output_tokens = output.output_tokens;
    choice.finish = output.finish;
    choice.stop_token = output.stop_token;
    if (output.token) {
        std::string text;
        append_token_text(*output.token, text);
        if (request_.return_token_ids) {
            choice.token_ids.push_back(*output.token);
            choice.new_token_ids.push_back(*output.token);
        }
        if (const std::string* hit = choice.stops.feed(text, fresh)) {
            choice.finish = FinishReason::Stop;
            choice.stop_string = *hit;
        }
    }
    if (choice.finish != FinishReason::None && choice.stop_string.empty())
        choice.stops.flush(fresh);
    // echo with max_tokens 0 asks for the prompt alone.
    if (request_.max_tokens == 0U) {
        fresh.clear();
        choice.output_tokens = 0;
    }
    choice.text += fresh;
}

void Generation::choice_over(Choice& choice) {
    // A stop string ends it here; the engine core must be told.
    scheduler_.abort(choice.sequence);
    choice.sequence = 0;
    if (--choices_left_ > 0) return;
    ++context_.counters.succeeded;
    if (!request_.stream) return answer_whole();
    std::string out;
    format_.end(answer_, out);
    write(out);
    http::ServerConnection* connection = connection_;
    over();
    connection->end_response();
}

void Generation::answer_whole() {
    const std::string body = format_.plain(answer_);
    http::ServerConnection* connection = connection_;
    over();
    connection->respond(200, "application/json", body);
}

void Generation::write(std::string_view text) {
    if (text.empty() || connection_ == nullptr) return;
    TextWriter writer(connection_->texts());
    writer.append(text);
    connection_->write(writer.finish());
    if (keep_alive_.armed()) context_.loop.arm(keep_alive_, context_.options.sse_keep_alive);
    if (connection_->congested() && !paused_) {
        paused_ = true;
        for (const Choice& choice : answer_.choices) scheduler_.pause(choice.sequence);
    }
}

void Generation::drained() {
    if (!paused_) return;
    paused_ = false;
    for (const Choice& choice : answer_.choices) scheduler_.resume(choice.sequence);
}

void Generation::send_keep_alive() {
    write(": keep-alive\n\n");
    context_.loop.arm(keep_alive_, context_.options.sse_keep_alive);
}

// -- other ends

bool Generation::struck_mid_stream() {
    if (tokens_ < fault_.after_events) return false;
    http::ServerConnection* connection = connection_;
    switch (fault_.kind) {
        case FaultKind::DieMidStream:
            over();
            connection->cut_response();
            return true;
        case FaultKind::StopMidStream:
            abort_sequences();
            return true;
        case FaultKind::ErrorEvent:
            fail(internal_error());
            return true;
        default:
            return false;
    }
}

void Generation::fail(const ApiError& error) {
    ++context_.counters.failed;
    std::string out;
    if (request_.stream) {
        if (!connection_->response_started()) start_stream({});
        if (!begun_ && !answer_.choices.empty()) format_.begin(answer_, out);
        format_.error_event(answer_, nullptr, error, out);
        write(out);
    }
    http::ServerConnection* connection = connection_;
    over();
    if (request_.stream) return connection->end_response();
    connection->respond(error.status, "application/json", format_.error(error));
}

void Generation::cancel() {
    if (over_) return;
    ++context_.counters.cancelled;
    connection_ = nullptr;
    const bool unanswered = choices_left_ > 0;
    over();
    if (unanswered) tell_connector();
}

// vLLM's server tells the connector of a whole answer that failed or was given up, at whatever
// point, so that P may free its blocks: an empty pull. Where P has freed them already, it takes one
// of P's seats until the abort timeout.
void Generation::tell_connector() {
    const KvParams* kv = request_.kv.get();
    KvConnector* connector = scheduler_.connector();
    if (request_.stream || kv == nullptr || !kv->do_remote_prefill ||
        connector == nullptr)
        return;
    if (!connector->dropped(*kv, answer_.id.substr(format_.id_prefix().size())))
        context_.die("KeyError: incomplete kv_transfer_params");
}

void Generation::abort_sequences() {
    for (Choice& choice : answer_.choices)
        if (choice.sequence != 0) scheduler_.abort(std::exchange(choice.sequence, 0));
}

void Generation::over() {
    if (over_) return;
    over_ = true;
    keep_alive_.cancel();
    abort_sequences();
    if (connection_ != nullptr) connection_->set_context(nullptr);
    owner_.on_generation_over(*this);
}

}  // namespace sluice::engine
