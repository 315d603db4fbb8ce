// SPDX-License-Identifier: Apache-2.0
// vLLM's MooncakeConnector, 0.16 and later: both legs run at once and meet under a transfer id. D
// asks P's bootstrap server for the rank's worker and pulls; P's answer carries nothing.
#include "pd/dialects/mooncake.h"

namespace sluice::pd {

namespace {

class Mooncake final : public Dialect {
public:
    std::string_view name() const override { return "mooncake"; }
    LegOrder order() const override { return LegOrder::Concurrent; }

    void write_prefill_params(TextWriter& out, const AttemptFacts& attempt) const override {
        out.append(R"({"do_remote_decode":true,"do_remote_prefill":false,"transfer_id":")");
        out.append(attempt.transfer_id);
        out.append("\"}");
    }

    // D caches what a bootstrap server says of an engine id for ever, so the id must be that of P's
    // present life.
    void write_decode_params(TextWriter& out, const AttemptFacts& attempt,
                             std::string_view) const override {
        out.append(
            R"({"do_remote_decode":false,"do_remote_prefill":true,"remote_bootstrap_addr":")");
        out.append(attempt.bootstrap_url);
        out.append(R"(","remote_engine_id":")");
        out.append(attempt.engine_id);
        out.append(R"(","transfer_id":")");
        out.append(attempt.transfer_id);
        out.append("\"}");
    }

    bool can_be_relayed() const override { return true; }

    // Cutting a prefill that D waits for pins D's blocks for up to 480 s and one of P's sender
    // seats with them; a finished one is pushed and both sides are free at once. One that no D will
    // pull is better cut, since finished it would hold P's blocks for 480 s.
    bool finish_unwanted_prefill(bool decode_may_pull) const override { return decode_may_pull; }

    // When a plain (not streamed) request is cut, D's API server tells P to free what was freed
    // long ago: a pull for an id that P no longer knows, which takes one of P's 20 sender seats
    // until VLLM_MOONCAKE_ABORT_REQUEST_TIMEOUT (480 s). Twenty such clients stop all hand-over of
    // that P (seen on vLLM 0.32). Finished, it costs D the tokens that were asked for.
    bool finish_unwanted_decode(bool stream) const override { return !stream; }
};

}  // namespace

const Dialect& mooncake() {
    static const Mooncake dialect;
    return dialect;
}

}  // namespace sluice::pd
