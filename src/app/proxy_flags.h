// SPDX-License-Identifier: Apache-2.0
// The command line of `sluice proxy`: a superset of those of vLLM's Mooncake example proxy and of
// the toy proxies. Threads: start-up only. Errors: FlagError.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "obs/log.h"
#include "pd/access_log.h"
#include "pd/options.h"

namespace sluice::app {

class FlagSet;

// What concerns the process rather than a request.
struct ProcessOptions {
    std::vector<io::Address> listen;
    std::uint32_t workers = 0;  // 0: one for each allowed core
    bool pin = true;
    bool check_only = false;  // --check-config
    obs::LogOptions log;
    pd::AccessLogOptions access_log;
};

struct ProxyCommandLine {
    pd::ProxyOptions proxy;
    ProcessOptions process;
    std::string
        effective;  // every flag with its value as TOML, keys left out; what --check-config prints
};

// How `sluice doctor` differs, which takes the same flags.
struct ProxyParsing {
    bool instances_required = true;
    std::function<void(FlagSet&)> more_flags;
};

ProxyCommandLine parse_proxy_command_line(const std::string& command,
                                          const std::string& description, int argc, char** argv,
                                          const ProxyParsing& parsing = {});

}  // namespace sluice::app
