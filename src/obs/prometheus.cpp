// SPDX-License-Identifier: Apache-2.0
#include "obs/prometheus.h"

#include <charconv>

namespace sluice::obs {

namespace {

template <class T>
void append_number(std::string& out, T value) {
    char digits[32];
    out.append(digits, std::to_chars(digits, digits + sizeof digits, value).ptr);
}

// To the nanosecond, without an exponent.
void append_seconds(std::string& out, std::uint64_t ns) {
    constexpr std::uint64_t kSecond = 1'000'000'000;
    append_number(out, ns / kSecond);
    out += '.';
    const std::size_t point = out.size();
    append_number(out, kSecond + ns % kSecond);  // its leading 1 keeps the zeros
    out.erase(point, 1);
}

}  // namespace

std::string label(std::string_view name, std::string_view value) {
    std::string out(name);
    out += "=\"";
    for (const char c : value) {
        if (c == '"' || c == '\\') out += '\\';
        if (c == '\n') {
            out += "\\n";
        } else {
            out += c;
        }
    }
    out += '"';
    return out;
}

void PrometheusText::family(std::string_view name, std::string_view type, std::string_view help) {
    name_ = name;
    out_.append("# HELP ").append(name).append(" ").append(help);
    out_.append("\n# TYPE ").append(name).append(" ").append(type).append("\n");
}

void PrometheusText::begin_sample(std::string_view suffix, std::string_view labels,
                                  std::string_view le) {
    out_.append(name_).append(suffix);
    if (!labels.empty() || !le.empty()) {
        out_.append("{").append(labels);
        if (!le.empty()) out_.append(labels.empty() ? "le=\"" : ",le=\"").append(le).append("\"");
        out_ += '}';
    }
    out_ += ' ';
}

void PrometheusText::write(std::string_view labels, std::int64_t value) {
    begin_sample("", labels);
    append_number(out_, value);
    out_ += '\n';
}

void PrometheusText::write(std::string_view labels, std::uint64_t value) {
    begin_sample("", labels);
    append_number(out_, value);
    out_ += '\n';
}

void PrometheusText::histogram(std::string_view labels, const DurationHistogram::Sum& sum) {
    std::uint64_t up_to = 0;
    for (std::size_t i = 0; i <= DurationHistogram::kBounds; ++i) {
        up_to += sum.buckets[i];
        begin_sample("_bucket", labels,
                     i < DurationHistogram::kBounds ? DurationHistogram::kBoundTexts[i] : "+Inf");
        append_number(out_, up_to);
        out_ += '\n';
    }
    begin_sample("_sum", labels);
    append_seconds(out_, sum.ns);
    out_ += '\n';
    begin_sample("_count", labels);
    append_number(out_, up_to);
    out_ += '\n';
}

}  // namespace sluice::obs
