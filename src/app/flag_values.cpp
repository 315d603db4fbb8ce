// SPDX-License-Identifier: Apache-2.0
#include "app/flag_values.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <vector>

#include "app/flags.h"

namespace sluice::app {

[[noreturn]] void refuse(const std::string& flag, const std::string& value,
                         const std::string& allowed) {
    throw FlagError(flag + ": \"" + value + "\" is not " + allowed);
}

std::string shown(double value) {
    std::string text = std::to_string(value);
    text.erase(text.find_last_not_of('0') + 1);
    if (text.ends_with('.')) text.pop_back();
    return text;
}

std::string number_between(const std::string& unit, double low, double high) {
    return "a number" + unit + " between " + shown(low) + " and " + shown(high);
}

double parse_double(const std::string& flag, const std::string& text, double low, double high,
                    const std::string& allowed) {
    double value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size() || !std::isfinite(value) ||
        value < low || value > high)
        refuse(flag, text, allowed);
    return value;
}

std::uint64_t parse_bytes(const std::string& flag, const std::string& text, std::uint64_t low,
                          std::uint64_t high, const std::string& allowed) {
    std::uint64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    const std::string unit(end, text.data() + text.size());
    const std::pair<const char*, unsigned> kUnits[] = {
        {"", 0}, {"B", 0}, {"KiB", 10}, {"MiB", 20}, {"GiB", 30}};
    for (const auto& [name, shift] : kUnits)
        if (error == std::errc() && unit == name && value <= (high >> shift)) {
            value <<= shift;
            if (value >= low && value <= high) return value;
        }
    refuse(flag, text, allowed);
}

std::string shown_bytes(std::uint64_t value) {
    for (const auto& [name, shift] :
         {std::pair{"GiB", 30}, std::pair{"MiB", 20}, std::pair{"KiB", 10}})
        if (value != 0 && value % (1ULL << shift) == 0)
            return std::to_string(value >> shift) + name;
    return std::to_string(value);
}

std::string wrapped(const std::string& text, std::size_t width) {
    std::string out;
    std::size_t column = 0;
    for (std::size_t at = 0; at < text.size();) {
        const std::size_t end = std::min(text.find(' ', at), text.size());
        const std::size_t word = end - at;
        if (column != 0) {
            const bool fits = column + 1 + word <= width;
            out += fits ? ' ' : '\n';
            column = fits ? column + 1 : 0;
        }
        out.append(text, at, word);
        column += word;
        at = end + 1;
    }
    return out;
}

std::string toml_string(std::string_view text) {
    std::string out = "\"";
    for (const char c : text) {
        if (c == '"' || c == '\\') out += '\\';
        out += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? '?' : c;
    }
    return out + "\"";
}

const std::string& checked_secret(const std::string& flag, const std::string& text) {
    if (text.empty() || !std::ranges::all_of(text, [](char c) { return c > 0x20 && c < 0x7f; }))
        throw FlagError(flag + ": a key is not empty and has no blanks or control characters");
    return text;
}

std::size_t edit_distance(std::string_view a, std::string_view b) {
    std::vector<std::size_t> row(b.size() + 1);
    for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
    for (std::size_t i = 1; i <= a.size(); ++i) {
        std::size_t diagonal = row[0];
        row[0] = i;
        for (std::size_t j = 1; j <= b.size(); ++j) {
            const std::size_t above = row[j];
            row[j] = std::min({row[j] + 1, row[j - 1] + 1, diagonal + (a[i - 1] != b[j - 1])});
            diagonal = above;
        }
    }
    return row[b.size()];
}

}  // namespace sluice::app
