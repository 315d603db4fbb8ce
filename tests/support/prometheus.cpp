// SPDX-License-Identifier: Apache-2.0
#include "support/prometheus.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <set>

namespace sluice::test {

namespace {

using Labels = std::map<std::string, std::string>;

bool is_name(std::string_view name, bool colons) {
    if (name.empty() || (name[0] >= '0' && name[0] <= '9')) return false;
    return std::ranges::all_of(name, [colons](char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
               c == '_' || (colons && c == ':');
    });
}

bool read_number(std::string_view text, double& value) {
    if (text == "+Inf" || text == "-Inf" || text == "NaN") {
        value = text == "NaN"    ? std::numeric_limits<double>::quiet_NaN()
                : text[0] == '-' ? -std::numeric_limits<double>::infinity()
                                 : std::numeric_limits<double>::infinity();
        return true;
    }
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    return error == std::errc() && end == text.data() + text.size();
}

class Reader {
public:
    explicit Reader(std::string_view text) : rest_(text) {}

    MetricsPage read() {
        if (!rest_.empty() && rest_.back() != '\n') fault("the last line has no line end");
        while (!rest_.empty()) {
            const auto end = rest_.find('\n');
            line_ = rest_.substr(0, end);
            rest_.remove_prefix(end == std::string_view::npos ? rest_.size() : end + 1);
            if (line_.empty()) continue;
            if (line_[0] == '#') {
                read_comment();
            } else {
                read_sample();
            }
        }
        for (const auto& [name, family] : page_.families) check_family(name, family);
        return std::move(page_);
    }

private:
    void fault(std::string what) {
        page_.faults.push_back(std::move(what) + ": " + std::string(line_));
    }

    void read_comment() {
        const bool help = line_.starts_with("# HELP ");
        if (!help && !line_.starts_with("# TYPE ")) return;
        std::string_view words = line_.substr(7);
        const auto blank = words.find(' ');
        const std::string name(words.substr(0, blank));
        if (blank == std::string_view::npos || !is_name(name, true))
            return fault("no name or text");
        words.remove_prefix(blank + 1);
        if (help) {
            if (page_.families.contains(name)) fault("a family's second HELP, or HELP after TYPE");
            for (std::size_t i = 0; i < words.size(); ++i)
                if (words[i] == '\\' &&
                    (++i == words.size() || (words[i] != 'n' && words[i] != '\\')))
                    fault("a wrong escape");
            helped_.insert(name);
            return;
        }
        if (words != "counter" && words != "gauge" && words != "histogram" && words != "summary" &&
            words != "untyped")
            fault("an unknown type");
        if (!helped_.contains(name)) fault("a TYPE without its HELP before it");
        if (!page_.families.emplace(name, MetricsPage::Family{std::string(words), {}}).second)
            fault("a family's second TYPE");
        current_ = name;
    }

    void read_sample() {
        MetricsPage::Sample sample;
        const auto name_end = line_.find_first_of("{ ");
        if (name_end == std::string_view::npos) return fault("a sample without a value");
        sample.name = line_.substr(0, name_end);
        if (!is_name(sample.name, true)) fault("not a metric's name");
        std::string_view rest = line_.substr(name_end);
        if (rest[0] == '{' && !read_labels(rest, sample.labels)) return fault("wrong labels");
        if (rest.empty() || rest[0] != ' ') return fault("no blank before the value");
        rest.remove_prefix(1);
        if (!read_number(rest, sample.value)) return fault("not a number");
        const auto family = page_.families.find(current_);
        if (family == page_.families.end() || !belongs(sample.name, family->second.type))
            return fault("a sample outside its family");
        if (!seen_.emplace(sample.name, sample.labels).second)
            fault("a sample that was there before");
        family->second.samples.push_back(std::move(sample));
    }

    bool belongs(std::string_view name, const std::string& type) const {
        if (type != "histogram") return name == current_;
        return name == current_ + "_bucket" || name == current_ + "_sum" ||
               name == current_ + "_count";
    }

    static bool read_labels(std::string_view& rest, Labels& labels) {
        rest.remove_prefix(1);
        while (!rest.starts_with('}')) {
            const auto equals = rest.find("=\"");
            if (equals == std::string_view::npos || !is_name(rest.substr(0, equals), false))
                return false;
            const std::string name(rest.substr(0, equals));
            rest.remove_prefix(equals + 2);
            std::string value;
            while (!rest.empty() && rest[0] != '"') {
                if (rest[0] == '\\') {
                    if (rest.size() < 2) return false;
                    const char c = rest[1];
                    if (c != 'n' && c != '\\' && c != '"') return false;
                    value += c == 'n' ? '\n' : c;
                    rest.remove_prefix(2);
                } else {
                    value += rest[0];
                    rest.remove_prefix(1);
                }
            }
            if (rest.empty() || !labels.emplace(name, value).second) return false;
            rest.remove_prefix(1);
            if (rest.starts_with(',')) {
                rest.remove_prefix(1);
                if (rest.starts_with('}')) return false;
            } else if (!rest.starts_with('}')) {
                return false;
            }
        }
        rest.remove_prefix(1);
        return true;
    }

    void check_family(const std::string& name, const MetricsPage::Family& family) {
        line_ = name;
        if (family.samples.empty()) fault("a family without samples");
        if (family.type == "counter") {
            if (!name.ends_with("_total")) fault("a counter without _total");
            for (const auto& sample : family.samples)
                if (!(sample.value >= 0) || sample.value != std::floor(sample.value))
                    fault("a counter that is no whole number");
        } else if (name.ends_with("_total")) {
            fault("_total, but no counter");
        }
        if (family.type == "histogram") check_histogram(family);
    }

    void check_histogram(const MetricsPage::Family& family) {
        struct Series {
            std::vector<std::pair<double, double>> buckets;
            double sum = -1, count = -1;
        };
        std::map<Labels, Series> all;
        for (const auto& sample : family.samples) {
            Labels labels = sample.labels;
            if (sample.name.ends_with("_bucket")) {
                double bound = 0;
                if (!labels.contains("le") || !read_number(labels["le"], bound)) {
                    fault("a bucket without a bound");
                    continue;
                }
                labels.erase("le");
                all[labels].buckets.emplace_back(bound, sample.value);
            } else if (sample.name.ends_with("_sum")) {
                all[labels].sum = sample.value;
            } else {
                all[labels].count = sample.value;
            }
        }
        for (const auto& [labels, series] : all) {
            for (std::size_t i = 1; i < series.buckets.size(); ++i)
                if (series.buckets[i].first <= series.buckets[i - 1].first ||
                    series.buckets[i].second < series.buckets[i - 1].second)
                    fault("buckets that do not rise");
            if (series.buckets.empty() || !std::isinf(series.buckets.back().first))
                fault("no bucket +Inf at the end");
            else if (series.buckets.back().second != series.count)
                fault("_count is not the last bucket");
            if (!(series.sum >= 0)) fault("no _sum");
        }
    }

    std::string_view rest_;
    std::string_view line_;
    std::string current_;
    std::set<std::string> helped_;
    std::set<std::pair<std::string, Labels>> seen_;
    MetricsPage page_;
};

}  // namespace

double MetricsPage::sum(const std::string& name, const Labels& labels) const {
    double total = 0;
    bool found = false;
    for (const auto& [family_name, family] : families)
        for (const Sample& sample : family.samples) {
            if (sample.name != name) continue;
            const bool fits = std::ranges::all_of(labels, [&](const auto& wanted) {
                const auto it = sample.labels.find(wanted.first);
                return it != sample.labels.end() && it->second == wanted.second;
            });
            if (!fits) continue;
            total += sample.value;
            found = true;
        }
    return found ? total : std::numeric_limits<double>::quiet_NaN();
}

MetricsPage read_metrics(std::string_view text) { return Reader(text).read(); }

}  // namespace sluice::test
