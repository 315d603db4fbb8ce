// SPDX-License-Identifier: Apache-2.0
#include "app/doctor_command.h"

#include <algorithm>
#include <cstdio>
#include <iterator>

#include "app/doctor.h"
#include "app/doctor_kv.h"
#include "app/flags.h"
#include "json/value.h"

namespace sluice::app {

namespace {

constexpr const char* kWords[] = {"OK", "WARN", "FAIL"};
constexpr const char* kLevels[] = {"ok", "warn", "fail"};

std::string milliseconds(Duration duration) {
    char text[32];
    std::snprintf(text, sizeof text, "%.1f", to_ms(duration));
    return text;
}

// What came over the network is shown as it may be shown: one line, no control characters.
std::string printable(std::string_view text) {
    std::string out;
    for (const char c : text) out += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? ' ' : c;
    return out;
}

std::string json_text(std::string_view text) {
    const std::string clean = printable(text);
    std::string room(clean.size() * json::kEscapeGrowthMax, '\0');
    return "\"" + std::string(json::escape(clean, room).value_or("")) + "\"";
}

std::size_t count(const std::vector<Finding>& findings, Verdict verdict) {
    return static_cast<std::size_t>(std::ranges::count(findings, verdict, &Finding::verdict));
}

}  // namespace

std::string as_text(const std::vector<Finding>& findings) {
    std::size_t width = 0;
    for (const Finding& finding : findings) width = std::max(width, finding.subject.size());
    std::string out;
    for (const Finding& finding : findings) {
        std::string subject = printable(finding.subject);
        subject.resize(width, ' ');
        const char* word = kWords[static_cast<std::size_t>(finding.verdict)];
        out += std::string(word).append(word[2] == '\0' ? "    " : "  ") + subject + "  " +
               printable(finding.text);
        if (finding.took) out += " (" + milliseconds(*finding.took) + " ms)";
        if (!finding.advice.empty()) out += ". " + printable(finding.advice);
        out += '\n';
    }
    const std::size_t failures = count(findings, Verdict::Fail);
    out += "\n" + std::to_string(count(findings, Verdict::Ok)) + " OK, " +
           std::to_string(count(findings, Verdict::Warn)) + " WARN, " + std::to_string(failures) +
           " FAIL: ";
    out += failures == 0 ? "nothing keeps the proxy from working\n"
                         : "the proxy would not work as it should\n";
    return out;
}

std::string as_json(const std::vector<Finding>& findings) {
    std::string out = "{\"findings\":[";
    for (const Finding& finding : findings) {
        if (&finding != &findings.front()) out += ',';
        out += "\n{\"level\":" + json_text(kLevels[static_cast<std::size_t>(finding.verdict)]) +
               ",\"subject\":" + json_text(finding.subject) +
               ",\"finding\":" + json_text(finding.text) +
               ",\"advice\":" + json_text(finding.advice);
        if (finding.took) out += ",\"ms\":" + milliseconds(*finding.took);
        out += '}';
    }
    for (const Verdict verdict : {Verdict::Ok, Verdict::Warn, Verdict::Fail})
        out += (verdict == Verdict::Ok ? "],\n\"" : ",\"") +
               std::string(kLevels[static_cast<std::size_t>(verdict)]) +
               "\":" + std::to_string(count(findings, verdict));
    return out + "}\n";
}

bool any_failed(const std::vector<Finding>& findings) { return count(findings, Verdict::Fail) > 0; }

int run_doctor_command(int argc, char** argv) {
    bool json = false;
    std::vector<std::string> kv_nodes;
    std::string kv_token;
    const ProxyCommandLine line = parse_proxy_command_line(
        "sluice doctor",
        "Checks this machine and, with the proxy's own flags, the addresses that it would listen "
        "on and the instances "
        "that it would ask. One line for each finding; exit status 1 if something would keep the "
        "proxy from working.",
        argc, argv, {.instances_required = false, .more_flags = [&](FlagSet& flags) {
                         flags.group("Doctor");
                         flags.flag("--json", json, "Print the findings as one JSON object");
                         flags.texts("--kv", kv_nodes, "HOST:PORT",
                                     "Two KV nodes, a producer and a consumer (numeric control "
                                     "addresses): only says which transport they use, and why no "
                                     "other");
                         flags.text("--kv-token", kv_token, "The token of their pool");
                     }});
    if (!kv_nodes.empty()) {
        const KvReport report = examine_kv_pair(kv_nodes, kv_token);
        std::fwrite(report.text.data(), 1, report.text.size(), report.ok ? stdout : stderr);
        return report.ok ? 0 : 1;
    }
    std::vector<Finding> findings = examine_machine(line);
    std::ranges::move(examine_fleet(line.proxy), std::back_inserter(findings));
    const std::string report = json ? as_json(findings) : as_text(findings);
    std::fwrite(report.data(), 1, report.size(), stdout);
    return any_failed(findings) ? 1 : 0;
}

}  // namespace sluice::app
