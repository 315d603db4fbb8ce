// SPDX-License-Identifier: Apache-2.0
// A TOML file as a list of flags. Errors: FlagError with file and line.
#pragma once

#include <string>
#include <vector>

namespace sluice::app {

struct ConfigEntry {
    std::string name;
    unsigned line = 0;
    bool is_boolean = false;
    bool is_list = false;
    // Each is one use of the flag with its values; a true boolean is one use without values, a
    // false one is none.
    std::vector<std::vector<std::string>> occurrences;
};

std::vector<ConfigEntry> read_config_file(const std::string& path);

}  // namespace sluice::app
