// SPDX-License-Identifier: Apache-2.0
#include "app/config_file.h"

#include <toml++/toml.h>

#include <charconv>
#include <fstream>

#include "app/flags.h"

namespace sluice::app {

namespace {

std::string place_of(const std::string& path, unsigned line) {
    return path + ":" + std::to_string(line) + ": ";
}

// A string, integer or decimal as it would stand on the command line.
std::string scalar_text(const std::string& path, const std::string& key, const toml::node& node) {
    if (const auto* text = node.as_string()) return text->get();
    if (const auto* number = node.as_integer()) return std::to_string(number->get());
    if (const auto* decimal = node.as_floating_point()) {
        char shortest[32];
        const auto end = std::to_chars(shortest, shortest + sizeof shortest, decimal->get()).ptr;
        return std::string(shortest, end);
    }
    throw FlagError(
        place_of(path, node.source().begin.line) + "\"" + key +
        "\" must be a string, a number, true or false, or a list of strings and numbers");
}

}  // namespace

std::vector<ConfigEntry> read_config_file(const std::string& path) {
    std::ifstream file(path);
    if (!file) throw FlagError("--config: \"" + path + "\" is not a file that can be read");
    toml::table table;
    try {
        table = toml::parse(file, path);
    } catch (const toml::parse_error& error) {
        throw FlagError(place_of(path, error.source().begin.line) +
                        std::string(error.description()));
    }
    std::vector<ConfigEntry> entries;
    for (const auto& [key, node] : table) {
        ConfigEntry entry;
        entry.name = std::string(key.str());
        entry.line = node.source().begin.line;
        if (const auto* flag = node.as_boolean()) {
            entry.is_boolean = true;
            if (flag->get()) entry.occurrences.push_back({});
        } else if (const auto* list = node.as_array()) {
            entry.is_list = true;
            // A list is the flag repeated; a list in it is one use with several values.
            for (const toml::node& element : *list) {
                std::vector<std::string> values;
                if (const auto* inner = element.as_array()) {
                    for (const toml::node& value : *inner)
                        values.push_back(scalar_text(path, entry.name, value));
                } else {
                    values.push_back(scalar_text(path, entry.name, element));
                }
                entry.occurrences.push_back(std::move(values));
            }
        } else {
            entry.occurrences.push_back({scalar_text(path, entry.name, node)});
        }
        entries.push_back(std::move(entry));
    }
    return entries;
}

}  // namespace sluice::app
