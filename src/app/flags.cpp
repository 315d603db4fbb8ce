// SPDX-License-Identifier: Apache-2.0
#include "app/flags.h"

#include <CLI/CLI.hpp>

#include <algorithm>
#include <charconv>
#include <map>
#include <set>

#include "app/config_file.h"
#include "app/flag_values.h"
#include "base/version.h"

namespace sluice::app {

namespace {

constexpr std::size_t kNamesWidth = 34;  // of --help's left column
constexpr std::size_t kHelpWidth = 76;   // of its right one

std::string long_name(const std::string& names) {
    const auto at = names.find("--");
    return names.substr(at, names.find(',', at) - at);
}

}  // namespace

struct FlagSet::Impl {
    CLI::App app;
    std::string group_title = "Options";
    std::string config_path;
    bool config = false;
    std::vector<std::vector<std::string>> subjects;
    std::map<std::string, std::string> allowed;  // for each flag, what its values may be
    std::set<std::string> in_file;               // what the file has had a say in
    // By name, what makes the value's TOML text; an empty one is not shown.
    std::vector<std::pair<std::string, std::function<std::string()>>> shows;

    void remember(const std::string& names, std::function<std::string()> show) {
        shows.emplace_back(long_name(names).substr(2), std::move(show));
    }

    bool rival_given(const FlagSet& flags, const std::string& flag) const {
        return std::ranges::any_of(subjects, [&](const std::vector<std::string>& names) {
            return std::ranges::find(names, flag) != names.end() &&
                   std::ranges::any_of(names,
                                       [&](const std::string& name) { return flags.given(name); });
        });
    }

    void add(const std::string& names, std::function<void(const std::string&)> set,
             const std::string& help, const std::string& default_text, const std::string& type,
             const std::string& what) {
        auto* option = app.add_option_function<std::string>(names, std::move(set));
        option->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
        describe(option, names, default_text.empty() ? help : help + " [" + default_text + "]",
                 type, what);
    }

    void describe(CLI::Option* option, const std::string& names, const std::string& help,
                  const std::string& type, const std::string& what) {
        option->group(group_title)->type_name(type)->description(wrapped(help, kHelpWidth));
        allowed[long_name(names)] = what;
    }

    // CLI11's messages begin with the flag's name, or end with "NAME = VALUE", and do not say what
    // is allowed.
    std::string explain(const CLI::Error& error) const {
        const std::string text = error.what();
        for (const auto& [flag, what] : allowed) {
            if (text.starts_with(flag + ":"))
                return flag + ": the value is missing; allowed is " + what;
            const auto at = text.find(flag + " = ");
            if (at != std::string::npos)
                return flag + ": \"" + text.substr(at + flag.size() + 3) + "\" is not " + what;
        }
        return text;
    }

    std::string suggestion(const std::string& unknown) const {
        constexpr std::size_t kPrefixMin = 4;  // "--pr"
        std::string best;
        std::size_t best_distance = 4;
        for (const CLI::Option* option : app.get_options())
            for (const std::string& name : option->get_lnames()) {
                // An abbreviation, which Python's argparse would have taken.
                if (unknown.size() >= kPrefixMin && ("--" + name).starts_with(unknown))
                    return "; did you mean --" + name + "?";
                const std::size_t distance = edit_distance(unknown, "--" + name);
                if (distance < best_distance) {
                    best_distance = distance;
                    best = "--" + name;
                }
            }
        return best.empty() ? "" : "; did you mean " + best + "?";
    }

    void run(std::vector<std::string> arguments) {
        std::reverse(arguments.begin(), arguments.end());  // as CLI11 wants them
        try {
            app.clear();
            app.parse(arguments);
        } catch (const CLI::CallForHelp&) {
            throw HelpWanted(app.help());
        } catch (const CLI::CallForVersion&) {
            throw HelpWanted("sluice " + std::string(kVersion) + "\n");
        } catch (const CLI::ExtrasError&) {
            const std::string unknown =
                app.remaining().empty() ? std::string() : app.remaining().front();
            throw FlagError("unknown argument \"" + unknown + "\"" +
                            suggestion(unknown.substr(0, unknown.find('='))) + " (see " +
                            app.get_name() + " --help)");
        } catch (const CLI::Error& error) {
            throw FlagError(explain(error));
        }
    }
};

FlagSet::FlagSet(std::string name, std::string description) : impl_(std::make_unique<Impl>()) {
    impl_->app.name(std::move(name));
    impl_->app.description(std::move(description));
    impl_->app.get_formatter()->column_width(kNamesWidth);
    impl_->app.set_help_flag("-h,--help", "Print this help and exit");
}

FlagSet::~FlagSet() = default;

void FlagSet::group(std::string title) { impl_->group_title = std::move(title); }

void FlagSet::text(const std::string& names, std::string& value, const std::string& help) {
    impl_->add(
        names, [&value](const std::string& text) { value = text; }, help, value, "TEXT", "a text");
    impl_->remember(names, [&value] { return value.empty() ? value : toml_string(value); });
}

void FlagSet::secret(const std::string& names, std::string& value, const std::string& help) {
    const std::string flag = long_name(names);
    impl_->add(
        names, [&value, flag](const std::string& text) { value = checked_secret(flag, text); },
        help, "", "KEY", "a key");
}

void FlagSet::secrets(const std::string& names, std::vector<std::string>& values,
                      const std::string& help) {
    const std::string flag = long_name(names);
    const auto set = [&values, flag](const std::vector<std::string>& texts) {
        values.clear();
        for (const std::string& text : texts) values.push_back(checked_secret(flag, text));
    };
    auto* option =
        impl_->app.add_option_function<std::vector<std::string>>(names, set)->allow_extra_args();
    impl_->describe(option, names, help, "KEY", "a key, or several");
}

void FlagSet::texts(const std::string& names, std::vector<std::string>& values,
                    const std::string& type, const std::string& help) {
    impl_->describe(impl_->app.add_option(names, values)->allow_extra_args(), names, help, type,
                    "one " + type + " or more");
    impl_->remember(names, [&values] {
        std::string list;
        for (const std::string& value : values)
            list += (list.empty() ? "[" : ", ") + toml_string(value);
        return list.empty() ? list : list + "]";
    });
}

void FlagSet::pairs(const std::string& names, std::vector<std::string>& values,
                    const std::string& help) {
    auto* option = impl_->app.add_option(names, values)->expected(1, 2);
    option->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
    impl_->describe(option, names, help, "URL [PORT|none]", "a URL, and a port or none behind it");
    impl_->remember(names, [&values] {
        std::string list;
        for (std::size_t i = 0; i < values.size(); ++i) {
            list += list.empty() ? "[" : ", ";
            // The second value is a port or a word, never a URL.
            const bool pair = i + 1 < values.size() && values[i + 1].find(':') == std::string::npos;
            list += pair ? "[" + toml_string(values[i]) + ", " + toml_string(values[i + 1]) + "]"
                         : toml_string(values[i]);
            if (pair) ++i;
        }
        return list.empty() ? list : list + "]";
    });
}

void FlagSet::flag(const std::string& names, bool& value, const std::string& help) {
    impl_->describe(impl_->app.add_flag(names, value), names, help, "", "true or false");
    impl_->remember(names, [&value] { return std::string(value ? "true" : "false"); });
}

void FlagSet::seconds(const std::string& names, Duration& value, double low, double high,
                      const std::string& help) {
    const std::string flag = long_name(names);
    const std::string allowed = number_between(" of seconds", low, high);
    impl_->add(
        names,
        [&value, flag, low, high, allowed](const std::string& text) {
            value = from_seconds(parse_double(flag, text, low, high, allowed));
        },
        help, shown(to_seconds(value)), "SECONDS", allowed);
    impl_->remember(names, [&value] { return shown(to_seconds(value)); });
}

void FlagSet::milliseconds(const std::string& names, Duration& value, double low, double high,
                           const std::string& help) {
    const std::string flag = long_name(names);
    const std::string allowed = number_between(" of milliseconds", low, high);
    impl_->add(
        names,
        [&value, flag, low, high, allowed](const std::string& text) {
            value = from_seconds(parse_double(flag, text, low, high, allowed) / 1000);
        },
        help, shown(to_ms(value)), "MS", allowed);
    impl_->remember(names, [&value] { return shown(to_ms(value)); });
}

void FlagSet::number(const std::string& names, std::uint32_t& value, std::uint32_t low,
                     std::uint32_t high, const std::string& help) {
    const std::string flag = long_name(names);
    const std::string allowed =
        "a whole number between " + std::to_string(low) + " and " + std::to_string(high);
    impl_->add(
        names,
        [&value, flag, low, high, allowed](const std::string& text) {
            std::uint32_t parsed = 0;
            const auto [end, error] =
                std::from_chars(text.data(), text.data() + text.size(), parsed);
            if (error != std::errc() || end != text.data() + text.size() || parsed < low ||
                parsed > high)
                refuse(flag, text, allowed);
            value = parsed;
        },
        help, std::to_string(value), "N", allowed);
    impl_->remember(names, [&value] { return std::to_string(value); });
}

void FlagSet::fraction(const std::string& names, double& value, double low, double high,
                       const std::string& help) {
    const std::string flag = long_name(names);
    const std::string allowed = number_between("", low, high);
    impl_->add(
        names,
        [&value, flag, low, high, allowed](const std::string& text) {
            value = parse_double(flag, text, low, high, allowed);
        },
        help, shown(value), "NUMBER", allowed);
    impl_->remember(names, [&value] { return shown(value); });
}

void FlagSet::bytes(const std::string& names, std::uint64_t& value, std::uint64_t low,
                    std::uint64_t high, const std::string& help) {
    const std::string flag = long_name(names);
    const std::string allowed = "a size like 65536, 64KiB, 16MiB or 2GiB, between " +
                                shown_bytes(low) + " and " + shown_bytes(high);
    impl_->add(
        names,
        [&value, flag, low, high, allowed](const std::string& text) {
            value = parse_bytes(flag, text, low, high, allowed);
        },
        help, shown_bytes(value), "BYTES", allowed);
    impl_->remember(names, [&value] { return toml_string(shown_bytes(value)); });
}

void FlagSet::choice(const std::string& names, std::string& value, std::vector<std::string> allowed,
                     const std::string& help) {
    const std::string flag = long_name(names);
    std::string list;
    for (const std::string& one : allowed) list += (list.empty() ? "" : "|") + one;
    impl_->add(
        names,
        [&value, flag, allowed, list](const std::string& text) {
            std::string lower = text;
            for (char& c : lower) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c + ('a' - 'A')) : c;
            if (std::ranges::find(allowed, lower) == allowed.end())
                refuse(flag, text, "one of " + list);
            value = lower;
        },
        help, value, list, "one of " + list);
    impl_->remember(names, [&value] { return value.empty() ? value : toml_string(value); });
}

void FlagSet::positional(const std::string& name, std::string& value, const std::string& help) {
    impl_->app.add_option(name, value, help)->group("Arguments");
}

void FlagSet::with_config_file() {
    impl_->config = true;
    text("--config", impl_->config_path,
         "TOML file with any of these flags under the same names; the command line wins");
}

void FlagSet::same_subject(std::vector<std::string> long_names) {
    impl_->subjects.push_back(std::move(long_names));
}

bool FlagSet::given_in_file(const std::string& name) const { return impl_->in_file.contains(name); }

std::string FlagSet::effective(const std::vector<std::string>& omitted) const {
    std::string out;
    for (const auto& [name, show] : impl_->shows) {
        if (std::ranges::find(omitted, name) != omitted.end()) continue;
        if (const std::string value = show(); !value.empty()) out += name + " = " + value + "\n";
    }
    return out;
}

bool FlagSet::given(const std::string& name) const {
    const CLI::Option* option = impl_->app.get_option_no_throw(name);
    return option != nullptr && option->count() > 0;
}

void FlagSet::parse(int argc, char** argv) {
    std::vector<std::string> command_line(argv, argv + argc);
    impl_->run(command_line);
    if (!impl_->config || impl_->config_path.empty()) return;

    // The file's flags come first, those that the command line has left alone.
    std::vector<std::string> arguments;
    for (const ConfigEntry& entry : read_config_file(impl_->config_path)) {
        const std::string flag = "--" + entry.name;
        const std::string place = impl_->config_path + ":" + std::to_string(entry.line) + ": ";
        if (entry.name == "config" || entry.name == "check-config" || entry.name == "help")
            throw FlagError(place + "\"" + entry.name + "\" belongs on the command line");
        const CLI::Option* option = impl_->app.get_option_no_throw(flag);
        if (option == nullptr)
            throw FlagError(place + "unknown key \"" + entry.name + "\"" + impl_->suggestion(flag));
        const bool is_flag = option->get_items_expected_max() == 0;
        const bool is_single =
            option->get_multi_option_policy() == CLI::MultiOptionPolicy::TakeLast;
        if (is_flag != entry.is_boolean || ((is_flag || is_single) && entry.is_list))
            throw FlagError(place + "\"" + entry.name + "\" must be " + impl_->allowed.at(flag));
        if (given(flag) || impl_->rival_given(*this, flag) ||
            (is_flag && entry.occurrences.empty()))
            continue;
        impl_->in_file.insert(flag);
        std::vector<std::string> one;
        for (const auto& occurrence : entry.occurrences) {
            // With '=', so that a value that begins with a dash is no flag.
            one.push_back(occurrence.empty() ? flag : flag + "=" + occurrence[0]);
            if (occurrence.size() > 1)
                one.insert(one.end(), occurrence.begin() + 1, occurrence.end());
        }
        try {
            impl_->run(one);  // so that a bad value is blamed on its line
        } catch (const FlagError& error) {
            throw FlagError(place + error.what());
        }
        impl_->run(command_line);
        arguments.insert(arguments.end(), one.begin(), one.end());
    }
    arguments.insert(arguments.end(), command_line.begin(), command_line.end());
    impl_->run(arguments);
}

}  // namespace sluice::app
