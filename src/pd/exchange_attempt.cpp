// SPDX-License-Identifier: Apache-2.0
// One attempt: choose a pair, start the legs in the dialect's order.
#include <algorithm>

#include "json/value.h"
#include "pd/exchange.h"
#include "pd/proxy.h"

namespace sluice::pd {

namespace {

// While P's engine ids are in doubt: how often D's leg looks whether they are confirmed, and how
// long after P's answer that goes on.
constexpr Duration kIdsPoll = std::chrono::milliseconds(2);
constexpr Duration kIdsWaitMax = std::chrono::seconds(5);

}  // namespace

std::string_view Exchange::affinity_key(char (&scratch)[256]) const {
    if (const auto session = client_->request().fields.find(http::FieldId::XSessionId))
        return *session;
    const json::Member& user = scan_[kUser];
    if (user.kind != json::Kind::String) return {};
    return json::as_string(user, client_->body().view(), scratch).value_or(std::string_view());
}

// Ids are new for every attempt: two lives of one transfer id mix two prompts' blocks.
void Exchange::write_attempt_ids() {
    constexpr std::string_view kHex = "0123456789abcdef";
    transfer_id_.assign("xfer-");
    for (int word = 0; word < 2; ++word) {
        std::uint64_t value = proxy_.rng_();
        for (int digit = 0; digit < 16; ++digit, value >>= 4)
            transfer_id_.push_back(kHex[value & 15]);
    }
}

LegHeadFacts Exchange::leg_head_facts() const {
    LegHeadFacts facts;
    facts.request_id = request_id_;
    facts.attempt = timeline_.attempts;
    facts.upstream_api_key = proxy_.options_.upstream_api_key;
    facts.drop_authorization = !proxy_.options_.api_keys.empty();
    return facts;
}

void Exchange::attempt() {
    ++timeline_.attempts;
    proxy_.metrics_.attempts.add();
    prefill_done_ = decode_may_pull_ = blame_both_ = false;
    prefill_answer_.clear();
    prefill_params_ = {};
    dialect_ = nullptr;
    timeline_.forget_legs();
    whole_on_decode_ = route_.serve != Serve::PrefillDecode ||
                       scan_.whole_on_decode != WholeOnDecode::No || stopped_early_;
    answer_.reset(route_.api, route_.serve != Serve::PrefillDecode);
    write_attempt_ids();
    if (!choose_instances()) return;
    if (whole_on_decode_) {
        start_decode();
    } else {
        start_prefill();
    }
}

// Both are chosen, and counted as load, at the start; a pair that cannot be made whole is no
// attempt.
bool Exchange::choose_instances() {
    char scratch[256];
    const std::string_view key = affinity_key(scratch);
    const fleet::Instance* prefill = nullptr;
    Proxy::Pick pick;
    if (!whole_on_decode_) {
        pick = proxy_.pick(fleet::Role::Prefill, tried_prefill_, key, true);
        prefill = pick.instance;
        if (prefill == nullptr) {
            if (!proxy_.options_.decode_fallback) {
                answer_error(503, "no prefill instance can serve now", Outcome::Unavailable);
                return false;
            }
            proxy_.metrics_.decode_fallbacks.add();
            whole_on_decode_ = true;
        }
    }
    if (prefill != nullptr) {
        prefill_ = proxy_.new_leg(*this, pick);
        prefill_->enter_load(static_cast<std::int64_t>(client_->body().size));
        timeline_.prefill_index = prefill->index;
        dialect_ = dialect_of(prefill->dialect);
        timeline_.dialect = prefill->dialect;
        if (!prefill->ranks.empty()) {
            const auto turn = prefill->state->rank_cursor.fetch_add(1, std::memory_order_relaxed);
            rank_ = prefill->ranks[turn % prefill->ranks.size()];
        }
    }
    pick = proxy_.pick(fleet::Role::Decode, tried_decode_, key, false);
    if (pick.instance == nullptr) {
        end_legs();
        answer_error(503, "no decode instance can serve now", Outcome::Unavailable);
        return false;
    }
    decode_ = proxy_.new_leg(*this, pick);
    decode_->enter_load(0);
    timeline_.decode_index = pick.instance->index;
    if (prefill != nullptr && dialect_->can_be_relayed()) open_transfer();
    return true;
}

AttemptFacts Exchange::attempt_facts() const {
    const fleet::Instance& prefill = proxy_.fleet_->prefill[timeline_.prefill_index];
    AttemptFacts facts{&prefill, &rank_, transfer_id_, prefill.bootstrap_url, rank_.engine_id};
    if (relayed_) {
        facts.bootstrap_url = transfer_.bootstrap_url;
        facts.engine_id = transfer_.engine_id;
    }
    return facts;
}

void Exchange::start_prefill() {
    const fleet::Instance& instance = proxy_.fleet_->prefill[timeline_.prefill_index];
    LegHeadFacts head_facts = leg_head_facts();
    if (!instance.ranks.empty()) head_facts.rank = &rank_;
    SliceQueue message =
        make_prefill_message(client_->texts(), client_->request(), client_->body(), scan_,
                             route_.api, instance, head_facts, *dialect_, attempt_facts());
    if (message.empty()) {
        end_legs();
        return answer_error(503, "out of buffer memory", Outcome::Overload);
    }
    // Asked anew even if it was asked in vain: the answer that counts is of after this.
    if (!instance.ids_sure()) instance.state->doubt_ids();
    ids_doubts_ = instance.state->ids_doubts.load(std::memory_order_acquire);
    timeline_.prefill_began = proxy_.loop_.now();
    timeline_.prefill_out += message.bytes() - message[0].size;  // less the head
    prefill_->send(proxy_.pool(fleet::Role::Prefill, timeline_.prefill_index), std::move(message),
                   proxy_.options_.prefill_timeout, false);
    if (dialect_->order() == LegOrder::Sequential) return;
    const Duration delay = decode_delay();
    // Its pull waits with the relay, so D need not.
    if (delay <= Duration::zero() || (relayed_ && !prefill_suspect())) start_decode();
    if (delay > Duration::zero()) {
        if (prefill_ != nullptr) proxy_.loop_.arm(phase_timer_, delay);
    } else if (relayed_) {
        proxy_.relay_->accept_likely(transfer_.transfer);
    }
}

bool Exchange::prefill_suspect() const {
    const fleet::Instance& instance = proxy_.fleet_->prefill[timeline_.prefill_index];
    return instance.state->consecutive_failures.load(std::memory_order_relaxed) > 0 ||
           !instance.ids_sure();
}

Duration Exchange::decode_delay() {
    const fleet::InstanceState& state = prefill_->state();
    const bool suspect = state.consecutive_failures.load(std::memory_order_relaxed) > 0;
    return proxy_.pace_[timeline_.prefill_index].delay(client_->body().size, suspect,
                                                       proxy_.options_.decode_delay_max);
}

// Makes rank_ what it is in P's present life: P's leg went to whoever listens there now, and a
// decode that is told an engine id of a former life waits for a dead port. The ids of before serve
// on only if P lives without its bootstrap server. False: D's leg has to wait (a timer or P's
// answer looks again), or the attempt has failed.
bool Exchange::settle_rank() {
    const fleet::Instance& instance = proxy_.fleet_->prefill[timeline_.prefill_index];
    const auto known =
        std::ranges::find(instance.ranks, rank_.rank, &fleet::DataParallelRank::rank);
    const bool is_known = known != instance.ranks.end();
    if (!instance.ids_sure() || !is_known) {
        if (prefill_done_ && is_known && instance.ids_without_answer(ids_doubts_done_)) return true;
        if (!prefill_done_ || proxy_.loop_.now() - timeline_.prefill_ended < kIdsWaitMax) {
            proxy_.loop_.arm(phase_timer_, kIdsPoll);
            return false;
        }
        return fail_restarted();
    }
    if (known->engine_id == rank_.engine_id) return true;
    // A prefill that began before the restart was computed by nobody who still lives.
    const bool same_life =
        !prefill_done_ || ids_doubts_ == instance.state->ids_doubts.load(std::memory_order_acquire);
    // The relay's transfer was opened with the worker of before.
    if (!same_life || relayed_) return fail_restarted();
    rank_ = *known;
    return true;
}

// D waits for blocks that have gone with P's former life, and nobody will tell it.
void Exchange::fleet_changed() {
    if (phase_ != Phase::Trying || whole_on_decode_ || dialect_->order() != LegOrder::Concurrent)
        return;
    const auto& ranks = proxy_.fleet_->prefill[timeline_.prefill_index].ranks;
    if (decode_ != nullptr && decode_->sent() && std::ranges::find(ranks, rank_) == ranks.end())
        fail_restarted();
}

bool Exchange::fail_restarted() {
    AttemptFailure failure;
    failure.message = "the prefill instance was restarted";
    prefill_done_ = false;
    attempt_failed(std::move(failure));
    return false;
}

void Exchange::start_decode() {
    if (decode_->sent()) return;
    if (!whole_on_decode_ && dialect_->order() == LegOrder::Concurrent && !settle_rank()) return;
    phase_timer_.cancel();
    const fleet::Instance& instance = proxy_.fleet_->decode[timeline_.decode_index];
    SliceQueue message;
    if (route_.serve != Serve::PrefillDecode && !route_.edits_kv) {
        message = make_plain_message(client_->texts(), client_->request(), client_->body(),
                                     instance, leg_head_facts());
    } else {
        message = make_decode_message(
            client_->texts(), client_->request(), client_->body(), scan_, instance,
            leg_head_facts(), whole_on_decode_ ? nullptr : dialect_,
            whole_on_decode_ ? AttemptFacts() : attempt_facts(), prefill_params_);
    }
    if (message.empty()) {
        end_legs();
        return answer_error(503, "out of buffer memory", Outcome::Overload);
    }
    timeline_.decode_sent = proxy_.loop_.now();
    timeline_.decode_out += message.bytes() - message[0].size;
    decode_may_pull_ = !whole_on_decode_;
    decode_->send(proxy_.pool(fleet::Role::Decode, timeline_.decode_index), std::move(message),
                  kForever, client_->is_head_method());
    if (relayed_) proxy_.relay_->decode_sent(transfer_.transfer);
    arm_first_token_timer();
}

}  // namespace sluice::pd
