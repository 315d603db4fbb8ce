// SPDX-License-Identifier: Apache-2.0
// One named instance, asked everything that can be asked without a request: does it resolve,
// connect and answer, what is it, and how long does each step take. Threads: any; calls are
// independent. Errors: are findings.
#pragma once

#include <string>
#include <vector>

#include "app/doctor.h"

namespace sluice::app {

struct InstanceReport {
    std::vector<Finding> findings;
    std::string version;
    std::vector<std::string> models;
    std::vector<fleet::DataParallelRank> ranks;
    std::string bootstrap;  // "host:port" that was asked
};

InstanceReport examine_instance(const pd::ProxyOptions& options, const fleet::InstanceSpec& spec,
                                fleet::Role role);

}  // namespace sluice::app
