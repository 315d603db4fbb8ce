// SPDX-License-Identifier: Apache-2.0
// Command-line flags with errors that help: every message names the flag, the value and what is
// allowed.
//
// A FlagSet is a thin layer over CLI11: flags of the kinds we have, a TOML file with the same
// names, and suggestions for misspelt ones. Threads: start-up only. Errors: FlagError, printed by
// main with exit status 2.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "base/time.h"

namespace sluice::app {

struct FlagError : std::runtime_error {
    using std::runtime_error::runtime_error;
};
// --help or --version: the text to print, exit status 0.
struct HelpWanted : std::runtime_error {
    using std::runtime_error::runtime_error;
};

class FlagSet {
public:
    FlagSet(std::string name, std::string description);
    ~FlagSet();

    void group(std::string title);  // heading of the flags that follow in --help
    // `names`: "--port" or "-p,--port,--Port"; the first long one is the name in the TOML file.
    void text(const std::string& names, std::string& value, const std::string& help);
    // Repeatable, each time with one value or more; `type` is how --help calls one.
    void texts(const std::string& names, std::vector<std::string>& values, const std::string& type,
               const std::string& help);
    // Keys and the like: not empty, fit for an HTTP field, and left out of effective().
    void secret(const std::string& names, std::string& value, const std::string& help);
    void secrets(const std::string& names, std::vector<std::string>& values,
                 const std::string& help);
    // Repeatable, one or two values each time.
    void pairs(const std::string& names, std::vector<std::string>& values, const std::string& help);
    void flag(const std::string& names, bool& value, const std::string& help);
    void seconds(const std::string& names, Duration& value, double low, double high,
                 const std::string& help);
    void milliseconds(const std::string& names, Duration& value, double low, double high,
                      const std::string& help);
    void number(const std::string& names, std::uint32_t& value, std::uint32_t low,
                std::uint32_t high, const std::string& help);
    void fraction(const std::string& names, double& value, double low, double high,
                  const std::string& help);
    void bytes(const std::string& names, std::uint64_t& value, std::uint64_t low,
               std::uint64_t high, const std::string& help);
    // In upper or lower case; `value` is in lower case.
    void choice(const std::string& names, std::string& value, std::vector<std::string> allowed,
                const std::string& help);
    // A plain argument without a flag.
    void positional(const std::string& name, std::string& value, const std::string& help);
    void with_config_file();  // --config FILE
    // These say the same thing in several ways: one of them on the command line, and the file's are
    // all ignored.
    void same_subject(std::vector<std::string> long_names);

    // Throws FlagError or HelpWanted.
    void parse(int argc, char** argv);
    bool given(const std::string& long_name) const;
    bool given_in_file(const std::string& long_name) const;  // and not on the command line
    // Every flag and its value after parse(), as a TOML file; `omitted` are names without dashes.
    std::string effective(const std::vector<std::string>& omitted) const;

private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace sluice::app
