// SPDX-License-Identifier: Apache-2.0
// One prefill worker's part of the Mooncake hand-over: which transfers it knows, who waits for
// them, and its seats.
//
// A pull message occupies one of 2 x num_workers sender seats until all its transfers are done or
// it has waited too long, whether or not anybody still wants the answer; further messages queue. A
// pull for an unknown transfer makes a placeholder that the prefill, should it come, takes over. A
// transfer that was dropped by the prefill side does not wake who waits for it. The map is keyed by
// the transfer id alone: a second request under a live id overwrites the first, whose blocks then
// have no owner. All this is vLLM's behaviour (facts, pd-protocol.md 1.4). Threads: one. Owns: the
// entries and the pulls.
#pragma once

#include <deque>
#include <list>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "engine/context.h"
#include "engine/kv/connector.h"
#include "engine/kv/side_channel.h"

namespace sluice::engine {

class MooncakeSender;

// Hears when a worker is done with a finished request: handed over, or expired.
class SenderOwner {
public:
    virtual void on_sender_done(std::uint64_t p_request) = 0;
    virtual std::uint64_t content_of(BlockId block) const = 0;

protected:
    ~SenderOwner() = default;
};

class MooncakeSender final : public PullHandler {
public:
    MooncakeSender(const Context& context, SenderOwner& owner, std::uint32_t tp_rank);
    ~MooncakeSender();

    // A prefill for the transfer has its blocks.
    void expect(const std::string& transfer, std::uint64_t p_request);
    // It has finished, to be handed over.
    void ready(const std::string& transfer, std::uint64_t p_request,
               const std::vector<BlockId>& blocks);
    // It ended otherwise.
    void drop(const std::string& transfer);
    // Prompt tokens known under a transfer, for nothing but tests and /sim/state.
    std::uint32_t transfers() const { return static_cast<std::uint32_t>(entries_.size()); }
    std::uint32_t seats_taken() const { return static_cast<std::uint32_t>(seated_.size()); }
    std::uint32_t pulls_queued() const { return static_cast<std::uint32_t>(queue_.size()); }

    void stop();

private:
    struct Entry;
    class Pull;

    void on_pull(PullMessage message, std::unique_ptr<PullReplier> replier) override;
    bool refused(const PullMessage& message, PullReplier& replier);
    void fill_seats();
    std::shared_ptr<Entry> entry_of(const std::string& transfer);
    void settle(const std::shared_ptr<Entry>& entry, const PullItem& item, std::uint32_t pullers,
                PullResponse& response);
    void remove(Entry& entry);
    void expired(Entry& entry);
    void pull_ended(Pull& pull);
    void purge();
    std::uint32_t seats() const { return 2 * context_.options.kv.num_workers; }

    Context context_;
    SenderOwner& owner_;
    std::uint32_t tp_rank_;
    std::unordered_map<std::string, std::shared_ptr<Entry>> entries_;
    std::list<std::unique_ptr<Pull>> seated_;
    std::deque<std::unique_ptr<Pull>> queue_;
    std::vector<std::unique_ptr<Pull>> ended_;
    io::Deferred purge_;
    bool stopped_ = false;
};

}  // namespace sluice::engine
