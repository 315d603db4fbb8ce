// SPDX-License-Identifier: Apache-2.0
// A small fleet of real processes: stand-in engines and the proxy, on free ports of the loopback.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "support/process.h"

namespace sluice::test {

struct FleetPlan {
    int prefills = 1;
    int decodes = 1;
    // URLs of others that are there already; prefills without a bootstrap server.
    std::vector<std::string> more_prefills;
    std::vector<std::string> more_decodes;
    bool nixl = false;
    std::vector<std::string> proxy_flags;
    std::vector<std::string> engine_flags;
    std::string abort_timeout_seconds = "8";
};

struct EngineProcess {
    std::unique_ptr<Process> process;
    int port = 0;
    int bootstrap_port = 0;
    std::vector<std::string> command;
    std::map<std::string, std::string> environment;
    std::string log;

    std::string url() const { return "http://127.0.0.1:" + std::to_string(port); }
    void start();
    void kill_hard();
    // POST /sim/fault; "" clears all.
    void fault(const std::string& json) const;
};

class FleetTest : public testing::Test {
protected:
    void start(const FleetPlan& plan);
    void TearDown() override { stop(); }
    // Ends the fleet; another may be started.
    void stop();

    HttpAnswer chat(const std::string& prompt, bool stream = false, const std::string& more = {},
                    double seconds = 60);  // longer than any deadline looked at
    // The words of a chat answer, plain or streamed.
    static std::string text_of(const std::string& body);
    // A sample of the proxy's /metrics; labels as they stand there. Missing: -1.
    double metric(const std::string& name_and_labels);
    // Waits until nothing is in flight, and checks that slots and connections are what they were at
    // rest.
    void expect_at_rest();

    std::vector<EngineProcess> prefills_;
    std::vector<EngineProcess> decodes_;
    std::unique_ptr<Process> proxy_;
    int proxy_port_ = 0;

private:
    EngineProcess make_engine(const FleetPlan& plan, bool prefill, int number);
};

}  // namespace sluice::test
