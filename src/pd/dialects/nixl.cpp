// SPDX-License-Identifier: Apache-2.0
// vLLM's NixlConnector (pull): P first; the kv_transfer_params of its answer go to D whole and
// untouched, since fields are added to them in almost every release. D must ask within P's lease
// (30 s).
#include "pd/dialects/nixl.h"

namespace sluice::pd {

namespace {

class Nixl final : public Dialect {
public:
    std::string_view name() const override { return "nixl"; }
    LegOrder order() const override { return LegOrder::Sequential; }

    void write_prefill_params(TextWriter& out, const AttemptFacts&) const override {
        out.append(R"({"do_remote_decode":true,"do_remote_prefill":false,"remote_engine_id":null,)"
                   R"("remote_block_ids":null,"remote_host":null,"remote_port":null})");
    }
    void write_decode_params(TextWriter& out, const AttemptFacts&,
                             std::string_view prefill_answer) const override {
        out.append(prefill_answer);
    }
    // A cut prefill frees its blocks at once; a finished one would hold them for the lease.
    bool finish_unwanted_prefill(bool) const override { return false; }
};

}  // namespace

const Dialect& nixl() {
    static const Nixl dialect;
    return dialect;
}

}  // namespace sluice::pd
