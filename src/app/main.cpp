// SPDX-License-Identifier: Apache-2.0
// The one binary: sluice proxy | engine | load | doctor.
#include <cstdio>
#include <exception>
#include <string_view>

#include "app/doctor_command.h"
#include "app/engine_command.h"
#include "app/flags.h"
#include "app/load_command.h"
#include "app/proxy_command.h"
#include "base/version.h"

namespace {

constexpr std::string_view kUsage =
    "usage: sluice COMMAND [FLAGS]\n"
    "\n"
    "  proxy    the prefill/decode proxy: clients in front, vLLM instances behind\n"
    "  engine   a stand-in for `vllm serve`: the same HTTP API and flags, no neural network\n"
    "  load     sends requests and tells how long they took: closed or open loop, streams\n"
    "  doctor   checks this machine and the named instances, and says what to do\n"
    "\n"
    "  sluice COMMAND --help lists a command's flags; sluice --version tells the version.\n";

struct Command {
    std::string_view name;
    int (*run)(int argc, char** argv);
};

constexpr Command kCommands[] = {
    {"proxy", sluice::app::run_proxy_command},
    {"engine", sluice::app::run_engine_command},
    {"load", sluice::app::run_load_command},
    {"doctor", sluice::app::run_doctor_command},
};

void print(std::FILE* to, std::string_view text) { std::fwrite(text.data(), 1, text.size(), to); }

}  // namespace

int main(int argc, char** argv) {
    const std::string_view name = argc > 1 ? argv[1] : "";
    if (name == "--help" || name == "-h") {
        print(stdout, kUsage);
        return 0;
    }
    if (name == "--version") {
        std::printf("sluice %s\n", std::string(sluice::kVersion).c_str());
        return 0;
    }
    for (const Command& command : kCommands) {
        if (command.name != name) continue;
        try {
            return command.run(argc - 2, argv + 2);
        } catch (const sluice::app::HelpWanted& help) {
            print(stdout, help.what());
            return 0;
        } catch (const std::exception& error) {
            std::fprintf(stderr, "sluice %s: %s\n", argv[1], error.what());
            return 2;
        }
    }
    if (!name.empty()) std::fprintf(stderr, "sluice: \"%s\" is not a command\n\n", argv[1]);
    print(stderr, kUsage);
    return 2;
}
