// SPDX-License-Identifier: Apache-2.0
// vLLM's MooncakeConnector, 0.13 to 0.15: P first; its answer says where D finds the blocks, and
// both legs must carry the same X-Request-Id, which is what links them.
#include "pd/dialects/mooncake_sequential.h"

namespace sluice::pd {

namespace {

class MooncakeSequential final : public Dialect {
public:
    std::string_view name() const override { return "mooncake_sequential"; }
    LegOrder order() const override { return LegOrder::Sequential; }

    void write_prefill_params(TextWriter& out, const AttemptFacts&) const override {
        out.append(R"({"do_remote_decode":true,"do_remote_prefill":false})");
    }
    void write_decode_params(TextWriter& out, const AttemptFacts&,
                             std::string_view prefill_answer) const override {
        out.append(prefill_answer);
    }
    bool finish_unwanted_prefill(bool) const override { return false; }
};

}  // namespace

const Dialect& mooncake_sequential() {
    static const MooncakeSequential dialect;
    return dialect;
}

}  // namespace sluice::pd
