// SPDX-License-Identifier: Apache-2.0
// `sluice doctor`: is this machine fit, are the named instances there, what is to be done.
#pragma once

namespace sluice::app {

// 0: fit; 1: something would keep the proxy from working.
int run_doctor_command(int argc, char** argv);

}  // namespace sluice::app
