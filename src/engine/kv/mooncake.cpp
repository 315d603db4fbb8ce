// SPDX-License-Identifier: Apache-2.0
#include "engine/kv/mooncake.h"

#include "json/text.h"
#include "engine/kv/peer_address.h"

namespace sluice::engine {

namespace {

// Up to 0.15 the request id is the link, without what the engine appended.
std::string without_suffix(const std::string& request_id) {
    return request_id.substr(0, request_id.rfind('-'));
}

}  // namespace

MooncakeConnector::MooncakeConnector(const Context& context, KvHost& host, http::Calls& calls,
                                     SideChannel& channel, std::string engine_id)
    : context_(context),
      host_(host),
      channel_(channel),
      engine_id_(std::move(engine_id)),
      receiver_(context, calls, channel) {}

Result<std::vector<io::Address>> MooncakeConnector::open(const io::Address& address) {
    for (std::uint32_t rank = 0; rank < context_.options.tensor_parallel; ++rank) {
        senders_.push_back(std::make_unique<MooncakeSender>(context_, *this, rank));
        const auto bound = channel_.listen(address, *senders_.back());
        if (!bound) return std::unexpected(bound.error());
        addresses_.push_back(*bound);
    }
    return addresses_;
}

void MooncakeConnector::stop() {
    receiver_.stop();
    for (auto& sender : senders_) sender->stop();
}

bool MooncakeConnector::role_fits(const KvParams& params) const {
    if (params.do_remote_prefill && context_.options.kv.role == KvRole::Producer) return false;
    return !(params.do_remote_decode && context_.options.kv.role == KvRole::Consumer);
}

bool MooncakeConnector::loads(const Sequence& sequence) const {
    return sequence.spec.kv->do_remote_prefill;
}

bool MooncakeConnector::names_peer(const KvParams& params) const {
    if (context_.options.kv.sequential) return params.remote_host && params.remote_port;
    return params.transfer_id && params.remote_engine_id && params.remote_bootstrap_addr;
}

PullRequest MooncakeConnector::pull_request(const KvParams& params, const std::string& request_id,
                                            std::uint32_t blocks) const {
    PullRequest request;
    request.request = request_id;
    request.blocks = blocks;
    if (context_.options.kv.sequential) {
        request.transfer = without_suffix(request_id);
        request.direct_peer =
            "tcp://" + *params.remote_host + ":" + std::to_string(*params.remote_port);
        return request;
    }
    request.transfer = *params.transfer_id;
    request.engine_id = *params.remote_engine_id;
    request.bootstrap = *params.remote_bootstrap_addr;
    return request;
}

// -- D

void MooncakeConnector::start_load(Sequence& sequence) {
    const KvParams& params = *sequence.spec.kv;
    if (!names_peer(params)) {
        // The scheduler waits for a load that nobody makes: the request hangs.
        context_.log("Got invalid KVTransferParams. This request will not utilize KVTransfer");
        return;
    }
    const std::uint32_t size = context_.options.timing.block_size;
    PullRequest request = pull_request(params, sequence.spec.request_id,
                                       (sequence.spec.prompt_tokens + size - 1) / size);
    request.on_end = [this, number = sequence.number](std::optional<std::uint64_t> content) {
        host_.load_ended(number, content);
    };
    receiver_.pull(std::move(request));
}

// A proper load goes on. An improper one is taken for one that was never scheduled, and its
// parameters are looked up.
bool MooncakeConnector::load_abandoned(Sequence& sequence) {
    const KvParams& params = *sequence.spec.kv;
    return names_peer(params) || !params.transfer_id;
}

// An empty pull tells P that it may free its blocks.
bool MooncakeConnector::dropped(const KvParams& params, const std::string& request_id) {
    if (!params.do_remote_prefill) return true;
    if (!names_peer(params)) return !params.transfer_id;
    receiver_.pull(pull_request(params, request_id, 0));
    return true;
}

// -- P

std::string MooncakeConnector::transfer_of(const Sequence& sequence) const {
    const KvParams* params = sequence.spec.kv.get();
    if (params == nullptr || !params->do_remote_decode || senders_.empty()) return {};
    if (context_.options.kv.sequential) return without_suffix(sequence.spec.request_id);
    return params->transfer_id.value_or(std::string());
}

void MooncakeConnector::allocated(Sequence& sequence) {
    const std::string transfer = transfer_of(sequence);
    if (transfer.empty()) {
        if (sequence.spec.kv && sequence.spec.kv->do_remote_decode)
            context_.log("Missing transfer_id in kv_transfer_params from router!");
        return;
    }
    for (auto& sender : senders_) sender->expect(transfer, sequence.number);
}

bool MooncakeConnector::finished(Sequence& sequence, FinishReason reason) {
    const std::string transfer = transfer_of(sequence);
    if (transfer.empty() || sequence.blocks.empty()) return false;
    // Only what ended by length is handed over; an end-of-sequence token loses the transfer.
    if (reason != FinishReason::Length) {
        for (auto& sender : senders_) sender->drop(transfer);
        return false;
    }
    held_[sequence.number] = {sequence.blocks, static_cast<std::uint32_t>(senders_.size())};
    for (auto& sender : senders_) sender->ready(transfer, sequence.number, sequence.blocks);
    if (context_.options.kv.sequential) {
        const io::Address& address = addresses_.front();
        const std::string text = address.text();
        json::JsonText json;
        json.begin_object().member("do_remote_prefill", true).member("do_remote_decode", false);
        json.member("remote_host", text.substr(0, text.rfind(':')))
            .member("remote_port", address.port());
        sequence.returned_params = std::move(json.end_object().text);
    }
    return true;
}

void MooncakeConnector::on_sender_done(std::uint64_t p_request) {
    const auto found = held_.find(p_request);
    if (found == held_.end() || --found->second.workers_left > 0) return;
    const std::vector<BlockId> blocks = std::move(found->second.blocks);
    held_.erase(found);
    host_.release_blocks(blocks);
}

ConnectorCounts MooncakeConnector::counts() const {
    ConnectorCounts counts;
    for (const auto& sender : senders_) {
        counts.transfers_live += sender->transfers();
        counts.seats_taken += sender->seats_taken();
        counts.pulls_queued += sender->pulls_queued();
    }
    counts.pulls_waiting = receiver_.waiting();
    for (const auto& [request, held] : held_)
        counts.blocks_held += static_cast<std::uint32_t>(held.blocks.size());
    return counts;
}

}  // namespace sluice::engine
