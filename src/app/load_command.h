// SPDX-License-Identifier: Apache-2.0
// `sluice load`: requests against a proxy or an engine, and how long they took.
// Threads: main, plus its own. Errors: FlagError; exit status 1 if it cannot run or nothing
// succeeded.
#pragma once

namespace sluice::app {

int run_load_command(int argc, char** argv);

}  // namespace sluice::app
