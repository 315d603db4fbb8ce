// SPDX-License-Identifier: Apache-2.0
// A strict reader of Prometheus' text format 0.0.4: what it does not object to, Prometheus takes.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace sluice::test {

struct MetricsPage {
    struct Sample {
        std::string name;
        std::map<std::string, std::string> labels;
        double value = 0;
    };
    struct Family {
        std::string type;
        std::vector<Sample> samples;
    };
    std::map<std::string, Family> families;
    std::vector<std::string> faults;  // empty: the page is valid

    // The sum of the samples that have all these labels; NaN if there is none.
    double sum(const std::string& name,
               const std::map<std::string, std::string>& labels = {}) const;
};

// Checks also what the format leaves to good will: HELP and TYPE before the samples, families in
// one piece, counters that end in _total and are whole, histograms whose buckets rise to _count.
MetricsPage read_metrics(std::string_view text);

}  // namespace sluice::test
