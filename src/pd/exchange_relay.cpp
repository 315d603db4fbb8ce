// SPDX-License-Identifier: Apache-2.0
// The exchange's side of the KV relay: a transfer for each attempt, what P's answer means for it,
// and the way around the relay if D cannot reach it.
#include "pd/exchange.h"
#include "pd/prefill_end.h"
#include "pd/proxy.h"

namespace sluice::pd {

void Exchange::open_transfer() {
    if (proxy_.relay_ == nullptr || direct_only_) return;
    auto opened = proxy_.relay_->open(*this, timeline_.prefill_index, rank_.engine_id,
                                      timeline_.decode_index);
    if (!opened) return;
    transfer_ = std::move(*opened);
    transfer_id_.assign(transfer_.transfer_id);
    relayed_ = true;
}

// The attempt is over. A prefill that still runs is left to finish: if D's pull is with it already
// it serves that, otherwise the relay frees its blocks when it is done.
void Exchange::close_transfer() {
    if (!std::exchange(relayed_, false)) return;
    decode_may_pull_ = proxy_.relay_->handed_on(transfer_.transfer);
    const bool runs = prefill_ != nullptr && prefill_->sent();
    if (!proxy_.relay_->close(transfer_.transfer, runs)) return;
    prefill_->set_transfer(transfer_.transfer);
    proxy_.let_prefill_finish(*std::exchange(prefill_, nullptr));
}

void Exchange::on_no_pull() {
    if (phase_ != Phase::Trying) return;
    proxy_.relay_->block_way(transfer_.transfer, proxy_.fleet_->decode[timeline_.decode_index].url);
    go_direct();
}

// D failed without a pull, and has never made one: its way to us may be the reason.
bool Exchange::relay_unreachable(std::uint16_t decode_status) {
    if (decode_status < 500 || decode_status == 503 || decode_status == 501 ||
        !proxy_.relay_->way_doubtful(transfer_.transfer))
        return false;
    proxy_.relay_->block_way(transfer_.transfer, proxy_.fleet_->decode[timeline_.decode_index].url);
    return true;
}

// The same again without the relay. It is no instance's fault and costs no retry.
void Exchange::go_direct() {
    direct_only_ = true;
    end_legs();
    answer_.clear();
    attempt();
}

// P answered 200, but its first token ended the answer, so it keeps no blocks for anybody. D alone
// gives the right answer.
bool Exchange::prefill_has_stopped() {
    if (!prefill_stopped(proxy_.scanner_, route_.api, prefill_answer_.view())) return false;
    proxy_.relay_->failed(transfer_.transfer, true);
    proxy_.metrics_.decode_fallbacks.add();
    stopped_early_ = true;
    end_legs();
    answer_.clear();
    attempt();
    return true;
}

}  // namespace sluice::pd
