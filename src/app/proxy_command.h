// SPDX-License-Identifier: Apache-2.0
// `sluice proxy`: workers, signals, drain.
#pragma once

namespace sluice::app {

// The process's exit status.
int run_proxy_command(int argc, char** argv);

}  // namespace sluice::app
