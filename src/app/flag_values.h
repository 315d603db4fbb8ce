// SPDX-License-Identifier: Apache-2.0
// Texts of flags to values and back.
// Threads: any. Errors: FlagError that names the flag, the text and what is allowed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace sluice::app {

[[noreturn]] void refuse(const std::string& flag, const std::string& value,
                         const std::string& allowed);

// What is allowed, as a clause. `unit`: " of seconds".
std::string number_between(const std::string& unit, double low, double high);
double parse_double(const std::string& flag, const std::string& text, double low, double high,
                    const std::string& allowed);
// "65536", "64KiB", "16MiB", "2GiB"
std::uint64_t parse_bytes(const std::string& flag, const std::string& text, std::uint64_t low,
                          std::uint64_t high, const std::string& allowed);
// One that would end its HTTP field early, or be no key at all, must not get far.
const std::string& checked_secret(const std::string& flag, const std::string& text);

std::string shown(double value);               // "2.5", "10"
std::string shown_bytes(std::uint64_t value);  // "64MiB"
// As a TOML string. Control characters are worth no more than a question mark here.
std::string toml_string(std::string_view text);
// With line breaks; CLI11 indents the lines of a help text, but does not make them.
std::string wrapped(const std::string& text, std::size_t width);

// How many letters must be changed, put in or left out.
std::size_t edit_distance(std::string_view a, std::string_view b);

}  // namespace sluice::app
