// SPDX-License-Identifier: Apache-2.0
#include "engine/kv/nixl.h"

#include "json/text.h"
#include "engine/kv/peer_address.h"

namespace sluice::engine {

// P's promise to keep a request's blocks.
struct NixlConnector::Lease {
    Lease(NixlConnector& of, std::string id, std::vector<BlockId> its_blocks)
        : connector(of),
          request(std::move(id)),
          blocks(std::move(its_blocks)),
          expiry(Delegate<void()>::to<&Lease::on_expiry>(*this)) {}
    void on_expiry() { connector.lease_over(request, true); }

    NixlConnector& connector;
    const std::string request;
    const std::vector<BlockId> blocks;
    Timer expiry;
};

// D's reading of one request's blocks.
struct NixlConnector::Read {
    Read(NixlConnector& of, std::uint64_t its_sequence)
        : connector(of),
          sequence(its_sequence),
          silence(Delegate<void()>::to<&Read::on_silence>(*this)) {}
    void on_silence() { connector.read_over(pull, std::nullopt); }

    NixlConnector& connector;
    std::uint64_t sequence;  // 0: nobody waits
    std::uint64_t pull = 0;
    Timer silence;
};

NixlConnector::NixlConnector(const Context& context, KvHost& host, SideChannel& channel,
                             std::string engine_id)
    : context_(context),
      host_(host),
      channel_(channel),
      engine_id_(std::move(engine_id)),
      report_(Delegate<void()>::to<&NixlConnector::report_failures>(*this)) {}

NixlConnector::~NixlConnector() { stop(); }

Result<io::Address> NixlConnector::open(const io::Address& address) {
    const auto bound = channel_.listen(address, *this);
    if (!bound) return bound;
    address_ = *bound;
    const std::string text = bound->text();
    host_name_ = context_.options.kv.nixl_host;
    if (host_name_.empty()) host_name_ = text.substr(0, text.rfind(':'));
    return bound;
}

void NixlConnector::stop() {
    report_.cancel();
    for (const auto& [pull, read] : reads_) channel_.forget(pull);
    reads_.clear();
    leases_.clear();
    ended_reads_.clear();
    ended_leases_.clear();
    failed_.clear();
}

bool NixlConnector::role_fits(const KvParams& params) const {
    // An empty block list fails an assertion in D's engine core.
    return !params.do_remote_prefill || !params.remote_block_ids.empty();
}

bool NixlConnector::loads(const Sequence& sequence) const {
    return sequence.spec.kv->do_remote_prefill;
}

// -- D

void NixlConnector::start_load(Sequence& sequence) {
    start_read(*sequence.spec.kv, sequence.number, sequence.spec.request_id, true);
}

bool NixlConnector::dropped(const KvParams& params, const std::string& request_id) {
    if (!params.do_remote_prefill) return true;
    if (!params.remote_engine_id || !params.remote_request_id || !params.remote_host ||
        !params.remote_port)
        return false;
    start_read(params, 0, request_id, false);
    return true;
}

void NixlConnector::start_read(const KvParams& params, std::uint64_t sequence,
                               const std::string& request_id, bool wants_blocks) {
    const auto address =
        params.remote_host && params.remote_port
            ? host_address(*params.remote_host, *params.remote_port, context_.options)
            : Result<io::Address>(fail(Errc::InvalidAddress));
    if (!address || !params.remote_request_id || !params.remote_engine_id) {
        context_.log("NIXL handshake failed: incomplete kv_transfer_params");
        failed_.push_back(sequence);
        context_.loop.defer(report_);
        return;
    }
    PullMessage message;
    message.engine_id = *params.remote_engine_id;
    message.tp_size = context_.options.tensor_parallel;
    PullItem& item = message.items.emplace_back();
    item.request = request_id;
    item.transfer = *params.remote_request_id;
    if (wants_blocks) item.remote_blocks = params.remote_block_ids;
    item.blocks = static_cast<std::uint32_t>(item.remote_blocks.size());
    auto read = std::make_unique<Read>(*this, sequence);
    read->pull = channel_.pull(*address, message, *this);
    ++context_.counters.pulls_sent;
    context_.loop.arm(read->silence, context_.options.kv.nixl_handshake_timeout);
    const std::uint64_t pull = read->pull;
    reads_.emplace(pull, std::move(read));
}

void NixlConnector::report_failures() {
    ended_reads_.clear();
    ended_leases_.clear();
    for (const std::uint64_t sequence : std::exchange(failed_, {})) {
        ++context_.counters.failed_receives;
        host_.load_ended(sequence, std::nullopt);
    }
}

void NixlConnector::on_pull_response(std::uint64_t pull, const PullResponse& response) {
    if (!response.message.empty()) context_.log("NIXL: " + response.message);
    std::optional<std::uint64_t> content;
    if (response.status == PullStatus::Finish && !response.ok.empty())
        content = response.ok.front().content;
    read_over(pull, content);
}

void NixlConnector::read_over(std::uint64_t pull, std::optional<std::uint64_t> content) {
    const auto found = reads_.find(pull);
    if (found == reads_.end()) return;
    found->second->silence.cancel();
    channel_.forget(pull);
    const std::uint64_t sequence = found->second->sequence;
    ended_reads_.push_back(std::move(found->second));  // it may be on the stack
    reads_.erase(found);
    context_.loop.defer(report_);
    if (!content) ++context_.counters.failed_receives;
    host_.load_ended(sequence, content);
}

// -- P

bool NixlConnector::finished(Sequence& sequence, FinishReason reason) {
    const KvParams* params = sequence.spec.kv.get();
    if (params == nullptr || !params->do_remote_decode || !address_.valid() ||
        sequence.blocks.empty())
        return false;
    if (reason != FinishReason::Length && reason != FinishReason::Stop) return false;
    const std::string& request = sequence.spec.request_id;
    const std::uint32_t size = context_.options.timing.block_size;
    const std::size_t prompt_blocks = (sequence.spec.prompt_tokens + size - 1) / size;
    json::JsonText json;
    json.begin_object().member("do_remote_prefill", true).member("do_remote_decode", false);
    json.key("remote_block_ids").begin_array().begin_array();
    for (std::size_t i = 0; i < std::min(prompt_blocks, sequence.blocks.size()); ++i)
        json.value(sequence.blocks[i]);
    json.end_array().end_array();
    json.member("remote_engine_id", engine_id_).member("remote_request_id", request);
    json.member("remote_host", host_name_).member("remote_port", address_.port());
    json.member("tp_size", context_.options.tensor_parallel)
        .member("dcp_size", 1)
        .member("pp_size", 1);
    json.member("remote_num_tokens", sequence.spec.prompt_tokens)
        .member("remote_blocks_expiry_time", nullptr);
    json.member("transfer_mode", "pull").member("remote_prefill_cached_tokens", 0);
    json.member("remote_registration_generation", 0);
    sequence.returned_params = std::move(json.end_object().text);

    auto lease = std::make_unique<Lease>(*this, request, sequence.blocks);
    context_.loop.arm(lease->expiry, context_.options.kv.nixl_lease);
    leases_[request] = std::move(lease);
    return true;
}

void NixlConnector::on_pull(PullMessage message, std::unique_ptr<PullReplier> replier) {
    ++context_.counters.pulls_received;
    PullResponse response;
    if (context_.has_fault(FaultKind::PullHang)) return;
    if (message.engine_id != engine_id_ || context_.has_fault(FaultKind::PullFail)) {
        ++context_.counters.failed_transfers;
        response.status = PullStatus::Error;
        response.message = "remote engine id does not match";
        return replier->respond(response);
    }
    for (const PullItem& item : message.items) {
        const BlockId block = item.remote_blocks.empty() ? 0 : item.remote_blocks.back();
        response.ok.push_back({item.request, host_.content_of(block)});
        if (leases_.contains(item.transfer)) {
            if (!item.remote_blocks.empty()) ++context_.counters.transfers;
            lease_over(item.transfer, false);
        } else if (!item.remote_blocks.empty()) {
            context_.log("Potentially invalid KV blocks for unrecognized request " + item.transfer +
                         " retrieved");
        }
    }
    replier->respond(response);
}

void NixlConnector::lease_over(const std::string& request, bool expired) {
    const auto found = leases_.find(request);
    if (found == leases_.end()) return;
    std::unique_ptr<Lease> lease = std::move(found->second);
    leases_.erase(found);
    lease->expiry.cancel();
    if (expired) ++context_.counters.expired;
    host_.release_blocks(lease->blocks);
    ended_leases_.push_back(std::move(lease));  // it may be on the stack
    context_.loop.defer(report_);
}

ConnectorCounts NixlConnector::counts() const {
    ConnectorCounts counts;
    counts.transfers_live = static_cast<std::uint32_t>(leases_.size());
    counts.pulls_waiting = static_cast<std::uint32_t>(reads_.size());
    for (const auto& [request, lease] : leases_)
        counts.blocks_held += static_cast<std::uint32_t>(lease->blocks.size());
    return counts;
}

}  // namespace sluice::engine
