// SPDX-License-Identifier: Apache-2.0
// All named instances, and whether they fit together.
#include <algorithm>
#include <iterator>
#include <thread>

#include "app/doctor_instance.h"

namespace sluice::app {

namespace {

bool shares_model(const InstanceReport& a, const InstanceReport& b) {
    return std::ranges::any_of(
        a.models, [&](const std::string& id) { return std::ranges::count(b.models, id) > 0; });
}

// What no instance can be blamed for alone.
void compare(const pd::ProxyOptions& options, const std::vector<InstanceReport>& prefill,
             const std::vector<InstanceReport>& decode, std::vector<Finding>& findings) {
    for (std::size_t i = 0; i < prefill.size(); ++i) {
        for (std::size_t j = 0; j < i; ++j)
            if (!prefill[i].bootstrap.empty() && prefill[i].bootstrap == prefill[j].bootstrap &&
                !prefill[i].ranks.empty())
                findings.push_back(
                    {Verdict::Fail,
                     "bootstrap " + prefill[i].bootstrap,
                     options.prefill[j].url + " and " + options.prefill[i].url + " share it",
                     "Each prefill instance has its own: name it behind the URL of --prefill",
                     {}});
        for (std::size_t j = 0; j < decode.size(); ++j) {
            const std::string pair = options.prefill[i].url + " and " + options.decode[j].url;
            if (!prefill[i].models.empty() && !decode[j].models.empty() &&
                !shares_model(prefill[i], decode[j]))
                findings.push_back({Verdict::Fail,
                                    "models",
                                    pair + " have no model in common",
                                    "P and D of one proxy serve the same model under the same name "
                                    "(--served-model-name)",
                                    {}});
            if (!prefill[i].version.empty() && !decode[j].version.empty() &&
                prefill[i].version != decode[j].version)
                findings.push_back(
                    {Verdict::Warn,
                     "versions",
                     pair + " are " + prefill[i].version + " and " + decode[j].version,
                     "NixlConnectors of different releases refuse each other, "
                     "MooncakeConnectors may work",
                     {}});
        }
    }
}

}  // namespace

std::vector<Finding> examine_fleet(const pd::ProxyOptions& options) {
    if (options.prefill.empty() && options.decode.empty())
        return {{Verdict::Warn,
                 "instances",
                 "none is named, so only this machine was looked at",
                 "Give --prefill and --decode as to the proxy",
                 {}}};
    std::vector<InstanceReport> prefill(options.prefill.size());
    std::vector<InstanceReport> decode(options.decode.size());
    {
        std::vector<std::jthread> threads;
        const auto examine = [&](const fleet::InstanceSpec& spec, fleet::Role role,
                                 InstanceReport& report) {
            threads.emplace_back([&options, &spec, role, &report] {
                report = examine_instance(options, spec, role);
            });
        };
        for (std::size_t i = 0; i < prefill.size(); ++i)
            examine(options.prefill[i], fleet::Role::Prefill, prefill[i]);
        for (std::size_t i = 0; i < decode.size(); ++i)
            examine(options.decode[i], fleet::Role::Decode, decode[i]);
    }
    std::vector<Finding> findings;
    for (auto* reports : {&prefill, &decode})
        for (InstanceReport& report : *reports)
            std::ranges::move(report.findings, std::back_inserter(findings));
    if (options.prefill.empty() && !options.decode_fallback)
        findings.push_back({Verdict::Warn,
                            "instances",
                            "no prefill instance is named",
                            "The proxy needs at least one --prefill, or --decode-fallback",
                            {}});
    if (options.decode.empty())
        findings.push_back({Verdict::Warn,
                            "instances",
                            "no decode instance is named",
                            "The proxy needs at least one --decode",
                            {}});
    compare(options, prefill, decode, findings);
    return findings;
}

}  // namespace sluice::app
