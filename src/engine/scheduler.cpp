// SPDX-License-Identifier: Apache-2.0
#include "engine/scheduler.h"

#include <algorithm>

namespace sluice::engine {

namespace {

constexpr std::uint32_t kSequencesMax = 1 << 20;
constexpr std::uint32_t kTokensAtOnce = 64;  // then others get a turn
constexpr std::size_t kPoisonedMax = 4096;

bool contains(const std::vector<Token>& tokens, Token token) {
    return std::ranges::find(tokens, token) != tokens.end();
}

}  // namespace

Sequence::Sequence(Scheduler& scheduler, SequenceSpec of, SequenceEvents& events,
                   std::uint64_t its_number)
    : spec(std::move(of)),
      number(its_number),
      content(spec.prompt_hash),
      scheduler_(scheduler),
      events_(&events),
      timer_(Delegate<void()>::to<&Sequence::on_timer>(*this)) {}

void Sequence::on_timer() { scheduler_.advance(*this); }

Scheduler::Scheduler(const Context& context, std::uint32_t rank)
    : context_(context),
      rank_(rank),
      pool_(context.options.timing.blocks),
      slab_(kSequencesMax),
      schedule_(Delegate<void()>::to<&Scheduler::schedule>(*this)) {}

Scheduler::~Scheduler() { schedule_.cancel(); }

Sequence* Scheduler::find(std::uint64_t number) {
    const auto found = sequences_.find(number);
    return found == sequences_.end() ? nullptr : slab_.get(found->second);
}

std::uint64_t Scheduler::add(SequenceSpec spec, SequenceEvents& events) {
    context_.counters.prompt_tokens += spec.prompt_tokens;
    Sequence* sequence = slab_.emplace(*this, std::move(spec), events, next_number_++);
    ASSERT(sequence != nullptr);
    sequences_.emplace(sequence->number, slab_.handle_of(*sequence));
    waiting_.push_back(*sequence);
    ++queued_;
    context_.loop.defer(schedule_);
    return sequence->number;
}

SchedulerCounts Scheduler::counts() const {
    return {running_, queued_, loading_, pool_.used(), pool_.total()};
}

// -- scheduling

std::uint32_t Scheduler::output_length(const SequenceSpec& spec) const {
    const ModelOptions& model = context_.options.timing;
    const std::uint32_t natural = std::max(model.output_tokens + 1, spec.min_tokens + 1);
    const std::uint32_t wanted =
        spec.ignore_eos ? spec.max_tokens : std::min(spec.max_tokens, natural);
    return std::min(wanted, model.max_model_len);
}

// All that the sequence will ever need, so that none has to be preempted.
std::uint32_t Scheduler::blocks_for(const SequenceSpec& spec) const {
    const std::uint32_t size = context_.options.timing.block_size;
    // One token's KV is not written: that of the last one.
    const std::uint32_t tokens = spec.prompt_tokens + std::max(output_length(spec), 1U) - 1;
    return std::max((tokens + size - 1) / size, 1U);
}

void Scheduler::schedule() {
    while (Sequence* sequence = waiting_.front()) {
        if (running_ >= context_.options.timing.max_num_seqs) return;
        if (!place(*sequence)) return;
    }
}

// False: it does not fit now, and those behind it wait too.
bool Scheduler::place(Sequence& sequence) {
    const ModelOptions& model = context_.options.timing;
    if (sequence.state_ == Sequence::State::Loaded) {
        // The last prompt token is computed again: one step.
        sequence.unlink();
        --queued_;
        run(sequence, model.between_tokens + sequence.spec.extra_delay);
        return true;
    }
    const KvParams* kv = sequence.spec.kv.get();
    if (kv != nullptr && connector_ != nullptr && !connector_->role_fits(*kv)) {
        context_.die("AssertionError: the request's KV role does not fit kv_role");
        return false;
    }
    const std::uint32_t needed = blocks_for(sequence.spec);
    if (needed > pool_.total()) {
        sequence.unlink();
        --queued_;
        finish(sequence, {std::nullopt, FinishReason::Error, std::nullopt, 0, nullptr});
        return true;
    }
    if (!pool_.allocate(needed, sequence.blocks)) return false;
    sequence.unlink();
    --queued_;

    if (kv != nullptr && connector_ != nullptr && connector_->loads(sequence)) {
        context_.counters.external_queries += sequence.spec.prompt_tokens;
        if (!sequence.spec.skips_cache_reads) {
            sequence.state_ = Sequence::State::Loading;
            ++loading_;
            connector_->start_load(sequence);
            return true;
        }
        if (!connector_->dropped(*kv, sequence.spec.request_id)) {
            context_.die("KeyError: incomplete kv_transfer_params");
            return false;
        }
    } else if (kv == nullptr || !kv->do_remote_prefill) {
        if (const auto bad = poisoned_.find(sequence.spec.prompt_hash); bad != poisoned_.end())
            sequence.content = bad->second;
    }
    if (connector_ != nullptr) connector_->allocated(sequence);
    context_.counters.prompt_tokens_computed += sequence.spec.prompt_tokens;
    run(sequence, model.first_token +
                      model.first_token_per_prompt_token * sequence.spec.prompt_tokens +
                      sequence.spec.extra_delay);
    return true;
}

void Scheduler::run(Sequence& sequence, Duration first_token) {
    sequence.state_ = Sequence::State::Running;
    ++running_;
    pool_.write(sequence.blocks, sequence.content);
    sequence.due_ = context_.loop.now() + first_token;
    context_.loop.arm(sequence.timer_, first_token);
}

// -- loads

void Scheduler::load_ended(std::uint64_t number, std::optional<std::uint64_t> content) {
    Sequence* sequence = find(number);
    if (sequence == nullptr || sequence->state_ != Sequence::State::Loading) return;
    --loading_;
    if (sequence->events_ ==
        nullptr) {  // given up meanwhile; only now may its blocks be used again
        pool_.release(sequence->blocks);
        forget(*sequence);
        context_.loop.defer(schedule_);
        return;
    }
    if (content) {
        context_.counters.prompt_tokens_external += sequence->spec.prompt_tokens;
        sequence->content = *content;
        note_content(*sequence);
    } else if (context_.options.kv.failure_policy == LoadFailurePolicy::Fail) {
        finish(*sequence, {std::nullopt, FinishReason::Error, std::nullopt, 0, nullptr});
        return;
    } else {
        context_.counters.prompt_tokens_computed += sequence->spec.prompt_tokens;
        const ModelOptions& model = context_.options.timing;
        // It computes the prompt itself, for which it needs a slot; it goes before those that never
        // had one.
        run(*sequence,
            model.first_token + model.first_token_per_prompt_token * sequence->spec.prompt_tokens);
        return;
    }
    sequence->state_ = Sequence::State::Loaded;
    waiting_.push_front(*sequence);
    ++queued_;
    context_.loop.defer(schedule_);
}

// The prefix cache keeps full blocks, whatever they hold: a wrong load spoils later requests for
// the same prompt.
void Scheduler::note_content(const Sequence& sequence) {
    const std::uint64_t hash = sequence.spec.prompt_hash;
    if (sequence.content == hash) {
        poisoned_.erase(hash);
    } else if (sequence.spec.prompt_tokens > context_.options.timing.block_size) {
        if (poisoned_.size() >= kPoisonedMax) poisoned_.clear();
        poisoned_[hash] = sequence.content;
    }
}

void Scheduler::release_blocks(std::span<const BlockId> blocks) {
    pool_.release(blocks);
    context_.loop.defer(schedule_);
}

// -- tokens

void Scheduler::advance(Sequence& sequence) {
    const Instant now = context_.loop.now();
    const Duration between = context_.options.timing.between_tokens;
    for (std::uint32_t i = 0; i < kTokensAtOnce && sequence.due_ <= now; ++i) {
        if (sequence.paused_) return;
        const Handle handle = slab_.handle_of(sequence);
        if (!emit(sequence) || slab_.get(handle) == nullptr) return;
        sequence.due_ += between;
    }
    context_.loop.arm(sequence.timer_, std::max(Duration::zero(), sequence.due_ - now));
}

Token Scheduler::pick(const Sequence& sequence) const {
    const Text text(sequence.content, sequence.spec.choice);
    const auto& stops = sequence.spec.stop_token_ids;
    std::uint32_t attempt = 0;
    Token token = text.token(sequence.position_);
    // Before min_tokens a stop token is masked: the model says something else.
    while (sequence.position_ < sequence.spec.min_tokens && attempt < 8 && contains(stops, token))
        token = text.token(sequence.position_, ++attempt);
    return token;
}

// False: the sequence has finished and is gone.
bool Scheduler::emit(Sequence& sequence) {
    const SequenceSpec& spec = sequence.spec;
    const std::uint32_t end = spec.eos_first ? 0 : context_.options.timing.output_tokens;
    SequenceOutput output;
    output.output_tokens = sequence.position_ + 1;
    ++context_.counters.generated_tokens;
    if (!spec.ignore_eos && sequence.position_ >= std::max(end, spec.min_tokens)) {
        output.finish = FinishReason::Stop;
    } else {
        const Token token = pick(sequence);
        if (sequence.position_ >= spec.min_tokens && contains(spec.stop_token_ids, token)) {
            output.finish = FinishReason::Stop;
            output.stop_token = token;
        } else {
            output.token = token;
            if (output.output_tokens >= spec.max_tokens ||
                spec.prompt_tokens + output.output_tokens >= context_.options.timing.max_model_len)
                output.finish = FinishReason::Length;
        }
    }
    ++sequence.position_;
    if (output.finish != FinishReason::None) {
        finish(sequence, output);
        return false;
    }
    sequence.events_->on_output(sequence, output);
    return true;
}

// -- ends

void Scheduler::finish(Sequence& sequence, const SequenceOutput& output) {
    ++context_.counters.finished[static_cast<std::size_t>(output.finish)];
    if (sequence.state_ == Sequence::State::Running) --running_;
    sequence.state_ = Sequence::State::Finished;
    sequence.timer_.cancel();
    const bool held = connector_ != nullptr && connector_->finished(sequence, output.finish);
    if (!held) pool_.release(sequence.blocks);
    SequenceEvents* events = std::exchange(sequence.events_, nullptr);
    if (events != nullptr) {
        SequenceOutput last = output;
        if (!sequence.returned_params.empty()) last.kv_params = &sequence.returned_params;
        events->on_output(sequence, last);
    }
    forget(sequence);
    context_.loop.defer(schedule_);
}

void Scheduler::forget(Sequence& sequence) {
    sequences_.erase(sequence.number);
    slab_.erase(sequence);
}

void Scheduler::abort(std::uint64_t number) {
    Sequence* sequence = find(number);
    if (sequence == nullptr || sequence->events_ == nullptr) return;
    sequence->events_ = nullptr;
    switch (sequence->state_) {
        case Sequence::State::Finished:
            return;
        case Sequence::State::Loading:
            // The other side may still write to the blocks: load_ended() comes one day, and frees
            // them.
            ++context_.counters.finished[static_cast<std::size_t>(FinishReason::Abort)];
            if (!connector_->load_abandoned(*sequence))
                context_.die("KeyError: incomplete kv_transfer_params");
            return;
        case Sequence::State::Waiting:
        case Sequence::State::Loaded:
        case Sequence::State::Running:
            break;
    }
    const bool was_waiting = sequence->state_ == Sequence::State::Waiting;
    if (sequence->linked()) {
        sequence->unlink();
        --queued_;
    }
    const std::shared_ptr<const KvParams> kv = sequence->spec.kv;
    const std::string id = sequence->spec.request_id;
    finish(*sequence, {std::nullopt, FinishReason::Abort, std::nullopt, 0, nullptr});
    if (was_waiting && kv && kv->do_remote_prefill && connector_ != nullptr &&
        !connector_->dropped(*kv, id))
        context_.die("KeyError: incomplete kv_transfer_params");
}

void Scheduler::pause(std::uint64_t number) {
    if (Sequence* sequence = find(number)) sequence->paused_ = true;
}

void Scheduler::resume(std::uint64_t number) {
    Sequence* sequence = find(number);
    if (sequence == nullptr || !sequence->paused_) return;
    sequence->paused_ = false;
    if (sequence->state_ == Sequence::State::Running)
        context_.loop.arm(sequence->timer_,
                          std::max(Duration::zero(), sequence->due_ - context_.loop.now()));
}

void Scheduler::fail_all() {
    std::vector<std::uint64_t> numbers;
    for (const auto& [number, handle] : sequences_) numbers.push_back(number);
    std::ranges::sort(numbers);  // the map's order is not the same everywhere
    for (const std::uint64_t number : numbers) {
        Sequence* sequence = find(number);
        if (sequence == nullptr || sequence->state_ == Sequence::State::Finished) continue;
        if (sequence->state_ == Sequence::State::Loading) --loading_;
        if (sequence->linked()) {
            sequence->unlink();
            --queued_;
        }
        finish(*sequence, {std::nullopt, FinishReason::Error, std::nullopt, 0, nullptr});
    }
}

}  // namespace sluice::engine
